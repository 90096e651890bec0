"""What a run gives back: images, scores, and how they were made; saved, loaded, shown."""

from __future__ import annotations

import base64
import html
import io
import json
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxviz._errors import ArgumentError, SaveError, UnitError, near_matches
from jaxviz._files import write_atomically
from jaxviz._result_files import ARRAYS, RECORD, SHEET, file_names, jsonable, old_files, refuse_existing, split_label, write_png
from jaxviz._types import StrPath
from jaxviz.image import to_pillow
from jaxviz.plot import Section, contact_sheet

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
        diagnosis: (K, S) words: `"ok"`, `"no gradient"`, `"no rise"` or `"not finite"`.
        snapshots: float32 (K, S, T, H, W, C) in [0, 1], the images on the way, where `visualize` was asked for them.

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
    diagnosis: np.ndarray | None = None
    snapshots: np.ndarray | None = None

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
            rows = rows or [i for i, label in enumerate(self.labels) if split_label(label)[0] == key]
            if not rows:
                raise UnitError(f"This result has no unit '{key}'.{near_matches(key, self.labels)}")
        elif isinstance(key, slice):
            rows = list(range(len(self))[key])
        else:
            rows = [range(len(self))[int(i)] for i in np.atleast_1d(np.asarray(key))]
        labels = tuple(self.labels[i] for i in rows)
        arrays: dict[str, Any] = {name: None if a is None else a[rows] for name, a in self._arrays().items()}
        return Result(**arrays, labels=labels, settings=self.settings)

    def _arrays(self) -> dict[str, Any]:
        """Return all that has one entry per unit, by name."""
        return {name: getattr(self, name) for name in ("images", "scores", "history", "diagnosis", "snapshots")}

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
            rows.setdefault(split_label(label)[0], []).append(i)
        sections = [
            Section(
                heading,
                self.images[members],
                [split_label(self.labels[i])[1] for i in members],
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
        writer = ResultWriter(folder, overwrite=overwrite)
        writer.add(self)
        return writer.close()

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


class ResultWriter:
    """Save a result that arrives in chunks: `add` writes a chunk's PNGs at once, `close` the rest.

    So nothing finished is lost when a long run is interrupted. One chunk is `Result.save`, where files and errors are
    described; the folder is checked before anything is computed.

    >>> import tempfile
    >>> writer = ResultWriter(tempfile.mkdtemp())
    >>> writer.add(Result(np.zeros((1, 1, 8, 8, 3)), np.zeros((1, 1)), np.zeros((1, 1, 5)), ("layer1:0",)))
    >>> sorted(path.name for path in writer.close().iterdir())
    ['contact_sheet.png', 'layer1-0000-0.png', 'result.json', 'result.npz']
    """

    def __init__(self, folder: StrPath, *, overwrite: bool = False) -> None:
        self.folder = Path(folder)
        self._overwrite = overwrite
        self._chunks: list[Result] = []
        self._names: list[list[str]] = []
        self._stems: set[str] = set()
        with self._failures():
            self._old = old_files(self.folder)
            self._refuse([ARRAYS, RECORD, SHEET])
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass  # a folder that cannot be written is told now, not after an hour

    def add(self, result: Result) -> None:
        """Write the PNGs of some more units."""
        names = file_names(result.labels, result.images.shape[1], self._stems)
        with self._failures():
            if result.images.shape[-1] in (1, 3):
                self._refuse([name for unit in names for name in unit])
                for unit, images in zip(names, result.images, strict=True):
                    for name, image in zip(unit, images, strict=True):
                        write_png(self.folder / name, to_pillow(image))
            else:
                names = [[] for _ in names]
        self._names += names
        self._chunks.append(result)

    def close(self) -> Path:
        """Write the contact sheet, the arrays and the record of all units; return the folder."""
        result = concatenate(self._chunks)
        record = {"format": 1, "versions": versions(), "settings": jsonable(result.settings)}
        record["shape"] = list(result.images.shape)
        record["units"] = [
            {"label": label, "scores": jsonable(scores.tolist()), "files": files}
            for label, scores, files in zip(result.labels, result.scores, self._names, strict=True)
        ]
        # The arrays' file says everything that load_result needs, so that the files of two runs never mix.
        about = json.dumps({"format": 1, "labels": result.labels, "settings": record["settings"]})
        arrays = {"images": result.images, "scores": result.scores, "history": result.history, "about": np.array(about)}
        written = {name for unit in self._names for name in unit}
        with self._failures():
            if written:
                write_png(self.folder / SHEET, result.contact_sheet())
                written.add(SHEET)
            write_atomically(self.folder / RECORD, lambda file: file.write(json.dumps(record, indent=1).encode()))
            write_atomically(self.folder / ARRAYS, lambda file: np.savez(file, allow_pickle=False, **arrays))
            for name in self._old - written:
                (self.folder / name).unlink(missing_ok=True)
        return self.folder

    def _refuse(self, names: list[str]) -> None:
        if not self._overwrite:
            refuse_existing(self.folder, names)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SaveError(f"Cannot save the result in '{self.folder}': {error.strerror or error}") from error


def load_result(folder: StrPath) -> Result:
    """Read a `Result` that `Result.save` wrote in a folder: exact arrays, labels and settings.

    Raises:
        SaveError: The folder holds no result, or a damaged one.
    """
    path = Path(folder) / ARRAYS
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
    arrays: dict[str, Any] = {}
    for name in results[0]._arrays():
        parts = [getattr(r, name) for r in results]
        arrays[name] = None if any(part is None for part in parts) else np.concatenate(parts)
    labels = tuple(label for r in results for label in r.labels)
    return Result(**arrays, labels=labels, settings=_merge_settings(results))


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
