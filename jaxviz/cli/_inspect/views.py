"""Options, photos and files that commands of `jaxviz inspect` share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import jaxviz
from jaxviz._atomic import write_atomically
from jaxviz._errors import ImageError
from jaxviz._result_files import failures
from jaxviz.cli._common import options

Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder for pictures and arrays; existing files are replaced.")]
Kept = Annotated[Path, typer.Option(metavar="DIR", help="Folder for pictures and arrays; an unfinished run is continued.")]
Photos = Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Photos; they are cropped and resized to one size.")]
LayerName = Annotated[str, typer.Option(help="Layer, as in `jaxviz layers MODEL`, such as layer3.")]
Numbers = Annotated[str | None, typer.Option(metavar="UNITS", help="Unit numbers, such as 0-15,40; default: all.")]
Dark = Annotated[bool, typer.Option("--dark", help="Dark background.")]
Tile = Annotated[int | None, typer.Option(min=1, help="Size of a picture in pixels.")]


def read_units(text: str | None, option: str) -> list[int] | None:
    """Read `0-15,40`."""
    if text is None:
        return None
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part, re.ASCII)
        if not match or (match[2] is not None and int(match[2]) < int(match[1])):
            raise typer.BadParameter(f"expected numbers such as 0-15,40; got '{text}'.", param_hint=option)
        numbers += range(int(match[1]), int(match[2] or match[1]) + 1)
    return numbers


def read_position(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d{1,6})\s*,\s*(\d{1,6})\s*", text, re.ASCII)
    if not match:
        raise typer.BadParameter(f"expected a row and a column such as 3,5; got '{text}'.", param_hint="--position")
    return int(match[1]), int(match[2])


def load(model: str, weights: str | None, quiet: bool) -> jaxviz.Model:
    return jaxviz.load(model, weights=weights, progress=not quiet)


def read_photos(network: jaxviz.Model, paths: Sequence[Path], size: str | None) -> tuple[np.ndarray, list[str]]:
    """Return photos (N, H, W, C) and a unique name for each, from its file's name."""
    pixels = options.read_size(size) or network.input_size
    for path in paths:
        if path.is_dir():
            raise ImageError(f"'{path}' is a folder: give the photos themselves, such as {path}/*.jpg.")
    photos = np.stack([jaxviz.image.load(path, pixels) for path in paths])
    names: list[str] = []
    for path in paths:
        plain = re.sub(r"[^A-Za-z0-9._]+", "-", path.stem)[:80].strip("-._") or "image"
        again, name = 2, plain
        while name.lower() in (other.lower() for other in names):
            again, name = again + 1, f"{plain}_{again}"
        names.append(name)
    return photos if network.in_channels == 3 else photos.mean(-1, keepdims=True), names


def write(out: Path, pages: Mapping[str, np.ndarray], arrays: Mapping[str, Any], quiet: bool) -> None:
    """Write the pictures and, in `arrays.npz`, their numbers."""
    with failures(out):
        for name, page in pages.items():
            jaxviz.image.save(out / name, page)
        write_atomically(out / "arrays.npz", lambda file: np.savez(file, allow_pickle=False, **arrays))
    if not quiet:
        for name in pages:
            typer.echo(str(out / name))
