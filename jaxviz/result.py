"""The result of a run: images, scores, and how they were made; saved, loaded, shown."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

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


class Arrays(NamedTuple):
    """The arrays of K units, S samples each: of a chunk, of a part on disk, of a `Result`, which describes them."""

    images: np.ndarray  # (K, S, H, W, C)
    scores: np.ndarray  # (K, S)
    history: np.ndarray  # (K, S, steps)
    diagnosis: np.ndarray  # (K, S) of str
    snapshots: np.ndarray  # (K, S, T, H, W, C)

    def rows(self, key: Any) -> Arrays:
        """Return the arrays of some units."""
        return Arrays(*(array[key] for array in self))


def join_arrays(parts: Sequence[Arrays]) -> Arrays:
    """Return the arrays of several groups of units as one."""
    return Arrays(*map(np.concatenate, zip(*parts, strict=True)))


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """Images of K units, S samples each, with their scores and how they were made.

    Attributes:
        images: float32 (K, S, H, W, C) in [0, 1]; always five axes. A result on disk reads them when they are used.
        scores: float32 (K, S), the objective on the finished, untransformed image.
        history: float32 (K, S, steps), the optimized value at every step.
        labels: K names, such as `"layer3:7"` or `"logit:golf ball"`.
        settings: how it was made; anything JSON can hold.
        diagnosis: (K, S) of `"ok"`, `"no gradient"`, `"no rise"` or `"not finite"`.
        snapshots: float32 (K, S, T, H, W, C) in [0, 1], the images on the way; T is 0 unless they were asked for.

    Raises:
        ArgumentError: arrays or labels whose shapes do not agree.

    >>> result = jv.Result(np.zeros((2, 1, 8, 8, 3)), np.zeros((2, 1)), np.zeros((2, 1, 5)), ("layer1:0", "layer1:1"))
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
        for name in ("images", "scores", "history"):  # JAX arrays move to the host here, once
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float32))
        object.__setattr__(self, "labels", tuple(self.labels))
        if cast("np.ndarray | None", self.diagnosis) is None:
            object.__setattr__(self, "diagnosis", np.full(self.scores.shape, "ok"))
        if cast("np.ndarray | None", self.snapshots) is None:
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
        """Return some units, as a `Result` with the same five axes.

        Args:
            key: a label (`"layer3:7"`), the part of labels before the colon (`"layer3"`), a position, a slice or a sequence of
                positions.

        Raises:
            UnitError: a name that no label has.
            IndexError: a position outside the result.
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
        # Neighbors are a view: images on disk stay there.
        are_neighbors = bool(rows) and rows == list(range(rows[0], rows[0] + len(rows)))
        arrays = arrays_of(self).rows(slice(rows[0], rows[0] + len(rows)) if are_neighbors else rows)
        return make_result(arrays, labels, self.settings)

    def __repr__(self) -> str:
        _, samples, height, width, channels = self.images.shape
        named = ", ".join(self.labels[:3]) + (", ..." if len(self) > 3 else "")
        return f"Result({len(self)} units x {samples} samples of {height}x{width}x{channels}: {named})"

    def contact_sheet(self, *, columns: int | None = None, tile: int | None = None, dark: bool = False) -> Image.Image:
        """Return all units on one page, by layer, with their names and scores (the mean over the samples).

        Args as in `jaxviz.plot.contact_sheet`.

        Raises:
            ArgumentError: no units, or images that are neither gray nor RGB, with or without opacity.
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

        PNGs are named after the labels, such as `layer3-0007-0.png` for sample 0 of `layer3:7`, with characters that are safe
        on every file system; `result.json` lists them. Each file appears in one step, the arrays last. Images that are neither
        gray nor RGB, with or without opacity, have no PNGs and no sheet.

        Args:
            folder: created if it is missing.
            overwrite: replace existing files, and remove the PNGs of an older result in the folder.

        Returns:
            The folder.

        Raises:
            SaveError: the folder cannot be written, or a file exists and `overwrite` is False.
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
        """Read a saved result; the same as `load_result`."""
        return load_result(folder)

    def _repr_jpeg_(self) -> bytes | None:
        first = self._first()
        return jpeg(first.contact_sheet()) if len(first) and self.images.shape[-1] in PICTURES else None

    def _repr_html_(self) -> str:
        first, lines = self._first(), [repr(self)]
        if len(first) < len(self):
            lines.append(f"The first {len(first)} of {len(self)} units are shown.")
        return figure_html(self._repr_jpeg_(), ", ".join(first.labels), *lines)

    def _first(self) -> Result:
        """Return the units and samples that a notebook shows; of a result on disk, only these are read."""
        samples = min(self.images.shape[1], _NOTEBOOK)
        units = self[: max(1, _NOTEBOOK // max(samples, 1))]
        return make_result(arrays_of(units).rows((slice(None), slice(samples))), units.labels, {})


def arrays_of(result: Result) -> Arrays:
    """Return the arrays of a result."""
    return Arrays(result.images, result.scores, result.history, result.diagnosis, result.snapshots)


def make_result(arrays: Arrays, labels: Sequence[str], settings: Mapping[str, Any]) -> Result:
    """Return the result that holds these arrays."""
    return Result(**arrays._asdict(), labels=tuple(labels), settings=settings)


@dataclass(frozen=True)
class _Rows:
    """Some rows of an array on disk, so that a sheet of thousands of units reads one at a time."""

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
    """Write the sheet, the record and, last, the arrays: before that step an older result is whole, after it this one.

    Args:
        result: its pictures are on disk already.
        folder: must exist.
        files: the names of each unit's pictures.
        images: a file with the images, which is moved here instead of writing them.
        run: the digest of the run's settings, which marks the folder as finished.
    """
    settings = jsonable(result.settings)
    record = {"format": FORMAT, "versions": versions(), "settings": settings, "shape": list(result.images.shape)}
    record["units"] = [
        {"label": label, "scores": jsonable(scores.tolist()), "diagnosis": words.tolist(), "files": list(names)}
        for label, scores, words, names in zip(result.labels, result.scores, result.diagnosis, files, strict=True)
    ]
    # The file of the arrays has everything that load_result needs, so the files of two runs never mix.
    about = json.dumps({"format": FORMAT, "labels": result.labels, "settings": settings, "run": run})
    with tempfile.TemporaryDirectory(prefix=f".{ARRAYS}.", dir=folder) as work:
        new = Path(work)
        if images is None:
            write_atomically(new / IMAGES, partial(write_images, shape=result.images.shape, blocks=result.images), durable=True)
        arrays = arrays_of(result)._asdict() | {"about": np.array(about)}
        del arrays["images"]
        write_atomically(new / ARRAYS, lambda file: np.savez(file, allow_pickle=False, **arrays), durable=True)
        if any(files):
            write_png(new / SHEET, result.contact_sheet())
        write_json(new / RECORD, record)
        # Nothing below fails easily. Never leave the arrays of one result beside the images of another:
        (folder / ARRAYS).unlink(missing_ok=True)
        (images or new / IMAGES).replace(folder / IMAGES)
        for name in ([SHEET] if any(files) else []) + [RECORD, ARRAYS]:
            (new / name).replace(folder / name)


def load_result(folder: StrPath) -> Result:
    """Read a `Result` that `Result.save` or `visualize(..., out=folder)` wrote: exact arrays, labels and settings.

    The images stay on disk and are read when they are used (a NumPy memory map, read-only).

    Raises:
        SaveError: the folder holds no result, or an unfinished or damaged one.

    >>> folder = jv.visualize(model, "layer3:7", steps=1, size=32).save("out", overwrite=True)
    >>> jv.load_result(folder).labels
    ('layer3:7',)
    """
    folder = Path(folder)
    path = folder / ARRAYS
    try:
        with reading(path, "result"):
            with np.load(path, allow_pickle=False) as arrays:
                about = json.loads(str(arrays["about"]))
                loaded = {name: arrays[name] for name in Arrays._fields if name in arrays}
            if "images" not in loaded:
                loaded["images"] = np.load(folder / IMAGES, mmap_mode="r", allow_pickle=False)
            return Result(**loaded, labels=tuple(about["labels"]), settings=about["settings"])
    except FileNotFoundError as error:
        if (folder / RUN).is_file():
            raise SaveError(f"The run in '{folder}' is not finished: the same call again continues it.") from error
        raise SaveError(f"There is no result in '{folder}': '{error.filename or path}' is missing.") from error


def concatenate(results: Sequence[Result]) -> Result:
    """Join results along their units: chunks of one run, or several layers.

    Shared settings stay. Settings that differ go to `settings["parts"]`, a list with one entry for each run of units that
    share them: `{"units": 32, "objective": "layer3:0-31"}`.

    Raises:
        ArgumentError: no results, or different image sizes, samples or numbers of steps.
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
    labels = [label for result in results for label in result.labels]
    settings = merge_settings([(len(result), result.settings) for result in results])
    return make_result(join_arrays([arrays_of(result) for result in results]), labels, settings)


def merge_settings(runs: Sequence[tuple[int, Mapping[str, Any]]]) -> dict[str, Any]:
    """Join settings, each with its number of units, as `concatenate` describes."""
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
