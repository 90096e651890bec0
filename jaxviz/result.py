"""What a run gives back: images, scores, and how they were made; saved, loaded, shown."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import platform
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from jaxviz._errors import ArgumentError, SaveError, UnitError, near_matches
from jaxviz._files import write_atomically
from jaxviz._types import StrPath
from jaxviz.image import to_pillow
from jaxviz.plot import Section, contact_sheet

_ARRAYS, _RECORD, _SHEET = "result.npz", "result.json", "contact_sheet.png"
_NOTEBOOK = 60  # units that a notebook shows of a larger result


def versions() -> dict[str, str]:
    """Return the versions of Python, jaxviz and what its numbers depend on, for the record of a run."""
    names = ("jaxviz", "jax", "jaxlib", "flax", "optax", "numpy")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # jaxviz itself, used from a folder without being installed
            found[name] = "unknown"
    return found


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """Images of K units, S samples each, with their scores and how they were made.

    Attributes:
        images: float32 (K, S, H, W, C) in [0, 1]; always five axes.
        scores: float32 (K, S), the objective on the finished, untransformed image.
        history: float32 (K, S, steps), what was optimised, at every step.
        labels: K names, such as `"layer3:7"` or `"logit:golf ball"`.
        settings: How it was made; anything JSON can hold.

    Raises:
        ArgumentError: Arrays or labels whose shapes do not agree.

    >>> result = Result(np.zeros((2, 1, 8, 8, 3)), np.zeros((2, 1)), np.zeros((2, 1, 5)), ("layer1:0", "layer1:1"))
    >>> len(result), result["layer1:1"].images.shape
    (2, (1, 1, 8, 8, 3))
    """

    images: np.ndarray
    scores: np.ndarray
    history: np.ndarray
    labels: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("images", "scores", "history"):  # jax arrays come to the host here, once
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float32))
        object.__setattr__(self, "labels", tuple(self.labels))
        lead = self.images.shape[:2]
        agree = self.images.ndim == 5 and self.scores.shape == lead and self.history.ndim == 3
        if not agree or self.history.shape[:2] != lead or len(self.labels) != lead[0]:
            raise ArgumentError(
                "Expected images (K, S, H, W, C), scores (K, S), history (K, S, steps) and K labels, got "
                f"{self.images.shape}, {self.scores.shape}, {self.history.shape} and {len(self.labels)} labels."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Result]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: str | int | slice | Sequence[int]) -> Result:
        """Return the units that `key` names, as a `Result` with the same five axes.

        A label (`"layer3:7"`), what stands before the colon of some labels (`"layer3"`), a position, a slice or a
        sequence of positions.

        Raises:
            UnitError: A name that no label has.
            IndexError: A position outside the result.
        """
        if isinstance(key, str):
            rows = [i for i, label in enumerate(self.labels) if label == key]
            rows = rows or [i for i, label in enumerate(self.labels) if _split(label)[0] == key]
            if not rows:
                raise UnitError(f"This result has no unit '{key}'.{near_matches(key, self.labels)}")
        elif isinstance(key, slice):
            rows = list(range(len(self))[key])
        else:
            rows = [range(len(self))[int(i)] for i in np.atleast_1d(np.asarray(key))]
        labels = tuple(self.labels[i] for i in rows)
        return Result(self.images[rows], self.scores[rows], self.history[rows], labels, self.settings)

    def __repr__(self) -> str:
        _, samples, height, width, channels = self.images.shape
        named = ", ".join(self.labels[:3]) + (", ..." if len(self) > 3 else "")
        return f"Result({len(self)} units x {samples} samples of {height}x{width}x{channels}: {named})"

    def contact_sheet(self, *, columns: int | None = None, tile: int | None = None, dark: bool = False) -> Image.Image:
        """Return all units on one page, by layer, with their names and scores (the mean over the samples).

        Args as in `jaxviz.plot.contact_sheet`. More than three channels cannot be shown as colours: ArgumentError.
        """
        if not len(self):
            raise ArgumentError("This result has no units to show.")
        rows: dict[str, list[int]] = {}
        for i, label in enumerate(self.labels):
            rows.setdefault(_split(label)[0], []).append(i)
        sections = [
            Section(
                heading,
                self.images[members],
                [_split(self.labels[i])[1] for i in members],
                [f"{self.scores[i].mean():.3g}" for i in members],
            )
            for heading, members in rows.items()
        ]
        return Image.fromarray(contact_sheet(sections, columns=columns, tile=tile, dark=dark))

    def save(self, folder: StrPath, *, overwrite: bool = False) -> Path:
        """Write a PNG per image, `contact_sheet.png`, `result.npz` (the exact arrays) and `result.json` (for people).

        The PNGs are named from the labels, as `layer3-0007-0.png` for sample 0 of `layer3:7`, with characters that are
        safe on every file system; `result.json` says which is which. Each file appears in one step, the arrays last.
        Images that are neither grey nor RGB have no PNGs and no sheet.

        Args:
            folder: Made where it is missing.
            overwrite: Allow replacing files that are there. PNGs of an older result in the folder are then removed, so
                that none is left that belongs to nothing.

        Returns:
            The folder.

        Raises:
            SaveError: The folder cannot be written, or a file is in the way and `overwrite` is False.
        """
        folder = Path(folder)
        names = _file_names(self.labels, self.images.shape[1])
        if self.images.shape[-1] not in (1, 3):
            names = [[] for _ in self.labels]
        flat = [name for unit in names for name in unit]
        sheet = [_SHEET] if flat else []
        try:
            old = _old_files(folder)
            if not overwrite:
                _refuse_existing(folder, [*flat, *sheet, _RECORD, _ARRAYS])
            pictures = self.images.reshape(-1, *self.images.shape[2:])
            for name, image in zip(flat, pictures if flat else (), strict=True):
                _write_png(folder / name, to_pillow(image))
            if sheet:
                _write_png(folder / _SHEET, self.contact_sheet())
            record = json.dumps(self._record(names), indent=1).encode()
            write_atomically(folder / _RECORD, lambda file: file.write(record))
            about = json.dumps({"format": 1, "labels": self.labels, "settings": _jsonable(self.settings)})
            # The arrays' file says everything that load_result needs, so that files of two runs never mix.
            write_atomically(folder / _ARRAYS, lambda file: self._write_arrays(file, about))
            for name in old - {*flat, *sheet}:
                (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise SaveError(f"Cannot save the result in '{folder}': {error.strerror or error}") from error
        return folder

    def _write_arrays(self, file: IO[bytes], about: str) -> None:
        np.savez(file, images=self.images, scores=self.scores, history=self.history, about=np.array(about))

    def _record(self, names: list[list[str]]) -> dict[str, Any]:
        units = [
            {"label": label, "scores": _jsonable(scores.tolist()), "files": files}
            for label, scores, files in zip(self.labels, self.scores, names, strict=True)
        ]
        shape = list(self.images.shape)
        return {"format": 1, "versions": versions(), "settings": _jsonable(self.settings), "shape": shape, "units": units}

    @classmethod
    def load(cls, folder: StrPath) -> Result:
        """Read back what `save` wrote; the same as `load_result`."""
        return load_result(folder)

    def _repr_png_(self) -> bytes | None:
        if not len(self) or self.images.shape[-1] not in (1, 3):
            return None
        buffer = io.BytesIO()
        self[:_NOTEBOOK].contact_sheet().save(buffer, "PNG")
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        png, text = self._repr_png_(), html.escape(repr(self))
        if len(self) > _NOTEBOOK:
            text += f"<br>The first {_NOTEBOOK} of {len(self)} units are shown."
        if png is None:
            return f"<p>{text}</p>"
        names = html.escape(", ".join(self.labels[:_NOTEBOOK]), quote=True)
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        style = "max-width:100%;height:auto"
        return f'<figure><img src="{source}" alt="{names}" style="{style}"><figcaption>{text}</figcaption></figure>'


def load_result(folder: StrPath) -> Result:
    """Read a `Result` that `Result.save` wrote in a folder: exact arrays, labels and settings.

    Raises:
        SaveError: The folder holds no result, or a damaged one.
    """
    path = Path(folder) / _ARRAYS
    try:
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            parts = [arrays[name] for name in ("images", "scores", "history")]
        return Result(*parts, labels=tuple(about["labels"]), settings=about["settings"])
    except FileNotFoundError as error:
        raise SaveError(f"There is no result in '{folder}': '{path}' is missing.") from error
    except Exception as error:  # a damaged zip raises many types, from BadZipFile to struct.error
        raise SaveError(f"Cannot read the result '{path}': {str(error) or type(error).__name__}") from error


def concatenate(results: Sequence[Result]) -> Result:
    """Join results along their units: chunks of one run, or several layers.

    Settings that all share stay; those that differ go to `settings["parts"]`, a list with one entry per run of units
    that share them: `{"units": 32, "objective": "layer3:0-31"}`.

    Raises:
        ArgumentError: No results, or different image sizes, samples or numbers of steps.
    """
    results = list(results)
    if not results:
        raise ArgumentError("Expected at least one result to join, got none.")
    shapes = {(r.images.shape[1:], r.history.shape[1:]) for r in results}
    if len(shapes) > 1:
        listed = ", ".join(str(r.images.shape) for r in results[:8])
        raise ArgumentError(f"Expected one image size, number of samples and steps in all results, got {listed}.")
    if len(results) == 1:
        return results[0]
    arrays = [np.concatenate([getattr(r, name) for r in results]) for name in ("images", "scores", "history")]
    labels = tuple(label for r in results for label in r.labels)
    return Result(*arrays, labels=labels, settings=_merge_settings(results))


def _merge_settings(results: Sequence[Result]) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    for result in results:
        shared = {k: v for k, v in result.settings.items() if k != "parts"}
        for part in result.settings.get("parts", [{"units": len(result)}]):
            own = {**shared, **part}
            if parts and {**parts[-1], "units": 0} == {**own, "units": 0}:
                parts[-1]["units"] += own["units"]
            else:
                parts.append(own)
    missing = object()
    common = {k: v for k, v in parts[0].items() if k != "units" and all(p.get(k, missing) == v for p in parts)}
    rest = [{k: v for k, v in p.items() if k not in common} for p in parts]
    return common if len(parts) == 1 else {**common, "parts": rest}


def _split(label: str) -> tuple[str, str]:
    """Split `"layer3:7"` into its layer and its unit; a label without a colon is all unit."""
    head, colon, tail = label.partition(":")
    return (head, tail) if colon else ("", label)


def _file_names(labels: Sequence[str], samples: int) -> list[list[str]]:
    """Return a PNG name for every unit and sample: ASCII, unique also where upper and lower case are one."""
    used: set[str] = set()
    names = []
    for label in labels:
        layer, unit = _split(label)
        unit = f"{int(unit):04d}" if re.fullmatch(r"\d{1,9}", unit, re.ASCII) else unit
        plain = unicodedata.normalize("NFKD", f"{layer}-{unit}").encode("ascii", "ignore").decode()
        stem = wanted = re.sub(r"[^A-Za-z0-9._]+", "-", plain)[:100].strip("-._") or "unit"
        again = 2
        while stem.lower() in used:
            stem, again = f"{wanted}_{again}", again + 1
        used.add(stem.lower())
        names.append([f"{stem}-{s}.png" for s in range(samples)])
    return names


def _write_png(path: Path, picture: Image.Image) -> None:
    write_atomically(path, lambda file: picture.save(file, format="PNG"))


def _old_files(folder: Path) -> set[str]:
    """Return the pictures that an older result in the folder lists, plain names only."""
    try:
        record = json.loads((folder / _RECORD).read_text())
        listed = {name for unit in record["units"] for name in unit["files"]}
        return {name for name in listed if name == Path(name).name and name.endswith(".png")}
    except (OSError, ValueError, TypeError, KeyError):
        return set()


def _refuse_existing(folder: Path, names: Sequence[str]) -> None:
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    taken = [name for name in names if name in there]
    if taken:
        what = "holds a result already" if _ARRAYS in taken else f"has files of the same name already ('{taken[0]}')"
        raise SaveError(f"The folder '{folder}' {what}: choose another, or allow replacing it with overwrite=True.")


def _jsonable(value: Any) -> Any:
    """Return what strict JSON can hold: arrays as lists, NaN and infinities as None, unknown objects by their repr."""
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_jsonable(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, np.generic | np.ndarray) or hasattr(value, "__array__"):
        return _jsonable(np.asarray(value).tolist())
    return repr(value)
