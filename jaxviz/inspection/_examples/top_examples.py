"""Top-activating images of every unit of some layers, in one pass over the images."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self, Unpack, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz import engine
from jaxviz._errors import ArgumentError, SaveError
from jaxviz._fingerprint import model_digests
from jaxviz._pytree import pytree
from jaxviz._result_files import ADVICE
from jaxviz._run_folder import RunFolder
from jaxviz._types import Array, StrPath
from jaxviz.engine import RunOptions
from jaxviz.engine._progress import Clock
from jaxviz.image import Size
from jaxviz.inspection._examples import histogram as _histogram
from jaxviz.inspection._examples.files import ARRAYS, KIND, RECORD, LayerExamples, SavedExamples, Score, read, write
from jaxviz.inspection._examples.progress import ReadingProgress
from jaxviz.inspection._examples.result import TopExamples, from_saved
from jaxviz.inspection._image_source import CHUNK, ImageInput, image_source, reading_chunk
from jaxviz.models import Layer, Model
from jaxviz.models._network import Network
from jaxviz.models._taps import activations

PAUSE = 5.0  # seconds at least between writes of the state


def top_examples(
    model: Model,
    images: ImageInput,
    layers: str | Sequence[str],
    *,
    k: int = 9,
    size: Size | None = None,
    score: Score = "max",
    out: StrPath | None = None,
    overwrite: bool = False,
    **run: Unpack[RunOptions],
) -> dict[str, TopExamples]:
    """Return the k top-activating images of every unit of some layers, with positions and a histogram of all scores.

    One pass serves all layers. Memory does not grow with the number of images. An image counts once per unit, with the
    position of its maximum; ties go to the earlier image.

    Args:
        model: the network.
        images: folders with everything in them, files, or an array, float32 (N, H, W, C) in [0, 1], which may be a memory
            map. Files that are no images are listed in `TopExamples.skipped`.
        layers: one or more layers of shape (h, w, C) or (C,).
        k: number of images per unit.
        size: (H, W) or one int to which files are scaled and cropped; the network's input size by default.
        score: of an image, `"max"` or `"mean"` over the unit's map.
        out: a folder in which the state is saved every few seconds. An interrupted or killed run continues there, also with
            more files after those it has read.
        overwrite: replace any run in `out`.
        **run: see `RunOptions`; `chunk` is the number of images read and computed at a time.

    Returns:
        `TopExamples` by layer, with at most as many columns as images.

    Raises:
        ArgumentError: unsuitable images, layers, k, size or score.
        LayerError: an unknown layer.
        ImageError: no files, or none that can be read.
        SaveError: `out` cannot be written, or holds another run or a run over other files.

    >>> top = top_examples(model, photos, ["layer3", "layer4"], k=2)
    >>> top["layer4"].scores.shape, top["layer4"].crops(7).ndim
    ((512, 2), 4)
    """
    if k != int(k) or k < 1:
        raise ArgumentError(f"k must be a whole number of at least 1; got {k!r}.")
    reading_chunk(run.get("chunk"))
    if score not in get_args(Score):
        raise ArgumentError(f"A score is {', '.join(map(repr, get_args(Score)))}; got {score!r}.")
    reading = ReadingProgress(image_source(model, images, size, out=out))
    image_size = reading.source.size
    table = model.layers(image_size)
    names = [layers] if isinstance(layers, str) else list(dict.fromkeys(layers))
    rows = {name: _checked(name, table[name]) for name in names}
    if not rows:
        raise ArgumentError("Expected the name of at least one layer; got none.")
    progress = run.get("progress")
    options: dict[str, Any] = {name: value for name, value in run.items() if name != "progress"}
    channels = tuple(layer.channels for layer in rows.values())
    program = _Strongest(model.network, tuple(rows), channels, int(k), score == "mean")
    settings = _settings(model, rows, int(k), score, reading, run) if out is not None else {}
    with _Kept(out, settings, overwrite) as kept:
        fold = engine.Fold(program, kept.resume(reading, int(k)), **options)
        clock = Clock(reading.total, 1, 1, progress)

        def snapshot(is_finished: bool = False) -> SavedExamples:
            state = fold.state()
            layers = _by_layer(state, rows, score, image_size)
            count = int(state.seen)
            return SavedExamples(layers, kept.identity, reading.files(count), count, is_finished)

        chunk = fold.chunk if run.get("chunk") is not None else -(-max(CHUNK, fold.chunk) // fold.chunk) * fold.chunk
        skipped = list(reading.source.skipped)
        try:
            for part in reading.parts(chunk):
                first, number = reading.position, reading.image_count
                reading.advance(part)  # before the fold, which may fail: `files` leaves out what the state does not cover
                skipped += part.skipped
                if len(part.images):
                    fold.add(part.images, number)
                clock.tick(first, reading.position - first, reading.total - reading.position, 1)
                if kept.is_due():
                    kept.write(snapshot)
        except BaseException:
            with suppress(Exception):  # the first error is the one to report
                kept.write(snapshot)
            raise
        if not reading.image_count:
            raise reading.source.no_image_error(skipped)
        saved = snapshot(is_finished=True)
        kept.write(lambda: saved)
    return from_saved(saved, reading.source.array)


class _Kept:
    """The folder of a run, if any: its state, and when to write it again."""

    def __init__(self, out: StrPath | None, settings: Mapping[str, Any], overwrite: bool) -> None:
        self._run = None if out is None else RunFolder(out, KIND, settings, [ARRAYS, RECORD], overwrite=overwrite)
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        if self._run is not None:
            self._run.open()
        return self

    def __exit__(self, *error: object) -> None:
        if self._run is not None:
            self._run.close()

    @property
    def identity(self) -> dict[str, Any] | None:
        return None if self._run is None else self._run.identity

    def resume(self, reading: ReadingProgress, k: int) -> _State | None:
        """Return the state of the run in the folder, and continue the reading from there.

        Raises:
            SaveError: a run over other files, or work left in a folder that cannot be written.
        """
        state = None
        if self._run is not None and (saved := read(self._run.path)) is not None:
            if saved.identity != self._run.identity:
                raise SaveError(f"The folder '{self._run.path}' holds other top examples: {ADVICE}.")
            reading.resume(saved.read_files, saved.image_count, self._run.path)
            state = _joined([layer.with_columns(k) for layer in saved.layers.values()], saved.image_count)
        if self._run is not None and reading.position < reading.total:
            self._run.require_writable()
        return state

    def is_due(self) -> bool:
        return self._run is not None and time.monotonic() - self._last >= PAUSE

    def write(self, saved: Callable[[], SavedExamples]) -> None:
        """Write the state, if any image was read."""
        if self._run is not None and self._run.is_writable and (state := saved()).image_count:
            write(self._run.path, state)
            self._last = time.monotonic()


def _checked(name: str, layer: Layer) -> Layer:
    if len(layer.shape) not in (1, 3):
        raise ArgumentError(f"Expected layers of shape (h, w, C) or (C,); {name} is {layer.shape}.")
    return layer


def _settings(
    model: Model, layers: Mapping[str, Layer], k: int, score: Score, reading: ReadingProgress, run: RunOptions
) -> dict[str, Any]:
    """Return everything that determines the result, except for the files."""
    return {
        **model_digests(model),
        "layers": {name: layer.name for name, layer in layers.items()},
        "k": k,
        "score": score,
        "size": reading.source.size,
        "precision": run.get("precision", "highest"),
        **reading.settings(),
    }


def _by_layer(
    state: _State, layers: Mapping[str, Layer], score: Score, image_size: tuple[int, int]
) -> dict[str, LayerExamples]:
    """Return each layer's rows of the state, with at most as many columns as there are images."""
    examples: dict[str, LayerExamples] = {}
    first = 0
    for name, layer in layers.items():
        rows = slice(first, first := first + layer.channels)
        shape = layer.shape[:-1]
        counts, low, high = (part[rows] for part in state.histogram)
        positions = np.stack(np.divmod(state.places[rows], shape[1] if shape else 1), -1).astype(np.int32)
        examples[name] = LayerExamples(
            layer=name,
            scores=state.scores[rows],
            indices=state.indices[rows],
            positions=positions,
            counts=counts,
            low=low,
            high=high,
            shape=shape,
            image_size=image_size,
            receptive_field=layer.receptive_field if shape else None,
            score=score,
        ).with_columns(min(state.scores.shape[1], int(state.seen)))
    return examples


