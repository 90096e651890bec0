"""Attributions in a folder: exact arrays, a record for people, a picture of each map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxviz._atomic import reading, write_atomically
from jaxviz._errors import SaveError
from jaxviz._file_names import picture_names
from jaxviz._result_files import SHEET, failures, jsonable, old_files, refuse_existing, versions, write_json, write_png
from jaxviz._types import ArrayLike, StrPath
from jaxviz.attribution import _pictures as pictures
from jaxviz.attribution._types import AttributionLike

FORMAT = 1
ARRAYS, RECORD = "attribution.npz", "attribution.json"
_NAMES = ("maps", "scores", "targets", "classes", "delta", "diagnosis")
_EXTRA = "extra."  # before the names of the method's own arrays


def write(attribution: AttributionLike, folder: Path, images: ArrayLike | None, look: pictures.Look, overwrite: bool) -> None:
    """Write the pictures, the sheet, the record and, in the end, the arrays: each file in one step."""
    many = attribution.scores.shape[1] if attribution.many else 1
    names = picture_names([f"{attribution.method}:{i}" for i in range(len(attribution))], many)
    record = {
        "format": FORMAT,
        "versions": versions(),
        "method": attribution.method,
        "layer": attribution.layer,
        "settings": jsonable(attribution.settings),
        "shape": list(attribution.maps.shape),
        "units": [{"files": files, **describe(each)} for files, each in zip(names, attribution, strict=True)],
    }
    about = {name: record[name] for name in ("format", "method", "layer", "settings")} | {"spatial": attribution.spatial}
    arrays = {name: value for name in _NAMES if (value := getattr(attribution, name)) is not None}
    arrays |= {f"{_EXTRA}{name}": np.asarray(value) for name, value in attribution.extra.items()}
    with failures(folder):
        old = old_files(folder, (RECORD,))
        if not overwrite:
            refuse_existing(folder, [ARRAYS, RECORD, SHEET, *(name for files in names for name in files)])
        drawn = pictures.draw(attribution, images, **look)
        sheet = pictures.sheet(attribution, images, look)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ARRAYS).unlink(missing_ok=True)  # never the arrays of one attribution beside the pictures of another
        for files, row in zip(names, drawn if attribution.many else drawn[:, None], strict=True):
            for name, picture in zip(files, row, strict=True):
                write_png(folder / name, Image.fromarray(picture))
        write_png(folder / SHEET, Image.fromarray(sheet))
        write_json(folder / RECORD, record)
        words = np.array(json.dumps(about))
        write_atomically(folder / ARRAYS, lambda file: np.savez(file, allow_pickle=False, about=words, **arrays), durable=True)
        for name in old - {SHEET, *(name for files in names for name in files)}:
            (folder / name).unlink(missing_ok=True)


def describe(attribution: AttributionLike) -> dict[str, Any]:
    """Return the targets, scores and diagnosis of one image's attribution, as JSON can hold them."""
    values = {
        name: np.asarray(value)[0].tolist()
        for name in ("targets", "classes", "scores", "delta", "diagnosis")
        if (value := getattr(attribution, name)) is not None
    }
    return jsonable(values)


def read(folder: StrPath) -> dict[str, Any]:
    """Return the fields of the attribution that `write` wrote.

    Raises:
        SaveError: the folder holds none, or a damaged one.
    """
    path = Path(folder) / ARRAYS
    try:
        with reading(path, "attribution"):
            with np.load(path, allow_pickle=False) as arrays:
                about = json.loads(str(arrays["about"]))
                fields: dict[str, Any] = {name: arrays[name] for name in _NAMES if name in arrays}
                extra = {name.removeprefix(_EXTRA): arrays[name] for name in arrays if name.startswith(_EXTRA)}
            fields.setdefault("classes", None)
            return {**fields, **{name: about[name] for name in ("method", "layer", "settings", "spatial")}, "extra": extra}
    except FileNotFoundError as error:
        raise SaveError(f"There is no attribution in '{folder}': '{path}' is missing.") from error
