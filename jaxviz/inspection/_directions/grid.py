"""Activation grids: what a layer makes of every place of a photo, each drawn as a picture (Olah et al., 2018)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from PIL import Image

from jaxviz import engine, plot
from jaxviz._errors import ArgumentError
from jaxviz._pytree import pytree
from jaxviz._types import Array, ArrayLike
from jaxviz._visualize.visualize import visualize
from jaxviz.image import to_uint8
from jaxviz.models import Model, activations
from jaxviz.objectives import direction
from jaxviz.objectives._whitening import whiten_with_ridge
from jaxviz.plot._canvas import theme, tiles

TILE, STEPS, POWER = 64, 64, 2.0  # looked at on photos: below, tiles are coarse; power 0 gives colours that no photo has
BORDER = 4  # pixels that are rendered around a tile and cut off: the transforms' padding shows there as a seam


@dataclasses.dataclass(frozen=True, eq=False)
class ActivationGrid:
    """A picture of what is at each position of a layer, of N images.

    Attributes:
        layer: its name.
        images: float32 (N, H, W, C) in [0, 1].
        activations: float32 (N, h, w, channels), the vectors at the positions.
        tiles: float32 (N, h, w, side, side, C) in [0, 1], a picture of each.
        strengths: float32 (N, h, w), the vectors' lengths.
    """

    layer: str
    images: np.ndarray
    activations: np.ndarray
    tiles: np.ndarray
    strengths: np.ndarray

    def draw(self, image: int = 0, *, scaled: bool = False, tile: int | None = None, dark: bool = False) -> np.ndarray:
        """Put the tiles of an image together, uint8 (h * tile, w * tile, 3).

        Args:
            image: which one.
            scaled: the side of a tile as its strength, that of the image's strongest position being full.
            tile: pixels of a position's side; as they were made unless given.
            dark: black between tiles that are not full.

        Raises:
            ArgumentError: no tile.
        """
        h, w = self.tiles.shape[1:3]
        tile = int(self.tiles.shape[3]) if tile is None else tile
        if tile < 1:
            raise ArgumentError(f"Expected tile >= 1; got {tile}.")
        drawn = tiles(self.tiles[image].reshape(h * w, *self.tiles.shape[3:]), tile)
        share = np.clip(self.strengths[image] / max(float(self.strengths[image].max()), 1e-12), 0, 1)
        paper = theme(dark).paper
        page = np.full((h * tile, w * tile, 3), paper, np.uint8)
        for i, one in enumerate(drawn):
            y, x = divmod(i, w)
            size = max(1, round(tile * float(share[y, x]))) if scaled else tile
            one = one if size == tile else np.asarray(Image.fromarray(one).resize((size, size), Image.Resampling.LANCZOS))
            top, left = y * tile + (tile - size) // 2, x * tile + (tile - size) // 2
            page[top : top + size, left : left + size] = one
        return page

    def picture(
        self, image: int = 0, *, scaled: bool = False, tile: int | None = None, title: str | None = None, dark: bool = False
    ) -> np.ndarray:
        """Return the photo and its grid beside each other, uint8 (height, width, 3); args as for `draw`."""
        made = self.draw(image, scaled=scaled, tile=tile, dark=dark)
        photo = to_uint8(self.images[image])
        photo = np.broadcast_to(photo, (*photo.shape[:2], 3))
        photo = np.asarray(Image.fromarray(photo).resize((made.shape[1], made.shape[0]), Image.Resampling.BICUBIC))
        h, w = self.strengths.shape[1:]
        words = f"{self.layer}, {h} x {w} positions" + (", sizes as strengths" if scaled else "")
        return plot.grid(np.stack([photo, made]), columns=2, captions=["image", words], title=title, pad=12, dark=dark)


def activation_grid(
    model: Model,
    images: ArrayLike,
    layer: str,
    *,
    whiten: ArrayLike | None = None,
    cossim_power: float = POWER,
    tile: int = TILE,
    steps: int = STEPS,
    **options: Any,
) -> ActivationGrid:
    """Draw what a layer has at every position of images: the picture that excites the network along that very vector.

    All positions are one batch of `jaxviz.direction`, from one random start, so that neighbors look alike.

    Args:
        model: a network with positions in the layer.
        images: float32 (N, H, W, C) in [0, 1]; the number of positions, and the work, grows with their size.
        layer: a node or module.
        whiten: activations (n, channels) or (..., channels) of many images; then the directions are whitened by them, and show
            what is particular about a position rather than what all share (Carter et al., 2019).
        cossim_power: of the objective, see `jaxviz.direction`.
        tile: pixels of a picture's side.
        steps: of gradient ascent.
        **options: as of `jaxviz.visualize`: `seed`, `param`, `out`, `mesh`, `chunk`, `progress`, ...

    Raises:
        ArgumentError: images that do not fit, or a layer without positions.
        LayerError: a layer that is not there.

    >>> activation_grid(model, images[:1], "layer4", steps=1, tile=16).tiles.shape
    (1, 4, 4, 16, 16, 3)
    """
    images = model.check_images(images)
    acts = spatial(model, images, layer)
    vectors = acts.reshape(-1, acts.shape[-1])
    wanted = vectors if whiten is None else whiten_with_ridge(vectors, whiten)
    if tile < 1:
        raise ArgumentError(f"Expected tile >= 1; got {tile}.")
    goal = direction(layer, wanted, cossim_power=cossim_power)
    made = visualize(model, goal, size=tile + 2 * BORDER, steps=steps, **options)
    pictures = np.asarray(made.images)[:, 0, BORDER:-BORDER, BORDER:-BORDER]
    return ActivationGrid(
        layer=layer,
        images=np.asarray(images),
        activations=acts,
        tiles=pictures.reshape(*acts.shape[:3], *pictures.shape[1:]),
        strengths=np.linalg.norm(acts, axis=-1),
    )


@pytree
@dataclasses.dataclass(frozen=True)
class _Activations:
    """The activations of a layer: a program of the engine, which runs it on a few images at a time."""

    model: Model
    layer: str = dataclasses.field(metadata=dict(static=True))

    def __call__(self, images: Array) -> Array:
        return activations(self.model, images, (self.layer,))[self.layer]


def spatial(model: Model, images: ArrayLike, layer: str) -> np.ndarray:
    """Return a layer's activations of images, float32 (N, h, w, C), or raise an ArgumentError where it has no positions."""
    shape = model.layers((images.shape[1], images.shape[2]))[layer].shape
    if len(shape) != 3:
        raise ArgumentError(
            f"Layer {layer!r} has no positions (shape {shape}): take one in front of the pooling or flattening."
        )
    return engine.map_images(_Activations(model.bare(), layer), images)
