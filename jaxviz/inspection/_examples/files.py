"""Top examples in a folder: `examples.npz`, all layers' arrays and what they are about, and `examples.json` for people.

The arrays' file is written in one step and says all that a run needs to continue: it is the run's state and, in the end, its
result. A reader never sees half of one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxviz._atomic import names_in, reading, write_atomically
from jaxviz._errors import LayerError, SaveError, near_matches
from jaxviz._image_files import Skipped
from jaxviz._result_files import ADVICE, failures, jsonable, versions
from jaxviz._run_folder import HINT, RunKind
from jaxviz._types import StrPath
from jaxviz.inspection._examples.result import TopExamples
from jaxviz.models import ReceptiveField

FORMAT = 1
ARRAYS, RECORD = "examples.npz", "examples.json"
KIND = RunKind("top_examples", FORMAT)
_NAMES = ("scores", "indices", "positions", "counts", "low", "high")
_ABOUT = ("layer", "shape", "image_size", "receptive_field", "score")


@dataclass(frozen=True)
class Taken:
    """A file that was looked at: its size and time, by which it is known again, and why it was skipped, if it was.

    Of a folder that could not be listed there is no stamp.
    """

    path: str
    stamp: list[int] | None
    reason: str | None = None


@dataclass(frozen=True)
class Saved:
    """What a folder holds: the layers' examples, the settings of the run, the files in order, and whether that was all."""

    layers: dict[str, TopExamples]
    identity: Any
    taken: Sequence[Taken]
    seen: int  # images
    finished: bool


def load_examples(folder: StrPath) -> dict[str, TopExamples]:
    """Read what `top_examples(..., out=folder)` or `TopExamples.save` wrote: the examples by layer.

    Raises:
        SaveError: there is nothing, it is damaged, or the run is not finished.
    """
    saved = read(Path(folder))
    if saved is None:
        raise SaveError(f"There are no top examples in '{folder}': '{ARRAYS}' is missing.")
    if not saved.finished:
        raise SaveError(f"The run in '{folder}' is not finished: the same call again continues it.")
    return saved.layers


def save_examples(layers: Mapping[str, TopExamples], folder: StrPath, *, overwrite: bool = False) -> None:
    """Write the examples of some layers of one run, for `load_examples`.

    Raises:
        SaveError: the folder cannot be written, or holds examples already and `overwrite` is False.
    """
    folder, first = Path(folder), next(iter(layers.values()))
    if not overwrite and ARRAYS in names_in(folder):
        raise SaveError(f"The folder '{folder}' holds top examples already: {ADVICE}.")
    taken = [Taken(path, None) for path in first.files]
    taken += [Taken(str(file.path), None, file.reason) for file in first.skipped]
    write(folder, Saved(dict(layers), None, taken, len(first.files), finished=True))


def one_of(layers: Mapping[str, TopExamples], layer: str | None) -> TopExamples:
    """Return the examples of a layer; of the only one where none is named."""
    if layer is None and len(layers) == 1:
        return next(iter(layers.values()))
    if layer is None or layer not in layers:
        raise LayerError(f"Here are the examples of {', '.join(layers)}; got {layer!r}.{near_matches(str(layer), layers)}")
    return layers[layer]


def write(folder: Path, saved: Saved) -> None:
    """Write the arrays in one step; where the run is finished, the record for people before them."""
    about = {
        "format": FORMAT,
        "kind": KIND.name,
        "versions": versions(),
        "identity": saved.identity,
        "finished": saved.finished,
        "seen": saved.seen,
        "taken": [[file.path, file.stamp, file.reason] for file in saved.taken],
        "layers": [{name: jsonable(getattr(layer, name)) for name in _ABOUT} for layer in saved.layers.values()],
    }
    arrays = {f"{i}.{name}": getattr(layer, name) for i, layer in enumerate(saved.layers.values()) for name in _NAMES}
    words = np.array(json.dumps(about))
    with failures(folder, HINT):
        if saved.finished:
            write_atomically(folder / RECORD, lambda file: file.writelines(_record(saved)))
        write_atomically(folder / ARRAYS, lambda file: np.savez(file, allow_pickle=False, about=words, **arrays), durable=True)


def read(folder: Path) -> Saved | None:
    """Return what a folder holds, or None.

    Raises:
        SaveError: it is damaged, or something else.
    """
    path = folder / ARRAYS
    if not path.exists():
        return None
    with reading(path, "examples"):
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            arrays: dict[str, Any] = {name: file[name] for name in file if name != "about"}
        taken = [Taken(*file) for file in about["taken"]]
        files = tuple(file.path for file in taken if file.reason is None)
        skipped = tuple(Skipped(Path(file.path), file.reason) for file in taken if file.reason is not None)
        layers: dict[str, TopExamples] = {}
        for i, words in enumerate(about["layers"]):
            words["receptive_field"] = _field(words["receptive_field"])
            words |= {name: tuple(words[name]) for name in ("shape", "image_size")}
            own = {name: arrays[f"{i}.{name}"] for name in _NAMES}
            layers[words["layer"]] = TopExamples(**own, **words, files=files, skipped=skipped)
        return Saved(layers, about["identity"], taken, about["seen"], about["finished"])


def with_columns(layer: TopExamples, k: int) -> TopExamples:
    """Return examples with k columns: what is missing is filled up, what is too much is left away."""
    missing = max(0, k - layer.scores.shape[1])
    if not missing:
        return replace(layer, **{name: getattr(layer, name)[:, :k] for name in ("scores", "indices", "positions")})
    pad = ((0, 0), (0, missing))
    return replace(
        layer,
        scores=np.pad(layer.scores, pad, constant_values=-np.inf),
        indices=np.pad(layer.indices, pad, constant_values=-1),
        positions=np.pad(layer.positions, (*pad, (0, 0))),
    )


def _field(words: Any) -> ReceptiveField | None:
    if words is None:
        return None
    size, stride, whole, start = words
    return ReceptiveField(tuple(size), tuple(stride), bool(whole), tuple(start))


def _record(saved: Saved) -> Iterator[bytes]:
    """Yield the record for people, a unit a line."""
    head: dict[str, Any] = {"format": FORMAT, "versions": versions(), "settings": saved.identity}
    head["skipped"] = [{"path": file.path, "reason": file.reason} for file in saved.taken if file.reason is not None]
    yield json.dumps(head, indent=1).removesuffix("\n}").encode() + b',\n "layers": {'
    for i, (name, layer) in enumerate(saved.layers.items()):
        yield (", " if i else "").encode() + b"\n  " + json.dumps(name).encode() + b": ["
        for unit in range(len(layer)):
            rows = zip(layer.indices[unit], layer.scores[unit], layer.positions[unit], strict=True)
            images = [
                {"image": layer.files[n] if layer.files else int(n), "score": float(score), "position": at.tolist()}
                for n, score, at in rows
                if n >= 0
            ]
            yield (",\n   " if unit else "\n   ").encode() + json.dumps(images).encode()
        yield b"\n  ]"
    yield b"\n }\n}\n"
