"""Activation grids: a picture of what a layer represents at every position of an image (Olah et al., 2018)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Unpack

import numpy as np
from PIL import Image

from jaxviz import engine, plot
from jaxviz._errors import ArgumentError
from jaxviz._pytree import pytree
from jaxviz._types import Array, ArrayLike, StrPath
from jaxviz._visualize.options import RenderOptions, show_options
from jaxviz._visualize.visualize import visualize
from jaxviz.engine import Progress
from jaxviz.image import to_uint8
from jaxviz.models import Model
from jaxviz.models._network import Network
from jaxviz.models._taps import activations
from jaxviz.objectives import direction
from jaxviz.objectives._whitening import whiten_with_ridge
from jaxviz.plot._canvas import theme, tiles

TILE, STEPS, POWER = 64, 64, 2.0  # chosen on photos: smaller tiles are coarse; power 0 gives unnatural colors
BORDER = 4  # pixels rendered around a tile and cropped: the transforms' padding would show as a seam


@dataclasses.dataclass(frozen=True, eq=False)
class ActivationGrid:
    """A picture for each position of a layer, for N images.

    Attributes:
        layer: name of the layer.
        images: float32 (N, H, W, C) in [0, 1].
        activations: float32 (N, h, w, channels), the vector at each position.
        tiles: float32 (N, h, w, side, side, C) in [0, 1], the picture of each position.
        strengths: float32 (N, h, w), the length of each vector.
    """

    layer: str
    images: np.ndarray
    activations: np.ndarray
    tiles: np.ndarray
    strengths: np.ndarray

    def draw(self, image: int = 0, *, scaled: bool = False, tile: int | None = None, dark: bool = False) -> np.ndarray:
        """Join the tiles of an image.

        Args:
            image: number of the image.
            scaled: make the side of a tile proportional to its strength; the strongest fills its place.
            tile: pixels per position; as rendered by default.
            dark: black instead of white between scaled tiles.

        Returns:
            uint8 (h * tile, w * tile, 3).

        Raises:
            ArgumentError: a tile below 1 pixel.
        """
        h, w = self.tiles.shape[1:3]
        tile = int(self.tiles.shape[3]) if tile is None else tile
        if tile < 1:
            raise ArgumentError(f"Expected tile >= 1; got {tile}.")
        pictures = tiles(self.tiles[image].reshape(h * w, *self.tiles.shape[3:]), tile)
        shares = np.clip(self.strengths[image] / max(float(self.strengths[image].max()), 1e-12), 0, 1)
        page = np.full((h * tile, w * tile, 3), theme(dark).paper, np.uint8)
        for i, picture in enumerate(pictures):
            y, x = divmod(i, w)
            size = max(1, round(tile * float(shares[y, x]))) if scaled else tile
            if size != tile:
                picture = np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS))
            top, left = y * tile + (tile - size) // 2, x * tile + (tile - size) // 2
            page[top : top + size, left : left + size] = picture
        return page

    def picture(
        self, image: int = 0, *, scaled: bool = False, tile: int | None = None, title: str | None = None, dark: bool = False
    ) -> np.ndarray:
        """Draw the image and its grid side by side, uint8 (height, width, 3); arguments as for `draw`."""
        grid = self.draw(image, scaled=scaled, tile=tile, dark=dark)
        photo = to_uint8(self.images[image])
        photo = np.broadcast_to(photo, (*photo.shape[:2], 3))
        photo = np.asarray(Image.fromarray(photo).resize((grid.shape[1], grid.shape[0]), Image.Resampling.BICUBIC))
        h, w = self.strengths.shape[1:]
        caption = f"{self.layer}, {h} x {w} positions" + (", scaled by strength" if scaled else "")
        return plot.grid(np.stack([photo, grid]), columns=2, captions=["image", caption], title=title, pad=12, dark=dark)


@show_options(RenderOptions)
def activation_grid(
    model: Model,
    images: ArrayLike,
    layer: str,
    *,
    whiten: ArrayLike | None = None,
    cossim_power: float = POWER,
    tile: int = TILE,
    steps: int = STEPS,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
    out: StrPath | None = None,
    overwrite: bool = False,
    **options: Unpack[RenderOptions],
) -> ActivationGrid:
    """Render, for every position of a layer in images, the picture that maximizes the direction of its activation vector.

    All positions start from the same random image, so that neighboring tiles look alike.

    Args:
        model: the network.
        images: float32 (N, H, W, C) in [0, 1]; the number of positions, and the work, grow with their size.
        layer: a layer with positions.
        whiten: activations (..., channels) of many images, to whiten the directions: tiles then show what is particular about
            a position rather than what all share (Carter et al., 2019).
        cossim_power: of the objective, see `jaxviz.direction`.
        tile: side of a picture in pixels.
        steps, seed, progress, out, overwrite: see `jaxviz.visualize`.
        **options: see `jaxviz.visualize`.

    Raises:
        ArgumentError: unsuitable images, or a layer without positions.
        LayerError: an unknown layer.

    >>> activation_grid(model, images[:1], "layer4", steps=1, tile=16).tiles.shape
    (1, 4, 4, 16, 16, 3)
    """
    images = model.check_images(images)
    values = spatial(model, images, layer)
    vectors = values.reshape(-1, values.shape[-1])
    directions = vectors if whiten is None else whiten_with_ridge(vectors, whiten)
    if tile < 1:
        raise ArgumentError(f"Expected tile >= 1; got {tile}.")
    result = visualize(
        model,
        direction(layer, directions, cossim_power=cossim_power),
        size=tile + 2 * BORDER,
        steps=steps,
        seed=seed,
        progress=progress,
        out=out,
        overwrite=overwrite,
        **options,
    )
    pictures = np.asarray(result.images)[:, 0, BORDER:-BORDER, BORDER:-BORDER]
    return ActivationGrid(
        layer=layer,
        images=np.asarray(images),
        activations=values,
        tiles=pictures.reshape(*values.shape[:3], *pictures.shape[1:]),
        strengths=np.linalg.norm(values, axis=-1),
    )


@pytree
@dataclasses.dataclass(frozen=True)
class _Activations:
    """Program: images to the activations of a layer."""

    network: Network
    layer: str = dataclasses.field(metadata=dict(static=True))

    def __call__(self, images: Array) -> Array:
        return activations(self.network, images, (self.layer,))[self.layer]


def spatial(model: Model, images: ArrayLike, layer: str) -> np.ndarray:
    """Return the activations of a layer with positions, float32 (N, h, w, C).

    Raises:
        ArgumentError: the layer has no positions.
    """
    shape = model.layers((images.shape[1], images.shape[2]))[layer].shape
    if len(shape) != 3:
        raise ArgumentError(
            f"Layer {layer!r} has no positions (shape {shape}): take one in front of the pooling or flattening."
        )
    return engine.map_images(_Activations(model.network, layer), images)
