"""Similarity of the units of a layer, and an order that puts similar units side by side.

Similarity is the cosine between profiles of activations over images. Unlike a comparison of incoming weights it works for every
layer, sums and rectified values included.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxviz import engine
from jaxviz._pytree import pytree
from jaxviz._types import Array
from jaxviz.engine import RunOptions
from jaxviz.inspection._examples.result import TopExamples
from jaxviz.models import Model
from jaxviz.models._network import Network
from jaxviz.models._taps import activations
from jaxviz.result import Result

PROFILE = 100  # photos in a unit's profile
CHUNK = 64  # pictures in memory at a time


@pytree
@dataclasses.dataclass(frozen=True)
class _Peaks:
    """Program: images to the maximum of each channel's map, (n, C)."""

    network: Network
    layer: str = dataclasses.field(metadata=dict(static=True))

    def __call__(self, images: Array) -> Array:
        values = activations(self.network, images, (self.layer,))[self.layer]
        return values.reshape(len(images), -1, values.shape[-1]).max(1)


def responses(model: Model, layer: str, result: Result, units: np.ndarray, run: RunOptions) -> np.ndarray:
    """Return the maximum of some units' maps in each picture of a result, float32 (K, S, U)."""
    count, samples = result.images.shape[:2]
    step = max(1, CHUNK // samples)
    program = _Peaks(model.network, layer)
    parts: list[np.ndarray] = []
    for first in range(0, count, step):
        images = np.asarray(result.images[first : first + step], np.float32)
        rows = np.minimum(np.arange(step), len(images) - 1)  # fill the last block: a smaller one would compile again
        peaks = engine.map_images(program, images[rows].reshape(-1, *images.shape[2:]), **run)
        parts.append(np.asarray(peaks)[:, units].reshape(step, samples, -1)[: len(images)])
    return np.concatenate(parts)


def likeness_of_responses(peaks: np.ndarray) -> np.ndarray:
    """Return the cosines (U, U) between the units' responses (K, S, U), each minus its minimum."""
    profiles = peaks.reshape(-1, peaks.shape[-1]).astype(np.float64)
    return _cosines((profiles - profiles.min(0)).T)


def likeness_of_examples(top: TopExamples, units: np.ndarray) -> np.ndarray:
    """Return the cosines (U, U) between the units' profiles over the photos.

    A profile holds the unit's score in each of its k strongest photos, minus its smallest score in any photo, and 0 elsewhere.
    It needs no second pass over the photos, and no memory that grows with their number.
    """
    rows = np.repeat(np.arange(len(units)), top.scores.shape[1])
    photos, scores = top.indices[units].ravel(), top.scores[units].astype(np.float64).ravel()
    low = np.repeat(top.low[units].astype(np.float64), top.scores.shape[1])
    is_valid = (photos >= 0) & np.isfinite(scores) & np.isfinite(low)
    rows, photos, values = rows[is_valid], photos[is_valid], (scores - low)[is_valid]
    order = np.argsort(photos, kind="stable")
    rows, photos, values = rows[order], photos[order], values[order]
    total = np.zeros((len(units), len(units)))
    ends = np.flatnonzero(np.diff(photos, append=-1))
    for first, stop in zip((0, *(ends[:-1] + 1)), ends + 1, strict=True):
        photo_units, photo_values = rows[first:stop], values[first:stop]
        total[np.ix_(photo_units, photo_units)] += np.outer(photo_values, photo_values)
    return _normalize(total)


def _cosines(profiles: np.ndarray) -> np.ndarray:
    return _normalize(profiles @ profiles.T)


def _normalize(products: np.ndarray) -> np.ndarray:
    """Return cosines from the inner products of profiles; 0 for units with an empty profile."""
    lengths = np.sqrt(np.diagonal(products))
    scale = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return np.nan_to_num(np.clip(products * scale[:, None] * scale, -1, 1))


def most_similar(likeness: np.ndarray, count: int) -> np.ndarray:
    """Return the rows of each unit's `count` most similar units, int (U, count), most similar first."""
    others = likeness.copy()
    np.fill_diagonal(others, -np.inf)
    return np.argsort(-others, axis=1, kind="stable")[:, : min(count, max(len(likeness) - 1, 0))]


def side_by_side(likeness: np.ndarray) -> np.ndarray:
    """Return the place of each unit in a greedy order, int (U,): each unit is followed by the most similar one left.

    The order starts with the unit that is least similar to all others, since one that starts in the middle ends with a jump.
    Units with an empty profile come last.
    """
    rest = likeness.copy()
    np.fill_diagonal(rest, -np.inf)
    places = np.zeros(len(rest), int)
    is_active = np.diagonal(likeness) > 0
    current = int(np.argmin(np.where(is_active, likeness.sum(1), np.inf)))
    for place in range(len(rest)):
        places[current] = place
        rest[:, current] = -np.inf
        current = int(np.argmax(rest[current]))
    return places