def _joined(layers: Sequence[LayerExamples], seen: int) -> _State:
    """Return the state from the examples of all layers: the inverse of `_by_layer`."""
    width = [layer.shape[1] if layer.shape else 1 for layer in layers]
    places = [layer.positions @ np.array([w, 1], np.int32) for layer, w in zip(layers, width, strict=True)]
    whole = {name: np.concatenate([getattr(layer, name) for layer in layers]) for name in ("scores", "indices", "counts")}
    low, high = (np.concatenate([getattr(layer, name) for layer in layers]) for name in ("low", "high"))
    histogram = (whole["counts"], low, high)
    return _State(whole["scores"], whole["indices"], np.concatenate(places).astype(np.int32), histogram, np.int32(seen))


@pytree
@dataclass(frozen=True)
class _State:
    """The strongest images of U units so far, and the histogram of all scores."""

    scores: Any  # float32 (U, k)
    indices: Any  # int32 (U, k)
    places: Any  # int32 (U, k), positions counted row by row
    histogram: Any  # counts (U, bins), low and high (U,)
    seen: Any  # int32 (), images


@pytree
@dataclass(frozen=True)
class _Strongest:
    """Program (`Folding`): the k strongest images of all units of some layers, units layer by layer."""

    network: Network
    layers: tuple[str, ...] = field(metadata=dict(static=True))
    units: tuple[int, ...] = field(metadata=dict(static=True))
    k: int = field(metadata=dict(static=True))
    mean: bool = field(metadata=dict(static=True))

    def start(self) -> _State:
        shape = (sum(self.units), self.k)
        places = jnp.zeros(shape, jnp.int32)
        return _State(jnp.full(shape, -jnp.inf), places - 1, places, _histogram.empty(shape[0]), jnp.int32(0))

    def step(self, state: _State, items: Array, numbers: Array) -> _State:
        values = activations(self.network, items, self.layers)
        maxima = [_strongest(values[name], self.mean) for name in self.layers]
        scores, places = (jnp.concatenate(parts, 1) for parts in zip(*maxima, strict=True))  # (n, U)
        scores = jnp.where(scores == 0, 0, scores)  # -0 would rank below 0
        is_image = (numbers >= 0)[:, None]
        # top_k breaks ties by order, and earlier images come first in each row.
        ranked = jnp.where(is_image & jnp.isfinite(scores), scores, -jnp.inf).T
        indices = jnp.broadcast_to(numbers[None], ranked.shape)
        top, which = jax.lax.top_k(jnp.concatenate([state.scores, ranked], 1), self.k)
        indices, places = (
            jnp.take_along_axis(jnp.concatenate(pair, 1), which, 1)
            for pair in ((state.indices, indices), (state.places, places.T))
        )
        counts, low, high = state.histogram
        histogram = _histogram.count(counts, low, high, jnp.where(is_image, scores, jnp.nan))
        return _State(top, indices, places, histogram, state.seen + is_image.sum().astype(jnp.int32))

    def merge(self, state: _State, other: _State) -> _State:
        pairs = ((state.scores, other.scores), (state.indices, other.indices), (state.places, other.places))
        scores, indices, places = (jnp.concatenate(pair, 1) for pair in pairs)
        falling, indices, places = jax.lax.sort((-scores, indices, places), dimension=1, num_keys=2)
        scores, indices, places = (part[:, : self.k] for part in (jnp.where(falling == 0, 0, -falling), indices, places))
        histogram = _histogram.merge(state.histogram, other.histogram)
        return _State(scores, indices, places, histogram, state.seen + other.seen)


def _strongest(maps: Array, mean: bool) -> tuple[Array, Array]:
    """Return the score and the first place of the maximum, both (n, C), of maps (n, h, w, C) or values (n, C)."""
    flat = maps.reshape(len(maps), -1, maps.shape[-1])
    best = flat.max(1)
    places = jnp.arange(flat.shape[1], dtype=jnp.int32)[None, :, None]
    place = jnp.where(flat == best[:, None], places, flat.shape[1]).min(1)
    return (flat.mean(1) if mean else best), jnp.minimum(place, flat.shape[1] - 1)  # out of range if all values are NaN
