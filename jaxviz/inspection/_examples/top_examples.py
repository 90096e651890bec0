"""For every unit of some layers the images of a folder that move it most, in one pass over the folder."""

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
from jaxviz.models import Layer, Model, activations

PAUSE = 5.0  # seconds at least from one writing of the state to the next


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
    """Return, for every unit of some layers, the k images that move it most, their positions, and a histogram of all scores.

    One pass over the images serves all units of all layers. The running list of each unit stays on the device; memory does
    not grow with the number of images. Each image counts once for a unit, with the place where it moves it most; of equal
    scores the earlier image comes first.

    Args:
        model: the network.
        images: a folder with all that is in it, a file, several of both; or an array (N, H, W, C) in [0, 1], which may be
            a memory map. Files that are no images, or damaged, are skipped and told in `TopExamples.skipped`.
        layers: one name or more: any layer of shape (h, w, C) or (C,).
        k: images of each unit.
        size: (H, W) to which files are scaled and cut, or an int for a square; the network's own unless given.
        score: of an image: `"max"` or `"mean"` over the unit's map.
        out: a folder where the run is kept, every few seconds: after any end the same call goes on, also with more files
            after those that it has seen.
        overwrite: start anew, whatever run the folder holds.
        **run: see `RunOptions`.

    Returns:
        By layer its `TopExamples`; with fewer than k images as many columns as images.

    Raises:
        ArgumentError: wrong images, layers, k, size or score.
        LayerError: a layer that the network does not have.
        ImageError: there are no files, or none of them is an image that can be read.
        SaveError: `out` cannot be written, or holds a run with other settings or other files.

    >>> found = top_examples(load(), "photos", ["layer3", "layer4"], size=128)
    >>> found["layer4"].scores.shape, found["layer4"].crops(7).shape
    ((512, 9), (9, 128, 128, 3))
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
    found = {name: _checked(name, table[name]) for name in names}
    if not found:
        raise ArgumentError("Expected the name of at least one layer; got none.")
    progress = run.get("progress")
    options: dict[str, Any] = {name: value for name, value in run.items() if name != "progress"}
    program = _Strongest(model.bare(), tuple(found), tuple(layer.channels for layer in found.values()), int(k), score == "mean")
    settings = _settings(model, found, int(k), score, reading, run) if out is not None else {}
    with _Kept(out, settings, overwrite) as kept:
        fold = engine.Fold(program, kept.resume(reading, int(k)), **options)
        clock = Clock(reading.total, 1, 1, progress)

        def snapshot(is_finished: bool = False) -> SavedExamples:
            state = fold.state()
            layers = _by_layer(state, found, score, image_size)
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
    """The folder of a run, or nowhere: what it holds, and when it is written again."""

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
        """Return the state of the run that the folder holds, and continue the reading from there.

        Raises:
            SaveError: the run saw other files, or there is work left and the folder cannot be written.
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
        """Write what there is by now, if there is anything."""
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
    """Return the state that `_by_layer` was given."""
    width = [layer.shape[1] if layer.shape else 1 for layer in layers]
    places = [layer.positions @ np.array([w, 1], np.int32) for layer, w in zip(layers, width, strict=True)]
    whole = {name: np.concatenate([getattr(layer, name) for layer in layers]) for name in ("scores", "indices", "counts")}
    low, high = (np.concatenate([getattr(layer, name) for layer in layers]) for name in ("low", "high"))
    histogram = (whole["counts"], low, high)
    return _State(whole["scores"], whole["indices"], np.concatenate(places).astype(np.int32), histogram, np.int32(seen))


@pytree
@dataclass(frozen=True)
class _State:
    """What is known of U units: their strongest images so far, and the histogram of all scores."""

    scores: Any  # float32 (U, k)
    indices: Any  # int32 (U, k)
    places: Any  # int32 (U, k), positions counted row by row
    histogram: Any  # counts (U, bins), low and high (U,)
    seen: Any  # int32 (), images


@pytree
@dataclass(frozen=True)
class _Strongest:
    """The program: the k strongest images of every unit of some layers, one layer's units after the other's."""

    model: Model
    layers: tuple[str, ...] = field(metadata=dict(static=True))
    units: tuple[int, ...] = field(metadata=dict(static=True))
    k: int = field(metadata=dict(static=True))
    mean: bool = field(metadata=dict(static=True))

    def start(self) -> _State:
        shape = (sum(self.units), self.k)
        places = jnp.zeros(shape, jnp.int32)
        return _State(jnp.full(shape, -jnp.inf), places - 1, places, _histogram.empty(shape[0]), jnp.int32(0))

    def step(self, state: _State, items: Array, numbers: Array) -> _State:
        found = activations(self.model, items, self.layers)
        looks = [_strongest(found[name], self.mean) for name in self.layers]
        scores, places = (jnp.concatenate(parts, 1) for parts in zip(*looks, strict=True))  # (n, U)
        scores = jnp.where(scores == 0, 0, scores)  # -0 would rank below 0
        given = (numbers >= 0)[:, None]
        # What is before in a row was earlier in the folder, and of equal numbers top_k takes the first.
        ranked = jnp.where(given & jnp.isfinite(scores), scores, -jnp.inf).T
        indices = jnp.broadcast_to(numbers[None], ranked.shape)
        top, which = jax.lax.top_k(jnp.concatenate([state.scores, ranked], 1), self.k)
        indices, places = (
            jnp.take_along_axis(jnp.concatenate(pair, 1), which, 1)
            for pair in ((state.indices, indices), (state.places, places.T))
        )
        counts, low, high = state.histogram
        histogram = _histogram.count(counts, low, high, jnp.where(given, scores, jnp.nan))
        return _State(top, indices, places, histogram, state.seen + given.sum().astype(jnp.int32))

    def merge(self, state: _State, other: _State) -> _State:
        pairs = ((state.scores, other.scores), (state.indices, other.indices), (state.places, other.places))
        scores, indices, places = (jnp.concatenate(pair, 1) for pair in pairs)
        falling, indices, places = jax.lax.sort((-scores, indices, places), dimension=1, num_keys=2)
        scores, indices, places = (part[:, : self.k] for part in (jnp.where(falling == 0, 0, -falling), indices, places))
        histogram = _histogram.merge(state.histogram, other.histogram)
        return _State(scores, indices, places, histogram, state.seen + other.seen)


def _strongest(maps: Array, mean: bool) -> tuple[Array, Array]:
    """Return each map's score and the first place of its maximum, (n, C) both, of (n, h, w, C) or (n, C)."""
    flat = maps.reshape(len(maps), -1, maps.shape[-1])
    best = flat.max(1)
    places = jnp.arange(flat.shape[1], dtype=jnp.int32)[None, :, None]
    place = jnp.where(flat == best[:, None], places, flat.shape[1]).min(1)
    return (flat.mean(1) if mean else best), jnp.minimum(place, flat.shape[1] - 1)  # beyond the end where all are NaN
