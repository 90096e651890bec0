"""Neuron groups: the parts that a layer's activations are made of, where each is active, and what it responds to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Unpack

import numpy as np

from jaxviz import plot
from jaxviz._errors import ArgumentError
from jaxviz._types import ArrayLike, StrPath
from jaxviz._visualize.options import RenderOptions, show_options
from jaxviz._visualize.visualize import visualize
from jaxviz.engine import Progress
from jaxviz.image import to_uint8
from jaxviz.inspection._directions.grid import BORDER, POWER, spatial
from jaxviz.inspection._directions.nmf import Factors, nmf
from jaxviz.models import Model
from jaxviz.objectives import direction
from jaxviz.plot._canvas import theme, tiles

STEPS = 128


@dataclasses.dataclass(frozen=True, eq=False)
class ActivationGroups:
    """K neuron groups of the activations of N images, strongest first.

    Attributes:
        layer: name of the layer.
        images: float32 (N, H, W, C) in [0, 1].
        masks: float32 (N, K, h, w), at least 0, how active each group is at each position.
        vectors: float32 (K, channels), unit vectors.
        pictures: float32 (K, side, side, C) in [0, 1], what each group responds to.
        factors: the factorization.
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
    def colors(self) -> np.ndarray:
        """A color for each group, uint8 (K, 3)."""
        return plot.category_colors(len(self))

    @property
    def shares(self) -> np.ndarray:
        """Each group's share of the sum of all activations, float64 (K,), summing to 1."""
        sums = self.masks.sum((0, 2, 3), dtype=np.float64) * self.vectors.sum(1, dtype=np.float64)
        return sums / (sums.sum() or 1)

    def overlay(self, image: int = 0, *, side: int | None = None, alpha: float = 0.8) -> np.ndarray:
        """Color an image by its groups: first all groups together, then each group alone.

        Args:
            image: number of the image.
            side: height in pixels; the height of the image by default.
            alpha: opacity in [0, 1] where a group is strongest in any image.

        Returns:
            uint8 (K + 1, side, width, 3).
        """
        photo = tiles(self.images[image][None], side)[0].astype(np.float64)
        gray = (photo @ np.array([0.299, 0.587, 0.114]))[..., None]
        base = 0.25 * photo + 0.75 * gray
        most = self.masks.max((0, 2, 3))
        shares = self.masks[image] / np.where(most > 0, most, 1)[:, None, None]
        shares = np.clip(plot.fitted(shares.astype(np.float64), photo.shape[:2]), 0, 1)
        opacity, colors = alpha * shares[..., None], self.colors.astype(np.float64)
        each = base + opacity * (colors[:, None, None] - base)
        mixed = np.einsum("khw,kc->hwc", shares**2, colors) / np.maximum((shares**2).sum(0), 1e-9)[..., None]
        together = base + opacity.max(0) * (mixed - base)
        return to_uint8(np.concatenate([together[None], each]).astype(np.float32) / 255)

    def picture(self, *, tile: int = 160, images: int = 8, title: str | None = None, dark: bool = False) -> np.ndarray:
        """Draw a table: the picture of each group, and below it where the group is active in each image.

        Args:
            tile: height of a picture in pixels.
            images: number of images at most.
            title: a line above the table; the layer and the explained share by default.
            dark: white on black.

        Returns:
            uint8 (height, width, 3).
        """
        photos = tiles(self.images[:images], tile)
        width = photos.shape[2]
        frame = max(3, tile // 32)
        heads = [np.full((tile, width, 3), theme(dark).paper, np.uint8)] * 2
        for color, picture in zip(self.colors, tiles(self.pictures, tile), strict=True):
            inner = tiles(picture[None], tile - 2 * frame)[0]
            inner = inner[:, : width - 2 * frame]
            head = np.full((tile, width, 3), theme(dark).paper, np.uint8)
            left = (width - inner.shape[1]) // 2
            head[:, left - frame : left + inner.shape[1] + frame] = color
            head[frame : frame + inner.shape[0], left : left + inner.shape[1]] = inner
            heads.append(head)
        rows = [heads, *([photos[i], *self.overlay(i, side=tile)] for i in range(len(photos)))]
        columns = ["image", "all groups", *(f"group {k + 1}: {share:.0%}" for k, share in enumerate(self.shares))]
        summary = f"{self.layer}: {len(self)} groups, {self.factors.explained:.0%} of the sum of squares"
        return plot.table(rows, columns=columns, title=summary if title is None else title, tile=tile, dark=dark)


@show_options(RenderOptions)
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
    progress: Callable[[Progress], None] | None = None,
    out: StrPath | None = None,
    overwrite: bool = False,
    **options: Unpack[RenderOptions],
) -> ActivationGroups:
    """Divide the activations of images into groups of neurons that are active together, and render each group.

    `nmf` factorizes the positive activations at all positions of all images; each factor is then maximized as a
    `jaxviz.direction` (Olah et al., "The Building Blocks of Interpretability", 2018).

    Args:
        model: the network.
        images: float32 (N, H, W, C) in [0, 1], factorized together.
        layer: a layer with positions, preferably after a ReLU.
        groups: number of groups.
        cossim_power: of the objective, see `jaxviz.direction`.
        size: side, or (height, width), of the rendered pictures; the network's input size by default.
        seed: of the factorization and the pictures.
        steps, progress, out, overwrite: see `jaxviz.visualize`.
        **options: see `jaxviz.visualize`.

    Raises:
        ArgumentError: unsuitable images, a layer without positions, or more groups than positions or channels.
        LayerError: an unknown layer.

    >>> activation_groups(model, images, "layer4", groups=2, steps=1, size=16).masks.shape
    (2, 2, 4, 4)
    """
    images = model.check_images(images)
    height, width = model.input_size if size is None else (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ArgumentError(f"Expected a size of at least 1; got {size!r}.")
    values = np.maximum(spatial(model, images, layer), 0)
    factors = nmf(values.reshape(-1, values.shape[-1]), groups, seed=seed)
    result = visualize(
        model,
        direction(layer, factors.vectors, cossim_power=cossim_power),
        size=(height + 2 * BORDER, width + 2 * BORDER),
        steps=steps,
        seed=seed,
        progress=progress,
        out=out,
        overwrite=overwrite,
        **options,
    )
    pictures = np.asarray(result.images)[:, 0, BORDER:-BORDER, BORDER:-BORDER]
    masks = np.moveaxis(factors.weights.reshape(*values.shape[:3], -1), -1, 1)
    return ActivationGroups(layer, np.asarray(images), np.ascontiguousarray(masks), factors.vectors, pictures, factors)
