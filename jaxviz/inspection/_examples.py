"""For every unit of some layers the images of a folder that move it most, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, Unpack

import numpy as np

from jaxviz._folder import Skipped
from jaxviz._types import ArrayLike, StrPath
from jaxviz.engine import RunOptions
from jaxviz.models import Model, ReceptiveField

Score: TypeAlias = Literal["max", "mean"]


@dataclass(frozen=True, eq=False)
class TopExamples:
    """The k images that move each of a layer's U units most, and how much all images moved it.

    Attributes:
        layer: the name that was asked for.
        scores: float32 (U, k), falling; -inf where fewer than k images gave a finite score.
        indices: int32 (U, k), of the images, into `files`; -1 where the score is -inf.
        positions: int32 (U, k, 2), row and column of the map's maximum; zeros in layers without positions.
        counts: int32 (U, bins), how many images' scores fell between two edges.
        low, high: float32 (U,), the smallest and the largest score of all images.
        files: paths of the images that were read, in their order; () for an array.
        skipped: the files that were not, and why.
        shape: (h, w) of the layer's maps; () where there are no positions.
        image_size: (H, W) of the images as the network saw them.
        receptive_field: of a unit; None where it is unknown.
        score: "max" or "mean", over the positions.
    """

    layer: str
    scores: np.ndarray
    indices: np.ndarray
    positions: np.ndarray
    counts: np.ndarray
    low: np.ndarray
    high: np.ndarray
    files: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    shape: tuple[int, ...]
    image_size: tuple[int, int]
    receptive_field: ReceptiveField | None
    score: Score = "max"

    @property
    def edges(self) -> np.ndarray:
        """The edges of the histogram's bins, float64 (U, bins + 1)."""
        raise NotImplementedError

    def crops(self, units: int | Sequence[int] | None = None, *, extent: int | None = None) -> np.ndarray:
        """Return what the units saw, float32 (k, h, w, C) of one unit, (n, k, h, w, C) of several; the files are read again."""
        raise NotImplementedError


def top_examples(
    model: Model,
    images: StrPath | Sequence[StrPath] | ArrayLike,
    layers: str | Sequence[str],
    *,
    k: int = 9,
    size: int | tuple[int, int] | None = None,
    score: Score = "max",
    batch: int | None = None,
    out: StrPath | None = None,
    overwrite: bool = False,
    **run: Unpack[RunOptions],
) -> dict[str, TopExamples]:
    """Return by layer, for every unit, the k images that move it most; in one pass, with memory that does not grow."""
    raise NotImplementedError
