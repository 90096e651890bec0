"""What a run gives back: images, scores, and how they were made; saved, loaded, shown."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxviz._atomic import reading, write_atomically
from jaxviz._errors import ArgumentError, SaveError, UnitError, near_matches
from jaxviz._file_names import picture_names, split_label
from jaxviz._result_files import (
    ARRAYS,
    FORMAT,
    IMAGES,
    PICTURES,
    RECORD,
    RUN,
    SHEET,
    failures,
    jsonable,
    old_files,
    refuse_existing,
    remove_run,
    versions,
    write_images,
    write_json,
    write_png,
)
from jaxviz._types import StrPath
from jaxviz.image import to_pillow
from jaxviz.plot import Section, contact_sheet, figure_html, jpeg

_NOTEBOOK = 60  # images that a notebook shows of a larger result


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """Images of K units, S samples each, with their scores and how they were made.

    Attributes:
        images: float32 (K, S, H, W, C) in [0, 1]; always five axes. Of a result on disk they are read when looked at.
        scores: float32 (K, S), the objective on the finished, untransformed image.
        history: float32 (K, S, steps), what was optimized, at every step.
        labels: K names, such as `"layer3:7"` or `"logit:golf ball"`.
        settings: How it was made; anything JSON can hold.
        diagnosis: (K, S) words: `"ok"`, `"no gradient"`, `"no rise"` or `"not finite"`.
        snapshots: float32 (K, S, T, H, W, C) in [0, 1], the images on the way; T is 0 where nobody asked for them.

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
    diagnosis: np.ndarray = None  # type: ignore[assignment]
    snapshots: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for name in ("images", "scores", "history"):  # jax arrays come to the host here, once
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float32))
        object.__setattr__(self, "labels", tuple(self.labels))
        if self.diagnosis is None:
            object.__setattr__(self, "diagnosis", np.full(self.scores.shape, "ok"))
        if self.snapshots is None:
            object.__setattr__(self, "snapshots", np.zeros((*self.images.shape[:2], 0, *self.images.shape[2:]), np.float32))
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
        # Neighbors are a view: images that are on disk stay there.
        near = bool(rows) and rows == list(range(rows[0], rows[0] + len(rows)))
        at = slice(rows[0], rows[0] + len(rows)) if near else rows
        arrays = {name: getattr(self, name)[at] for name in ARRAY_NAMES}
        return Result(**arrays, labels=labels, settings=self.settings)

    def __repr__(self) -> str:
        _, samples, height, width, channels = self.images.shape
        named = ", ".join(self.labels[:3]) + (", ..." if len(self) > 3 else "")
        return f"Result({len(self)} units x {samples} samples of {height}x{width}x{channels}: {named})"

    def contact_sheet(self, *, columns: int | None = None, tile: int | None = None, dark: bool = False) -> Image.Image:
        """Return all units on one page, by layer, with their names and scores (the mean over the samples).

        Args as in `jaxviz.plot.contact_sheet`. More than three channels cannot be shown as colors: ArgumentError.
        """
        if not len(self):
            raise ArgumentError("This result has no units to show.")
        rows: dict[str, list[int]] = {}
        for i, label in enumerate(self.labels):
            rows.setdefault(split_label(label)[0], []).append(i)
        sections = [
            Section(
                heading,
                _Rows(self.images, members),  # type: ignore[arg-type]
                [split_label(self.labels[i])[1] for i in members],
                [f"{self.scores[i].mean():.3g}" for i in members],
            )
            for heading, members in rows.items()
        ]
        return Image.fromarray(contact_sheet(sections, columns=columns, tile=tile, dark=dark))

    def save(self, folder: StrPath, *, overwrite: bool = False) -> Path:
        """Write a PNG per image, `contact_sheet.png`, `images.npy` and `result.npz` (exact arrays), `result.json` (for people).

        The PNGs are named from the labels, as `layer3-0007-0.png` for sample 0 of `layer3:7`, with characters that are
        safe on every file system; `result.json` says which is which. Each file appears in one step, the arrays last.
        Images that are neither gray nor RGB, with or without opacity, have no PNGs and no sheet.

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
        names = picture_names(self.labels, self.images.shape[1])
        pictures = names if self.images.shape[-1] in PICTURES else [[] for _ in names]
        with failures(folder):
            old = old_files(folder)
            if not overwrite:
                refuse_existing(folder, [ARRAYS, RUN, IMAGES, RECORD, SHEET, *(name for unit in pictures for name in unit)])
            folder.mkdir(parents=True, exist_ok=True)
            for unit, images in zip(pictures, self.images, strict=True):
                for name, image in zip(unit, images, strict=False):
                    write_png(folder / name, to_pillow(image))
            write_result(self, folder, pictures)
            for name in old - {SHEET if any(pictures) else "", *(name for unit in pictures for name in unit)}:
                (folder / name).unlink(missing_ok=True)
            (folder / RUN).unlink(missing_ok=True)
            remove_run(folder)
        return folder

    @classmethod
    def load(cls, folder: StrPath) -> Result:
        """Read back what `save` wrote; the same as `load_result`."""
        return load_result(folder)

    def _repr_jpeg_(self) -> bytes | None:
        shown = self._first()
        return jpeg(shown.contact_sheet()) if len(shown) and self.images.shape[-1] in PICTURES else None

    def _repr_html_(self) -> str:
        shown, lines = self._first(), [repr(self)]
        if len(shown) < len(self):
            lines.append(f"The first {len(shown)} of {len(self)} units are shown.")
        return figure_html(self._repr_jpeg_(), ", ".join(shown.labels), *lines)

    def _first(self) -> Result:
        """Return what a notebook shows: not more than some images, which are all that is read of a result on disk."""
        samples = min(self.images.shape[1], _NOTEBOOK)
        units = self[: max(1, _NOTEBOOK // max(samples, 1))]
        arrays = {name: getattr(units, name)[:, :samples] for name in ARRAY_NAMES}
        return Result(**arrays, labels=units.labels)


@dataclass(frozen=True)
class _Rows:
    """Some rows of an array that stays where it is, so that a sheet of thousands of units reads one at a time."""

    array: np.ndarray
    rows: Sequence[int]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.array.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> np.ndarray:
        return self.array[self.rows[i]]


def write_result(
    result: Result, folder: Path, files: Sequence[Sequence[str]], *, images: Path | None = None, run: str = ""
) -> None:
    """Write the sheet, the record and, in the end, the arrays: until then an older result is whole, from then on this one.

    Args:
        result: what to write; its pictures are there already.
        folder: must exist.
        files: the names of each unit's pictures.
        images: a file with the images that is moved here, instead of writing them.
        run: the digest of the run's settings, by which the folder is known as finished.
    """
    settings = jsonable(result.settings)
    record = {"format": FORMAT, "versions": versions(), "settings": settings, "shape": list(result.images.shape)}
    record["units"] = [
        {"label": label, "scores": jsonable(scores.tolist()), "diagnosis": words.tolist(), "files": list(names)}
        for label, scores, words, names in zip(result.labels, result.scores, result.diagnosis, files, strict=True)
    ]
    # The arrays' file says everything that load_result needs, so that the files of two runs never mix.
    about = json.dumps({"format": FORMAT, "labels": result.labels, "settings": settings, "run": run})
    with tempfile.TemporaryDirectory(prefix=f".{ARRAYS}.", dir=folder) as work:
        new = Path(work)
        if images is None:
            write_atomically(new / IMAGES, partial(write_images, shape=result.images.shape, blocks=result.images), durable=True)
        arrays = {name: getattr(result, name) for name in ARRAY_NAMES if name != "images"} | {"about": np.array(about)}
        write_atomically(new / ARRAYS, lambda file: np.savez(file, allow_pickle=False, **arrays), durable=True)
        if any(files):
            write_png(new / SHEET, result.contact_sheet())
        write_json(new / RECORD, record)
        # All that can fail is done. Never the arrays of one result beside the images of another:
        (folder / ARRAYS).unlink(missing_ok=True)
        (images or new / IMAGES).replace(folder / IMAGES)
        for name in ([SHEET] if any(files) else []) + [RECORD, ARRAYS]:
            (new / name).replace(folder / name)


def load_result(folder: StrPath) -> Result:
    """Read a `Result` that `Result.save` or `visualize(..., out=folder)` wrote: exact arrays, labels and settings.

    The images stay on disk and are read where they are looked at (a NumPy memory map, read-only).

    Raises:
        SaveError: The folder holds no result, an unfinished or a damaged one.
    """
    folder = Path(folder)
    path = folder / ARRAYS
    try:
        with reading(path, "result"):
            with np.load(path, allow_pickle=False) as arrays:
                about = json.loads(str(arrays["about"]))
                parts = {name: arrays[name] for name in ARRAY_NAMES if name in arrays}
            if "images" not in parts:
                parts["images"] = np.load(folder / IMAGES, mmap_mode="r", allow_pickle=False)
            return Result(**parts, labels=tuple(about["labels"]), settings=about["settings"])
    except FileNotFoundError as error:
        if (folder / RUN).is_file():
            raise SaveError(f"The run in '{folder}' is not finished: the same call again continues it.") from error
        raise SaveError(f"There is no result in '{folder}': '{error.filename or path}' is missing.") from error


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
    arrays = {name: np.concatenate([getattr(r, name) for r in results]) for name in ARRAY_NAMES}
    labels = tuple(label for r in results for label in r.labels)
    return Result(**arrays, labels=labels, settings=merge_settings([(len(r), r.settings) for r in results]))


def merge_settings(runs: Sequence[tuple[int, Mapping[str, Any]]]) -> dict[str, Any]:
    """Return the settings of some (number of units, settings) joined, as `concatenate` describes."""
    parts: list[dict[str, Any]] = []
    for units, settings in runs:
        shared = {k: v for k, v in settings.items() if k != "parts"}
        for part in settings.get("parts", [{"units": units}]):
            own = {**shared, **part}
            if parts and {**parts[-1], "units": 0} == {**own, "units": 0}:
                parts[-1]["units"] += own["units"]
            else:
                parts.append(own)
    missing = object()
    common = {k: v for k, v in parts[0].items() if k != "units" and all(p.get(k, missing) == v for p in parts)}
    rest = [{k: v for k, v in p.items() if k not in common} for p in parts]
    return common if len(parts) == 1 else {**common, "parts": rest}


ARRAY_NAMES = tuple(f.name for f in fields(Result) if f.name not in ("labels", "settings"))
