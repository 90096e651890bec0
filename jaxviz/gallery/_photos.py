"""Photos of a gallery: which excite a unit, their classes, the receptive field in them, and the site's copies."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from jaxviz._atomic import write_atomically
from jaxviz._errors import ImageError
from jaxviz._types import StrPath
from jaxviz.gallery._site import NO_CLASS, Box, Example, Histogram, Place
from jaxviz.image import load, to_pillow
from jaxviz.inspection._examples.result import TopExamples

QUALITY = 88  # of WebP
FRAMED = 0.6  # of a photo's area: larger receptive fields are not framed; only their center is marked


def as_paths(paths: StrPath | Sequence[StrPath]) -> list[Path]:
    """Return files and folders as absolute paths."""
    return [Path(path).absolute() for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]


def classes_of(
    files: Sequence[StrPath],
    folders: Sequence[Path],
    class_names: Sequence[str] = (),
    folder_names: Mapping[str, str] | None = None,
) -> list[str]:
    """Return the class of every photo: the name of its folder if that lies below a given folder, or `NO_CLASS`.

    Folders with WordNet names (n01440764), as many as the network has classes, are matched to the classes in sorted order,
    which is torchvision's; `folder_names` names the classes of other folders.
    """
    tops = {os.path.realpath(folder) for folder in folders}
    is_below = {parent: os.path.realpath(parent) not in tops for parent in {Path(file).parent for file in files}}
    folder_of = [Path(file).parent.name if is_below[Path(file).parent] else NO_CLASS for file in files]
    distinct = sorted(set(folder_of) - {NO_CLASS})
    names = dict(folder_names or {})
    if len(distinct) == len(class_names) and all(re.fullmatch(r"n\d{8}", name) for name in distinct):
        names = dict(zip(distinct, class_names, strict=True)) | names
    return [names.get(name, name) for name in folder_of]


def examples_of(top: TopExamples, unit: int, k: int, classes: Sequence[str], folders: Sequence[Path]) -> tuple[Example, ...]:
    """Return the k photos that excite a unit most, strongest first."""
    examples: list[Example] = []
    for score, index, position in zip(top.scores[unit][:k], top.indices[unit][:k], top.positions[unit][:k], strict=True):
        if index >= 0:
            place, box = _place_and_box(top, int(position[0]), int(position[1]))
            photo = int(index)
            examples.append(Example(photo, shown_name(top.files[photo], folders), classes[photo], float(score), place, box))
    return tuple(examples)


def _place_and_box(top: TopExamples, row: int, column: int) -> tuple[Place | None, Box | None]:
    """Return the center and the edges of a position's receptive field, as shares of the photo; None if unknown."""
    height, width = top.image_size
    if not top.shape:
        return None, None
    field = top.receptive_field
    if field is None:
        return ((row + 0.5) / top.shape[0], (column + 0.5) / top.shape[1]), None
    t, left, b, right = field.box(row, column)
    y, x = (t + b) / 2 / height, (left + right) / 2 / width
    place = (min(max(y, 0.0), 1.0), min(max(x, 0.0), 1.0))
    if field.whole or field.size[0] * field.size[1] > FRAMED * height * width:
        return place, None
    return place, (max(t, 0) / height, max(left, 0) / width, min(b, height) / height, min(right, width) / width)


def histogram_of(top: TopExamples, unit: int) -> Histogram | None:
    """Return the bins from the smallest to the largest score; None without scores."""
    counts, edges = top.counts[unit], top.edges[unit]
    used = np.flatnonzero(counts)
    if not len(used):
        return None
    first, last = int(used[0]), int(used[-1]) + 1
    return Histogram(tuple(map(int, counts[first:last])), float(edges[first]), float(edges[last]))


def shown_name(file: StrPath, folders: Sequence[Path]) -> str:
    """Return a photo's path below its given folder."""
    for folder in folders:
        if Path(file).is_relative_to(folder):
            return Path(file).relative_to(folder).as_posix() if Path(file) != folder else folder.name
    return Path(file).name


def copy_photos(numbers: Iterable[int], files: Sequence[StrPath], size: tuple[int, int], folder: Path) -> None:
    """Write photos at the network's input size as `<number>.webp`; existing files stay."""
    for number in sorted(set(numbers)):
        path = folder / f"{number}.webp"
        if not path.exists():
            try:
                photo = load(files[number], size)
            except ImageError:  # deleted since it was read: show a gray square
                photo = np.full((*size, 3), 0.5, np.float32)
            write_webp(path, to_pillow(photo))


def write_webp(path: Path, picture: Image.Image, quality: int = QUALITY) -> None:
    """Write a picture in one step."""
    write_atomically(path, partial(picture.save, format="WEBP", quality=quality, method=4))
