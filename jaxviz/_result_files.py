"""The files of a saved result: their names, what may be replaced, what JSON can hold."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxviz._errors import SaveError
from jaxviz._files import write_atomically

ARRAYS, RECORD, SHEET = "result.npz", "result.json", "contact_sheet.png"


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


def old_files(folder: Path) -> set[str]:
    """Return the pictures of an older result in the folder: those that its record lists, plain names only."""
    try:
        record = json.loads((folder / RECORD).read_text())
        listed = {name for unit in record["units"] for name in unit["files"]}
        return {SHEET} | {name for name in listed if name == Path(name).name and name.endswith(".png")}
    except (OSError, ValueError, TypeError, KeyError):
        return set()


def refuse_existing(folder: Path, names: Sequence[str]) -> None:
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    taken = [name for name in names if name in there]
    if taken:
        what = "holds a result already" if ARRAYS in taken else f"has files of the same name already ('{taken[0]}')"
        advice = "choose another, or have it replaced with overwrite=True (--overwrite on the command line)"
        raise SaveError(f"The folder '{folder}' {what}: {advice}.")


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
