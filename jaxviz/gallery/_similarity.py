"""How alike the units of a layer are, and an order in which those that are alike stand side by side.

Two units are alike where the same images excite them: the cosine between their profiles of activations. Incoming weights would
do for plain convolutions only; profiles do for every layer, for sums and rectified values too.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxviz import engine
from jaxviz._pytree import pytree
from jaxviz._types import Array
from jaxviz.inspection import TopExamples
from jaxviz.models import Model, activations
from jaxviz.result import Result

PROFILE = 100  # photos of a unit's profile
BATCH = 64  # pictures that are in memory at a time


@pytree
@dataclasses.dataclass(frozen=True)
class _Peaks:
    """A program of the engine: the largest activation anywhere of every unit of a layer, (n, C), of n images."""

    model: Model
    layer: str = dataclasses.field(metadata=dict(static=True))

    def __call__(self, images: Array) -> Array:
        acts = activations(self.model, images, (self.layer,))[self.layer]
        return acts.reshape(len(images), -1, acts.shape[-1]).max(1)


def responses(model: Model, layer: str, result: Result, units: np.ndarray, **run: Any) -> np.ndarray:
    """Return the largest activation anywhere of some units in each picture of a result, float32 (K, S, U)."""
    count, samples = result.images.shape[:2]
    step = max(1, BATCH // samples)
    program = _Peaks(model.bare(), layer)
    found = []
    for first in range(0, count, step):
        images = np.asarray(result.images[first : first + step], np.float32)
        fill = np.minimum(np.arange(step), len(images) - 1)  # the last block is as large as the others: nothing compiles anew
        peaks = engine.map_images(program, images[fill].reshape(-1, *images.shape[2:]), **run)
        found.append(np.asarray(peaks)[:, units].reshape(step, samples, -1)[: len(images)])
    return np.concatenate(found)


def likeness_of_responses(peaks: np.ndarray) -> np.ndarray:
    """Return the cosines (U, U) between the units' responses to all pictures, (K, S, U), each less its smallest."""
    profiles = peaks.reshape(-1, peaks.shape[-1]).astype(np.float64)
    return _cosines((profiles - profiles.min(0)).T)


def likeness_of_examples(top: TopExamples, units: np.ndarray) -> np.ndarray:
    """Return the cosines (U, U) between the units' profiles over the photos.

    A profile has the unit's score in each of its `k` strongest photos, less its smallest score in any, and 0 elsewhere; so
    that no second pass over the photos is needed, and no memory that grows with their number.
    """
    rows = np.repeat(np.arange(len(units)), top.scores.shape[1])
    photos, scores = top.indices[units].ravel(), top.scores[units].astype(np.float64).ravel()
    low = np.repeat(top.low[units].astype(np.float64), top.scores.shape[1])
    sound = (photos >= 0) & np.isfinite(scores) & np.isfinite(low)
    rows, photos, values = rows[sound], photos[sound], (scores - low)[sound]
    order = np.argsort(photos, kind="stable")
    rows, photos, values = rows[order], photos[order], values[order]
    total = np.zeros((len(units), len(units)))
    ends = np.flatnonzero(np.diff(photos, append=-1))
    for first, stop in zip((0, *(ends[:-1] + 1)), ends + 1, strict=True):
        who, how = rows[first:stop], values[first:stop]
        total[np.ix_(who, who)] += np.outer(how, how)
    return _normalised(total)


def _cosines(profiles: np.ndarray) -> np.ndarray:
    return _normalised(profiles @ profiles.T)


def _normalised(products: np.ndarray) -> np.ndarray:
    """Return cosines from the inner products of profiles; 0 for units that nothing excites."""
    lengths = np.sqrt(np.diagonal(products))
    scale = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return np.nan_to_num(np.clip(products * scale[:, None] * scale, -1, 1))


def most_similar(likeness: np.ndarray, count: int) -> np.ndarray:
    """Return the rows of the `count` most similar other units of each, int (U, count), the most similar first."""
    others = likeness.copy()
    np.fill_diagonal(others, -np.inf)
    return np.argsort(-others, axis=1, kind="stable")[:, : min(count, max(len(likeness) - 1, 0))]


def side_by_side(likeness: np.ndarray) -> np.ndarray:
    """Return the place of each unit in a row, int (U,): after each comes the most similar one that has no place yet.

    The first is the unit that is least like all others together, for a row that begins in the middle has to jump in the end;
    those that are like none come last.
    """
    left = likeness.copy()
    np.fill_diagonal(left, -np.inf)
    places = np.zeros(len(left), int)
    alive = np.diagonal(likeness) > 0
    here = int(np.argmin(np.where(alive, likeness.sum(1), np.inf)))
    for place in range(len(left)):
        places[here] = place
        left[:, here] = -np.inf
        here = int(np.argmax(left[here]))
    return places
