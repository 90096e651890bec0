"""The examples of a gallery: which photos excite a unit, their classes, where it looks, and the site's copies of them."""

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
from jaxviz.gallery._site import NO_CLASS, Example, Histogram
from jaxviz.image import load, to_pillow
from jaxviz.inspection import TopExamples

QUALITY = 88  # of WebP
FRAMED = 0.6  # of a photo's area: what a unit sees is framed and cut out where it is not more; else only its middle is marked


def roots(paths: StrPath | Sequence[StrPath]) -> list[Path]:
    """Return files and folders as absolute paths."""
    return [Path(path).absolute() for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]


def kinds_of(
    files: Sequence[StrPath],
    folders: Sequence[Path],
    class_names: Sequence[str] = (),
    folder_names: Mapping[str, str] | None = None,
) -> list[str]:
    """Return the class of every photo: the folder that it lies in, below those that were given, or `NO_CLASS`.

    Folders that are named by WordNet (n01440764), as many as the network has classes, get the names of these in sorted order,
    which is how torchvision numbers them; `folder_names` says what other folders mean.
    """
    tops = {os.path.realpath(folder) for folder in folders}
    inside = {parent: os.path.realpath(parent) not in tops for parent in {Path(file).parent for file in files}}
    found = [Path(file).parent.name if inside[Path(file).parent] else NO_CLASS for file in files]
    listed = sorted(set(found) - {NO_CLASS})
    names = dict(folder_names or {})
    if len(listed) == len(class_names) and all(re.fullmatch(r"n\d{8}", name) for name in listed):
        names = dict(zip(listed, class_names, strict=True)) | names
    return [names.get(name, name) for name in found]


def examples_of(top: TopExamples, unit: int, k: int, kinds: Sequence[str], folders: Sequence[Path]) -> tuple[Example, ...]:
    """Return the k photos that excite a unit most, the strongest first."""
    found = []
    height, width = top.image_size
    field = top.receptive_field
    framed = field is not None and not field.whole and field.size[0] * field.size[1] <= FRAMED * height * width
    for score, index, position in zip(top.scores[unit][:k], top.indices[unit][:k], top.positions[unit][:k], strict=True):
        if index < 0:
            continue
        place = box = None
        if top.shape and field is not None:
            t, left, b, right = field.box(int(position[0]), int(position[1]))
            place = ((t + b) / 2 / height, (left + right) / 2 / width)
            place = (min(max(place[0], 0.0), 1.0), min(max(place[1], 0.0), 1.0))
            cut = (max(t, 0) / height, max(left, 0) / width, min(b, height) / height, min(right, width) / width)
            box = cut if framed else None
        elif top.shape:
            place = ((int(position[0]) + 0.5) / top.shape[0], (int(position[1]) + 0.5) / top.shape[1])
        at = int(index)
        found.append(Example(at, shown_name(top.files[at], folders), kinds[at], float(score), place, box))
    return tuple(found)


def histogram_of(top: TopExamples, unit: int) -> Histogram | None:
    """Return the bins from the least to the greatest score of the photos, with their own edges; None without scores."""
    counts, edges = top.counts[unit], top.edges[unit]
    used = np.flatnonzero(counts)
    if not len(used):
        return None
    first, last = int(used[0]), int(used[-1]) + 1
    return Histogram(tuple(map(int, counts[first:last])), float(edges[first]), float(edges[last]))


def shown_name(file: StrPath, folders: Sequence[Path]) -> str:
    """Return a photo's name below the folder that it was found in."""
    for folder in folders:
        if Path(file).is_relative_to(folder):
            return Path(file).relative_to(folder).as_posix() if Path(file) != folder else folder.name
    return Path(file).name


def copy_photos(numbers: Iterable[int], files: Sequence[StrPath], size: tuple[int, int], folder: Path) -> None:
    """Write photos as the network sees them, as `<number>.webp`; those that are there already stay."""
    for number in sorted(set(numbers)):
        path = folder / f"{number}.webp"
        if not path.exists():
            try:
                photo = load(files[number], size)
            except ImageError:  # gone since it was looked at: an empty square says so
                photo = np.full((*size, 3), 0.5, np.float32)
            write_webp(path, to_pillow(photo))


def write_webp(path: Path, picture: Image.Image, quality: int = QUALITY) -> None:
    write_atomically(path, partial(picture.save, format="WEBP", quality=quality, method=4))
