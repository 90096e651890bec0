"""An interactive map of pictures: an HTML file and the pictures, opened from disk without server or network."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from jaxviz._atomic import names_in, write_atomically
from jaxviz._errors import ArgumentError
from jaxviz._result_files import failures, refuse_existing
from jaxviz._types import ArrayLike, StrPath
from jaxviz.inspection._embeddings.embeddings import Embeddings
from jaxviz.inspection._embeddings.neighbor_search import neighbors
from jaxviz.inspection._embeddings.neighbors import Neighbors
from jaxviz.inspection._embeddings.thumbnails import pictures
from jaxviz.plot._scatter import label_colors

PAGE, SHEETS, PHOTOS = "index.html", "thumbnails", "photos"
TILE, ACROSS = 48, 40  # pixels of a thumbnail, and thumbnails per row of a sheet: browsers refuse huge sheets
PHOTO = 160  # pixels of an enlarged picture
UNITS = 10000  # integer coordinates along the longer side of the map
NEAR = 9
QUALITY = 85
GENERATOR = "jaxviz map of pictures"  # marks pages that may be replaced

_TEMPLATES = Path(__file__).parents[1] / "templates"
_UNFINISHED = f'''<!doctype html><meta charset="utf-8"><meta name="generator" content="{GENERATOR}">
<title>Unfinished</title><p>This page was not finished: the command that makes it has to run again.'''


def write_page(
    folder: StrPath,
    points: ArrayLike,
    embeddings: Embeddings,
    *,
    images: ArrayLike | None = None,
    near: Neighbors | None = None,
    classes: Sequence[str] = (),
    title: str = "",
    subtitle: str = "",
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write an interactive map of pictures: pan, zoom, select classes, and see each picture's nearest neighbors.

    It opens from disk without server or network: copy `index.html` with `thumbnails/` and `photos/` anywhere. File names are
    shown relative to their common folder.

    Args:
        folder: folder of the page; an older page is replaced.
        points: float (N, 2), such as from `tsne`.
        embeddings: N files and labels.
        images: the images (N, H, W, C), floats in [0, 1] or uint8, if they are not files.
        near: neighbors of all N images; the 9 nearest by cosine by default.
        classes: all classes in the order of the list and the colors; alphabetical by default.
        title, subtitle: above the map.
        overwrite: replace other files of these names.
        progress: called with the number of written pictures, and N.

    Returns:
        The path of `index.html`.

    Raises:
        ArgumentError: other numbers of points, images or neighbors than embeddings, or points that are not finite.
        SaveError: the folder cannot be written, or holds other files of these names.
    """
    count, array = len(embeddings), np.asarray(points, np.float64)
    if array.shape != (count, 2) or not count or not np.isfinite(array).all():
        raise ArgumentError(f"Expected finite points ({count}, 2), one for each image; got an array of shape {array.shape}.")
    if near is None and count > 1:
        near = neighbors(embeddings, k=min(NEAR, count - 1))
    if near is not None and len(near) != count:
        raise ArgumentError(f"Expected neighbors of all {count} images; got those of {len(near)}.")
    folder = Path(folder)
    with failures(folder):
        if not overwrite and not _is_page(folder / PAGE):
            refuse_existing(folder, [PAGE, SHEETS, PHOTOS])
        # Written first, so that an interrupted page may be replaced.
        write_atomically(folder / PAGE, lambda file: file.write(_UNFINISHED.encode()))
        sheets = _write_pictures(folder, embeddings, images, progress or (lambda done, total: None))
        data = _data(array, embeddings, near, classes, sheets)
        parts = {name: (_TEMPLATES / f"scatter.{name}").read_text(encoding="utf-8") for name in ("css", "js")}
        template = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
        ).get_template("scatter.html")
        text = template.render(
            generator=GENERATOR,
            title=_plain(title or f"{count} pictures"),
            subtitle=_plain(subtitle),
            data=data,
            style=parts["css"],
            script=parts["js"],
        )
        return write_atomically(folder / PAGE, lambda file: file.write(text.encode()))


def _data(
    points: np.ndarray, embeddings: Embeddings, near: Neighbors | None, classes: Sequence[str], sheets: Sequence[str]
) -> dict[str, Any]:
    low, high = points.min(0), points.max(0)
    extent = (high - low).max() or 1.0
    at = np.round((points - low) * [1, -1] / extent * UNITS + [0, UNITS * (high - low)[1] / extent]).astype(int)
    colors = label_colors(embeddings.labels, classes)
    order = {name: i for i, name in enumerate(colors)}
    return {
        "names": [_plain(name) for name in _short(embeddings.files)],
        "classes": [{"name": _plain(n), "color": "#{:02x}{:02x}{:02x}".format(*colors[n])} for n in colors],
        "class": [order.get(label, -1) for label in embeddings.labels],
        "x": at[:, 0].tolist(),
        "y": at[:, 1].tolist(),
        "width": max(1, int(at[:, 0].max())),
        "height": max(1, int(at[:, 1].max())),
        "near": near.indices.tolist() if near else [[]] * len(points),
        "far": [[round(float(v), 4) for v in row] for row in near.distances] if near else [[]] * len(points),
        "sheets": list(sheets),
        "tile": TILE,
        "across": ACROSS,
        "photo": PHOTO,
    }


def _is_page(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            return f'content="{GENERATOR}"' in file.read(2000)
    except (OSError, ValueError):
        return False


def _short(files: Sequence[str]) -> list[str]:
    """Return names relative to their common folder."""
    try:
        common = os.path.commonpath([str(Path(name).parent) for name in files])
        return [os.path.relpath(name, common) if common else name for name in files]
    except ValueError:  # absolute and relative names, or several drives
        return list(files)


def _plain(text: str) -> str:
    """Return text that UTF-8 can encode, unlike some file names."""
    return text.encode(errors="backslashreplace").decode()


def _write_pictures(
    folder: Path, embeddings: Embeddings, images: ArrayLike | None, progress: Callable[[int, int], None]
) -> list[str]:
    """Write all pictures and the sheets of thumbnails, remove those of an older page, and return the names of the sheets."""
    count, each = len(embeddings), ACROSS * ACROSS
    for name in names_in(folder / SHEETS) | names_in(folder / PHOTOS):
        match = re.fullmatch(r"(\d{5,})\.jpg", name)
        if match:
            (folder / PHOTOS / name).unlink(missing_ok=True)
        elif re.fullmatch(r"sheet-\d+\.jpg", name):
            (folder / SHEETS / name).unlink(missing_ok=True)
    sheets: list[str] = []
    sheet = Image.new("RGB", (0, 0))
    for i, picture in enumerate(pictures(embeddings, range(count), PHOTO, images)):
        if i % each == 0:
            rest = min(each, count - i)
            sheet = Image.new("RGB", (min(rest, ACROSS) * TILE, -(-rest // ACROSS) * TILE))
        shown = Image.fromarray(picture)
        _write_jpeg(folder / PHOTOS / f"{i:05d}.jpg", shown)
        small = shown.resize((TILE, TILE), Image.Resampling.LANCZOS)
        sheet.paste(small, (i % each % ACROSS * TILE, i % each // ACROSS * TILE))
        if (i + 1) % each == 0 or i + 1 == count:
            name = f"{SHEETS}/sheet-{len(sheets)}.jpg"
            _write_jpeg(folder / name, sheet)
            sheets.append(name)
        progress(i + 1, count)
    return sheets


def _write_jpeg(path: Path, picture: Image.Image) -> None:
    write_atomically(path, lambda file: picture.save(file, format="JPEG", quality=QUALITY))
