"""The files of a saved result: their names, what may be replaced, what JSON can hold."""

from __future__ import annotations

import json
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from jaxviz._atomic import write_atomically
from jaxviz._errors import SaveError

FORMAT = 2  # 1 had the images inside ARRAYS
ARRAYS, IMAGES, RECORD, SHEET = "result.npz", "images.npy", "result.json", "contact_sheet.png"
PICTURES = (1, 3, 4)  # channels that a PNG can show
RUN, PARTS = "run.json", "parts"  # of a run that is on its way, or was
ADVICE = "choose another, or have it replaced with overwrite=True (--overwrite on the command line)"


def split_label(label: str) -> tuple[str, str]:
    """Split `"layer3:7"` into its layer and its unit; a label without a colon is all unit."""
    head, colon, tail = label.partition(":")
    return (head, tail) if colon else ("", label)


def file_names(labels: Sequence[str], samples: int, used: set[str]) -> list[list[str]]:
    """Return a PNG name for every unit and sample: ASCII, unique also where upper and lower case are one.

    `used` holds the stems taken by earlier chunks; the new ones are added to it.
    """
    names = []
    for label in labels:
        layer, unit = split_label(label)
        unit = f"{int(unit):04d}" if re.fullmatch(r"\d{1,9}", unit, re.ASCII) else unit
        plain = unicodedata.normalize("NFKD", f"{layer}-{unit}").encode("ascii", "ignore").decode()
        stem = wanted = re.sub(r"[^A-Za-z0-9._]+", "-", plain)[:100].strip("-._") or "unit"
        again = 2
        while stem.lower() in used:
            stem, again = f"{wanted}_{again}", again + 1
        used.add(stem.lower())
        names.append([f"{stem}-{s}.png" for s in range(samples)])
    return names


def write_png(path: Path, picture: Image.Image) -> None:
    write_atomically(path, lambda file: picture.save(file, format="PNG"))


def write_images(file: IO[bytes], shape: Sequence[int], blocks: Iterable[np.ndarray]) -> None:
    """Write float32 blocks (k, S, H, W, C) one after the other as one `.npy` array, with no more than one in memory."""
    np.lib.format.write_array_header_2_0(file, {"descr": "<f4", "fortran_order": False, "shape": tuple(map(int, shape))})
    for block in blocks:
        file.write(np.ascontiguousarray(block, "<f4").data.cast("B") if block.size else b"")


def read_json(path: Path) -> Any:
    """Return what the file holds, or None where there is no such file or it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def old_files(folder: Path, records: Sequence[str] = (RECORD, RUN)) -> set[str]:
    """Return the pictures of an older result or run in the folder: those that its records list, plain names only."""
    found: set[str] = set()
    for record in (read_json(folder / name) for name in records):
        with suppress(TypeError, KeyError):
            listed = {name for unit in record["units"] for name in unit["files"]}
            found |= {SHEET} | {name for name in listed if name == Path(name).name and name.endswith(".png")}
    return found


def parts_of(folder: Path) -> dict[tuple[int, int, int], Path]:
    """Return the finished chunks of a run that is on its way, by (objective, first unit, unit after the last)."""
    matches = [(re.fullmatch(r"(\d+)-(\d+)-(\d+)\.npz", name), name) for name in names_in(folder / PARTS)]
    return {(int(m[1]), int(m[2]), int(m[3])): folder / PARTS / name for m, name in matches if m}


def names_in(folder: Path) -> set[str]:
    return {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()


def remove_run(folder: Path) -> None:
    """Remove the chunks of a run, and what writes that were killed left among them; the folder, if nothing else is in it."""
    for path in parts_of(folder).values():
        path.unlink(missing_ok=True)
    for name in names_in(folder / PARTS):
        if name == IMAGES or name.startswith("failed-") or re.fullmatch(r"\..+\.[a-z0-9_]{8}", name):
            (folder / PARTS / name).unlink(missing_ok=True)
    with suppress(OSError):
        (folder / PARTS).rmdir()


def refuse_existing(folder: Path, names: Sequence[str]) -> None:
    there = names_in(folder)
    taken = [name for name in names if name in there]
    if taken:
        what = "holds a result already" if ARRAYS in taken else f"has files of the same name already ('{taken[0]}')"
        what = "holds an unfinished run" if taken[0] == RUN else what
        raise SaveError(f"The folder '{folder}' {what}: {ADVICE}.")


@contextmanager
def failures(folder: Path, hint: str = "") -> Iterator[None]:
    """Turn the errors of the operating system into one that names the folder; `hint` says what to do."""
    try:
        yield
    except OSError as error:
        raise SaveError(f"Cannot save the result in '{folder}': {error.strerror or error}. {hint}".rstrip()) from error


def jsonable(value: Any) -> Any:
    """Return what strict JSON can hold: arrays as lists, NaN and infinities as None, unknown objects by their repr."""
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, np.generic | np.ndarray) or hasattr(value, "__array__"):
        return jsonable(np.asarray(value).tolist())
    return repr(value)
