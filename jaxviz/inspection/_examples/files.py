"""Files of top examples: `examples.npz`, the arrays and settings of all layers, and `examples.json`, for people.

The arrays are written atomically, so a reader never sees half a file. They hold all that a run needs to continue: the state
of the run and, in the end, its result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeAlias

import numpy as np

from jaxviz._atomic import reading, write_atomically
from jaxviz._image_files import Skipped
from jaxviz._result_files import failures, jsonable, versions
from jaxviz._run_folder import HINT, RunKind
from jaxviz.models import ReceptiveField

Score: TypeAlias = Literal["max", "mean"]

FORMAT = 1
ARRAYS, RECORD = "examples.npz", "examples.json"
KIND = RunKind("top_examples", FORMAT)
_NAMES = ("scores", "indices", "positions", "counts", "low", "high")
_ABOUT = ("layer", "shape", "image_size", "receptive_field", "score")


@dataclass(frozen=True, eq=False, repr=False)
class LayerExamples:
    """Arrays and properties of one layer; `TopExamples` describes them."""

    layer: str
    scores: np.ndarray
    indices: np.ndarray
    positions: np.ndarray
    counts: np.ndarray
    low: np.ndarray
    high: np.ndarray
    shape: tuple[int, ...]
    image_size: tuple[int, int]
    receptive_field: ReceptiveField | None
    score: Score

    def with_columns(self, k: int) -> Self:
        """Return the examples with k images per unit: the first k, or padded with empty ones."""
        missing = max(0, k - self.scores.shape[1])
        if not missing:
            return replace(self, **{name: getattr(self, name)[:, :k] for name in ("scores", "indices", "positions")})
        pad = ((0, 0), (0, missing))
        return replace(
            self,
            scores=np.pad(self.scores, pad, constant_values=-np.inf),
            indices=np.pad(self.indices, pad, constant_values=-1),
            positions=np.pad(self.positions, (*pad, (0, 0))),
        )


class ReadFile(NamedTuple):
    """A file that a run has read.

    Attributes:
        path: absolute.
        stamp: size and time, to notice changes; empty for a missing file, None for a folder that could not be listed.
        reason: why the file was skipped, or None for an image.
    """

    path: str
    stamp: list[int] | None
    reason: str | None = None


@dataclass(frozen=True)
class SavedExamples:
    """The content of a folder.

    Attributes:
        layers: examples by layer.
        identity: settings of the run, as JSON.
        read_files: files in order; empty for an array.
        image_count: number of images that the examples cover.
        is_finished: whether these are all images.
    """

    layers: Mapping[str, LayerExamples]
    identity: Any
    read_files: Sequence[ReadFile]
    image_count: int
    is_finished: bool

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of the images."""
        return tuple(file.path for file in self.read_files if file.reason is None)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Files that could not be read."""
        return tuple(Skipped(Path(file.path), file.reason) for file in self.read_files if file.reason is not None)


def write(folder: Path, saved: SavedExamples) -> None:
    """Write the arrays; for a finished run, first the record for people."""
    about = {
        "format": FORMAT,
        "kind": KIND.name,
        "versions": versions(),
        "identity": saved.identity,
        "finished": saved.is_finished,
        "seen": saved.image_count,
        "taken": [list(file) for file in saved.read_files],
        "layers": [{name: jsonable(getattr(layer, name)) for name in _ABOUT} for layer in saved.layers.values()],
    }
    arrays = {f"{i}.{name}": getattr(layer, name) for i, layer in enumerate(saved.layers.values()) for name in _NAMES}
    words = np.array(json.dumps(about))
    with failures(folder, HINT):
        if saved.is_finished:
            write_atomically(folder / RECORD, lambda file: file.writelines(_record(saved)))
        write_atomically(folder / ARRAYS, lambda file: np.savez(file, allow_pickle=False, about=words, **arrays), durable=True)


def read(folder: Path) -> SavedExamples | None:
    """Return the content of a folder, or None.

    Raises:
        SaveError: a damaged or unrelated file.
    """
    path = folder / ARRAYS
    if not path.exists():
        return None
    with reading(path, "examples"):
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            arrays: dict[str, Any] = {name: file[name] for name in file if name != "about"}
        layers: dict[str, LayerExamples] = {}
        for i, words in enumerate(about["layers"]):
            words["receptive_field"] = _field(words["receptive_field"])
            words |= {name: tuple(words[name]) for name in ("shape", "image_size")}
            layers[words["layer"]] = LayerExamples(**{name: arrays[f"{i}.{name}"] for name in _NAMES}, **words)
        read_files = [ReadFile(*entry) for entry in about["taken"]]
        return SavedExamples(layers, about["identity"], read_files, about["seen"], about["finished"])


def _field(words: Any) -> ReceptiveField | None:
    if words is None:
        return None
    size, stride, whole, start = words
    return ReceptiveField(tuple(size), tuple(stride), bool(whole), tuple(start))


def _record(saved: SavedExamples) -> Iterator[bytes]:
    """Yield the record for people, one unit per line."""
    head: dict[str, Any] = {"format": FORMAT, "versions": versions(), "settings": saved.identity}
    head["skipped"] = [{"path": str(file.path), "reason": file.reason} for file in saved.skipped]
    files = saved.files
    yield json.dumps(head, indent=1).removesuffix("\n}").encode() + b',\n "layers": {'
    for i, (name, layer) in enumerate(saved.layers.items()):
        yield (", " if i else "").encode() + b"\n  " + json.dumps(name).encode() + b": ["
        for unit in range(len(layer.scores)):
            rows = zip(layer.indices[unit], layer.scores[unit], layer.positions[unit], strict=True)
            images = [
                {"image": files[n] if files else int(n), "score": float(score), "position": at.tolist()}
                for n, score, at in rows
                if n >= 0
            ]
            yield (",\n   " if unit else "\n   ").encode() + json.dumps(images).encode()
        yield b"\n  ]"
    yield b"\n }\n}\n"
