"""Images with a part covered: which part, and what the network makes of them, computed anew only where it may change."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np

from jaxviz._pytree import pytree
from jaxviz._types import Array
from jaxviz.attribution._sampling import apart, judged, repeated, together
from jaxviz.attribution._target import Target
from jaxviz.models import Model, activations, changed_activations, maps_around_patches
from jaxviz.models._network import Network
from jaxviz.ops._patches import slice_windows

Side: TypeAlias = tuple[int, int]

SIZES = 14  # of patches along a side: a window of any size is in one of few, so that few programs are compiled


@pytree
@dataclasses.dataclass(frozen=True)
class Windows:
    """Masks of windows on a grid, the last of a row cut at the edge: made on the device from where each window begins."""

    window: Array  # int32 (3,): height, width, channels
    stride: Array
    grid: Array  # int32 (3,): windows along each

    def corners(self, numbers: Array) -> Array:
        """Return the first row, column and channel of windows, int32 (s, 3)."""
        row, rest = jnp.divmod(numbers, self.grid[1] * self.grid[2])
        column, channel = jnp.divmod(rest, self.grid[2])
        return jnp.stack([row, column, channel], -1) * self.stride

    def begins(self, items: dict[str, Any], numbers: Array) -> Array:
        """Return the first row and column of windows in each image, int32 (s, n, 2)."""
        corners = self.corners(numbers)[:, None, :2]
        return jnp.broadcast_to(corners, (len(numbers), len(items["images"]), 2))

    def masks(self, items: dict[str, Any], numbers: Array) -> Array:
        """Return which values the windows cover, bool (s, 1, H, W, C)."""
        inside = []
        for axis, begin in enumerate(self.corners(numbers).T[..., None]):
            place = jnp.arange(items["images"].shape[axis + 1])
            inside.append((place >= begin) & (place < begin + self.window[axis]))
        rows, columns, channels = inside
        return (rows[:, :, None, None] & columns[:, None, :, None] & channels[:, None, None, :])[:, None]


@pytree
@dataclasses.dataclass(frozen=True)
class Groups:
    """Masks of the groups of an image's values.

    `items["groups"]` int32 (n, H, W, 1 or C) numbers them; `items["corners"]` int32 (n, groups, 2) is where each begins.
    """

    def begins(self, items: dict[str, Any], numbers: Array) -> Array:
        """Return the first row and column of groups in each image, int32 (s, n, 2)."""
        return jnp.moveaxis(jnp.take(items["corners"], numbers, axis=1), 1, 0)

    def masks(self, items: dict[str, Any], numbers: Array) -> Array:
        """Return which values belong to a group, bool (s, n, H, W, 1 or C)."""
        return items["groups"][None] == numbers[:, None, None, None, None]


@pytree
@dataclasses.dataclass(frozen=True)
class Covered:
    """Scores and predicted classes of images with a part covered by the baseline: a program of the engine."""

    network: Network
    target: Target
    parts: Windows | Groups
    patch: Side | None = dataclasses.field(metadata=dict(static=True))  # (h, w) that hold any part; None: the whole image
    around: tuple[str, ...] = dataclasses.field(metadata=dict(static=True))  # layers whose values patches need

    def start(self, items: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        acts = activations(self.network, items["images"], (*self.target.layers(), *self.around))
        found = judged(self.target, acts, items["images"], items["index"])
        return found, {"index": found["index"], "maps": {name: acts[name] for name in self.around}}

    def step(self, items: dict[str, Any], fixed: dict[str, Any], numbers: Array) -> dict[str, Any]:
        s, images, names = len(numbers), items["images"], self.target.layers()
        seen = together(jnp.where(self.parts.masks(items, numbers), items["baseline"][None], images[None]))
        if self.patch is None:
            acts = activations(self.network, seen, names)
        else:
            last = np.subtract(images.shape[1:3], self.patch)
            at = jnp.minimum(self.parts.begins(items, numbers), last)
            patches = slice_windows(seen, at.reshape(1, -1, 2), self.patch)
            acts = changed_activations(self.network, patches, at, fixed["maps"], images, names)
        found = judged(self.target, acts, seen, repeated(fixed["index"], s))
        told = {"scores": found["scores"], "predicted": found["predicted"]}
        return {name: None if x is None else jnp.swapaxes(apart(x, s), 0, 1) for name, x in told.items()}


def covered(model: Model, target: Target, parts: Windows | Groups, largest: Side, size: Side) -> Covered:
    """Return the program for parts of at most the `largest` (h, w) of images of a size (H, W)."""
    h, w = (_patch_side(*sides) for sides in zip(largest, size, strict=True))
    around = maps_around_patches(model.network, (h, w), size, target.layers())
    return Covered(model.network, target, parts, None if around is None else (h, w), around or ())


def _patch_side(side: int, whole: int) -> int:
    """Return the least k of 1 to `SIZES` parts of the whole that hold a side."""
    return math.ceil(math.ceil(side * SIZES / whole) * whole / SIZES)
