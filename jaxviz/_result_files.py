"""The files of a saved result: their names, what may be replaced, what JSON can hold."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from jaxviz._atomic import names_in, remove_matching, write_atomically
from jaxviz._errors import SaveError

FORMAT = 2  # 1 had the images inside ARRAYS
ARRAYS, IMAGES, RECORD, SHEET = "result.npz", "images.npy", "result.json", "contact_sheet.png"
PICTURES = (1, 3, 4)  # channels that a PNG can show
RUN, PARTS = "run.json", "parts"  # of an unfinished run
PART_FILES = r"\d+-\d+-\d+\.npz|images\.npy|failed-\d+"  # in PARTS
ADVICE = "choose another, or have it replaced with overwrite=True (--overwrite on the command line)"


def write_png(path: Path, picture: Image.Image) -> None:
    """Write a picture as PNG, in one step."""
    write_atomically(path, lambda file: picture.save(file, format="PNG"))


def write_images(file: IO[bytes], shape: Sequence[int], blocks: Iterable[np.ndarray]) -> None:
    """Write float32 blocks (k, S, H, W, C) one after the other as one `.npy` array, with no more than one in memory."""
    np.lib.format.write_array_header_2_0(file, {"descr": "<f4", "fortran_order": False, "shape": tuple(map(int, shape))})
    for block in blocks:
        file.write(np.ascontiguousarray(block, "<f4").data.cast("B") if block.size else b"")


def write_json(path: Path, record: Any, *, durable: bool = False) -> None:
    """Write a record for people and programs, in one step."""
    write_atomically(path, lambda file: file.write(json.dumps(record, indent=1).encode()), durable=durable)


def read_json(path: Path) -> Any:
    """Return what the file holds, or None where there is no such file or it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def old_files(folder: Path, records: Sequence[str] = (RECORD, RUN)) -> set[str]:
    """Return the pictures of an older result or run in the folder: those that its records list, plain names only."""
    pictures: set[str] = set()
    for record in (read_json(folder / name) for name in records):
        with suppress(TypeError, KeyError):
            listed = set(record["files"] if "files" in record else (name for unit in record["units"] for name in unit["files"]))
            pictures |= {SHEET} | {name for name in listed if name == Path(name).name and name.endswith(".png")}
    return pictures


def remove_run(folder: Path) -> None:
    """Remove the parts of an unfinished run; the folder `parts`, if nothing else is in it."""
    remove_matching(folder / PARTS, PART_FILES)


def refuse_existing(folder: Path, names: Sequence[str]) -> None:
    """Refuse a folder that holds any of the files.

    Raises:
        SaveError: it does; the message names the first.
    """
    present = names_in(folder)
    taken = [name for name in names if name in present]
    if taken:
        what = "holds a result already" if ARRAYS in taken else f"has files of the same name already ('{taken[0]}')"
        what = "holds an unfinished run" if taken[0] == RUN else what
        raise SaveError(f"The folder '{folder}' {what}: {ADVICE}.")


def save_error(folder: Path, error: OSError, hint: str = "") -> SaveError:
    """Return the error that names the folder and the reason of the operating system; `hint` says what to do."""
    return SaveError(f"Cannot save the result in '{folder}': {error.strerror or error}. {hint}".rstrip())


@contextmanager
def failures(folder: Path, hint: str = "") -> Generator[None, None, None]:
    """Turn the errors of the operating system into a `SaveError`, see `save_error`."""
    try:
        yield
    except OSError as error:
        raise save_error(folder, error, hint) from error


def jsonable(value: Any) -> Any:
    """Return what strict JSON can hold: arrays as lists, NaN and infinities as None, unknown objects by their repr."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, np.generic | np.ndarray) or hasattr(value, "__array__"):
        return jsonable(np.asarray(value).tolist())
    return repr(value)


def versions() -> dict[str, str]:
    """Return the versions of Python, jaxviz and what its numbers depend on, for the record of a run."""
    names = ("jaxviz", "jax", "jaxlib", "flax", "optax", "numpy")
    return {"python": platform.python_version(), **{name: version_of(name) for name in names}}


def version_of(package: str) -> str:
    """Return the version of an installed package, "unknown" where it is used without being installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"
