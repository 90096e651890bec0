"""Groups of neurons: the parts that a layer's activations of photos are made of, where each is, and what it looks for."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxviz import plot
from jaxviz._errors import ArgumentError
from jaxviz._types import ArrayLike
from jaxviz._visualize.visualize import visualize
from jaxviz.image import to_uint8
from jaxviz.inspection._directions.grid import BORDER, POWER, spatial
from jaxviz.inspection._directions.nmf import Factors, nmf
from jaxviz.models import Model
from jaxviz.objectives import direction
from jaxviz.plot._canvas import theme, tiles

STEPS = 128


@dataclasses.dataclass(frozen=True, eq=False)
class ActivationGroups:
    """K groups into which the activations of N images fall, strongest first.

    Attributes:
        layer: its name.
        images: float32 (N, H, W, C) in [0, 1].
        masks: float32 (N, K, h, w), at least 0: how much of each group is at each position.
        vectors: float32 (K, channels), each of length 1.
        pictures: float32 (K, side, side, C) in [0, 1], what each group looks for.
        factors: the factorisation itself, with what it explains.
    """

    layer: str
    images: np.ndarray
    masks: np.ndarray
    vectors: np.ndarray
    pictures: np.ndarray
    factors: Factors

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def colours(self) -> np.ndarray:
        """A colour for each group, uint8 (K, 3)."""
        return plot.category_colours(len(self))

    @property
    def shares(self) -> np.ndarray:
        """How much of the sum of the activations of all images is of each group, float64 (K,), together 1."""
        sums = self.masks.sum((0, 2, 3), dtype=np.float64) * self.vectors.sum(1, dtype=np.float64)
        return sums / (sums.sum() or 1)

    def overlay(self, image: int = 0, *, side: int | None = None, alpha: float = 0.8) -> np.ndarray:
        """Lay each group over an image in its colour, uint8 (K + 1, side, ..., 3); the first picture has all of them.

        Args:
            image: which one.
            side: pixels of the height; the image's unless given.
            alpha: opacity where a group is strongest in any image, in [0, 1].
        """
        photo = tiles(self.images[image][None], side)[0].astype(np.float64)
        grey = (photo @ np.array([0.299, 0.587, 0.114]))[..., None]
        base = 0.25 * photo + 0.75 * grey
        most = self.masks.max((0, 2, 3))
        share = self.masks[image] / np.where(most > 0, most, 1)[:, None, None]
        share = np.clip(plot.fitted(share.astype(np.float64), photo.shape[:2]), 0, 1)
        opacity, colours = alpha * share[..., None], self.colours.astype(np.float64)
        each = base + opacity * (colours[:, None, None] - base)
        mixed = np.einsum("khw,kc->hwc", share**2, colours) / np.maximum((share**2).sum(0), 1e-9)[..., None]
        whole = base + opacity.max(0) * (mixed - base)
        return to_uint8(np.concatenate([whole[None], each]).astype(np.float32) / 255)

    def picture(self, *, tile: int = 160, images: int = 8, title: str | None = None, dark: bool = False) -> np.ndarray:
        """Return a table: what each group looks for, and below it where it is in each image; uint8 (height, width, 3).

        Args:
            tile: pixels of a picture's height.
            images: at most so many are shown.
            title: a line above all; the layer and what the groups explain unless given.
            dark: white on black.
        """
        photos = tiles(self.images[:images], tile)
        width = photos.shape[2]
        frame = max(3, tile // 32)
        heads = [np.full((tile, width, 3), theme(dark).paper, np.uint8)] * 2
        for colour, one in zip(self.colours, tiles(self.pictures, tile), strict=True):
            inner = tiles(one[None], tile - 2 * frame)[0]
            inner = inner[:, : width - 2 * frame]
            head = np.full((tile, width, 3), theme(dark).paper, np.uint8)
            left = (width - inner.shape[1]) // 2
            head[:, left - frame : left + inner.shape[1] + frame] = colour
            head[frame : frame + inner.shape[0], left : left + inner.shape[1]] = inner
            heads.append(head)
        rows = [heads, *([photos[i], *self.overlay(i, side=tile)] for i in range(len(photos)))]
        columns = ["image", "all groups", *(f"group {k + 1}: {share:.0%}" for k, share in enumerate(self.shares))]
        words = f"{self.layer}: {len(self)} groups, {self.factors.explained:.0%} of the sum of squares"
        return plot.table(rows, columns=columns, title=words if title is None else title, tile=tile, dark=dark)


def activation_groups(
    model: Model,
    images: ArrayLike,
    layer: str,
    *,
    groups: int = 6,
    cossim_power: float = POWER,
    steps: int = STEPS,
    size: int | tuple[int, int] | None = None,
    seed: int = 0,
    **options: Any,
) -> ActivationGroups:
    """Divide a layer's activations of images into groups of neurons that are active together, and draw each group.

    The activations of all positions of all images, those below 0 as 0, are factorised by `nmf`; each group's vector is then
    maximised as a `jaxviz.direction` (Olah et al., "The Building Blocks of Interpretability", 2018).

    Args:
        model: a network with positions in the layer.
        images: float32 (N, H, W, C) in [0, 1]; groups are of all of them together.
        layer: a node or module, best after a ReLU.
        groups: how many.
        cossim_power: of the objective, see `jaxviz.direction`.
        steps: of gradient ascent.
        size: pixels of a side of the groups' pictures, or (height, width); the network's own unless given.
        seed: of the factorisation and the pictures.
        **options: as of `jaxviz.visualize`: `param`, `out`, `mesh`, `chunk`, `progress`, ...

    Raises:
        ArgumentError: images that do not fit, a layer without positions, or more groups than positions or channels.
        LayerError: a layer that is not there.

    >>> activation_groups(model, images, "layer4", groups=2, steps=1, size=16).masks.shape
    (2, 2, 4, 4)
    """
    images = model.check_images(images)
    height, width = model.input_size if size is None else (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ArgumentError(f"Expected a size of at least 1; got {size!r}.")
    acts = np.maximum(spatial(model, images, layer), 0)
    factors = nmf(acts.reshape(-1, acts.shape[-1]), groups, seed=seed)
    goal = direction(layer, factors.vectors, cossim_power=cossim_power)
    made = visualize(model, goal, steps=steps, size=(height + 2 * BORDER, width + 2 * BORDER), seed=seed, **options)
    pictures = np.asarray(made.images)[:, 0, BORDER:-BORDER, BORDER:-BORDER]
    masks = np.moveaxis(factors.weights.reshape(*acts.shape[:3], -1), -1, 1)
    return ActivationGroups(layer, np.asarray(images), np.ascontiguousarray(masks), factors.vectors, pictures, factors)
