"""Activation atlases: a map of what a layer distinguishes in many images (Carter et al., 2019)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias, Unpack

import numpy as np
from PIL import Image, ImageDraw

from jaxviz import plot
from jaxviz._errors import ArgumentError
from jaxviz._types import ArrayLike, StrPath
from jaxviz._visualize.options import RenderOptions, show_options
from jaxviz._visualize.visualize import visualize
from jaxviz.engine import Progress, RunOptions
from jaxviz.image import Size
from jaxviz.inspection._directions.grid import BORDER, POWER, STEPS, TILE
from jaxviz.inspection._directions.samples import ActivationSamples, sample_activations
from jaxviz.inspection._embeddings.pca import pca
from jaxviz.inspection._embeddings.tsne import tsne
from jaxviz.inspection._image_source import ImageInput
from jaxviz.models import Model
from jaxviz.objectives import direction
from jaxviz.objectives._whitening import whiten_with_ridge
from jaxviz.plot._canvas import fit, font, line_height, theme, tiles

Layout: TypeAlias = Literal["tsne", "pca"] | ArrayLike
RIM = 0.5  # percent of the images left out at each side of the layout: a few outliers would shrink all others


@dataclasses.dataclass(frozen=True, eq=False)
class ActivationAtlas:
    """M cells of a plane on which the activations of N images lie, each with a picture of their mean.

    Attributes:
        layer: name of the layer.
        samples: the activations and their files.
        coordinates: float32 (N, 2), position of each activation, x to the right and y downwards.
        grid: number of cells along each side.
        members: int32 (N,), index of each image's cell in the arrays below; -1 for none.
        cells: int32 (M, 2), row and column of each cell.
        counts: int32 (M,), number of images.
        vectors: float32 (M, C), mean activation.
        logits: float32 (M, classes), mean logits.
        pictures: float32 (M, side, side, channels) in [0, 1].
        class_names: class names of the network; may be empty.
    """

    layer: str
    samples: ActivationSamples
    coordinates: np.ndarray
    grid: int
    members: np.ndarray
    cells: np.ndarray
    counts: np.ndarray
    vectors: np.ndarray
    logits: np.ndarray
    pictures: np.ndarray
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def classes(self) -> np.ndarray:
        """Top class of each cell's mean logits, int (M,)."""
        return self.logits.argmax(1)

    def picture(
        self, *, labels: bool = False, tile: int | None = None, title: str | None = None, dark: bool = False
    ) -> np.ndarray:
        """Draw the whole atlas; cells with too few images are empty.

        Args:
            labels: frame each cell in the color of its class, with a legend below.
            tile: side of a cell in pixels; as rendered by default.
            title: a line above the atlas; a summary by default.
            dark: white on black.

        Returns:
            uint8 (height, width, 3).

        Raises:
            ArgumentError: a tile below 1 pixel.
        """
        side = self.pictures.shape[1] if tile is None else tile
        if side < 1:
            raise ArgumentError(f"Expected tile >= 1; got {tile}.")
        colors, large, margin = theme(dark), font(18), 24
        seam = max(3, side // 16) if labels else 1
        step = side + (2 * seam if labels else seam)
        row0, column0 = self.cells.min(0)
        down, across = self.cells.max(0) - (row0, column0) + 1
        top = margin + line_height(large) + 16
        width = max(step * int(across), 360)
        tints: dict[int, tuple[int, ...]] = {}  # of classes
        foot = None
        if labels:
            classes = np.unique(self.classes)
            names = [self.class_names[c] if self.class_names else str(c) for c in classes]
            palette = plot.class_colors(classes, self.logits.shape[1])
            tints = {int(c): tuple(map(int, color)) for c, color in zip(classes, palette, strict=True)}
            foot = plot.legend(names, palette, width=width, dark=dark)
        height = top + step * int(down) + (0 if foot is None else foot.shape[0] + 16) + margin
        canvas = Image.new("RGB", (width + 2 * margin, height), colors.paper)
        pen = ImageDraw.Draw(canvas)
        summary = f"{self.layer}: {int(self.counts.sum())} of {len(self.samples)} images in {len(self)} cells"
        pen.text((margin, margin - 4), fit(summary if title is None else title, large, width), colors.ink, large)
        for i, picture in enumerate(tiles(self.pictures, side)):
            y, x = top + (self.cells[i, 0] - row0) * step, margin + (self.cells[i, 1] - column0) * step
            if labels:
                frame = seam - 1
                pen.rectangle((x, y, x + side + 2 * frame - 1, y + side + 2 * frame - 1), fill=tints[int(self.classes[i])])
                x, y = x + frame, y + frame
            canvas.paste(Image.fromarray(picture), (int(x), int(y)))
        if foot is not None:
            canvas.paste(Image.fromarray(foot), (margin, top + step * int(down) + 16))
        return np.asarray(canvas)


@show_options(RenderOptions)
def activation_atlas(
    model: Model,
    images: ImageInput | ActivationSamples,
    layer: str | None = None,
    *,
    cells: int = 12,
    members: int = 5,
    layout: Layout = "tsne",
    whiten: bool = True,
    cossim_power: float = POWER,
    tile: int = TILE,
    steps: int = STEPS,
    size: Size | None = None,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
    out: StrPath | None = None,
    overwrite: bool = False,
    **options: Unpack[RenderOptions],
) -> ActivationAtlas:
    """Render a small activation atlas of a layer.

    The activations at one random position per image are laid out on a plane, the plane is divided into cells, and the mean
    activation of each cell is maximized as a whitened `jaxviz.direction`. All cells start from the same random image.

    Args:
        model: the network.
        images: folders and files, or an array, float32 (N, H, W, C) in [0, 1]; or the result of `sample_activations`.
        layer: a layer with positions; samples have their own.
        cells: number of cells along each side.
        members: images that a cell needs at least.
        layout: "tsne" (scikit-learn, extra `embed`), "pca", or coordinates (N, 2) of the samples from any other method (UMAP).
        whiten: whiten the means by the second moments of the samples (see `jaxviz.objectives.whiten`), to show what is
            particular about a cell.
        cossim_power: of the objective, see `jaxviz.direction`.
        tile: side of a picture in pixels.
        size: see `sample_activations`.
        seed: of the positions, the layout and the pictures.
        out: a folder for activations and pictures, in which an interrupted or killed run continues.
        overwrite: replace any run in `out`.
        steps, progress: see `jaxviz.visualize`.
        **options: see `jaxviz.visualize`; `mesh` and `chunk` hold for `sample_activations` too.

    Raises:
        ArgumentError: unsuitable images or layout, a layer without positions, or no cell with enough members.
        LayerError: an unknown layer.
        ImageError: no files, or none that can be read.
        SaveError: `out` holds another run, or cannot be written.
        UnsupportedError: "tsne" without scikit-learn.

    >>> many = np.repeat(photos, 4, 0)
    >>> activation_atlas(model, many, "layer4", cells=1, members=1, layout="pca", steps=1, tile=16).vectors.shape
    (1, 512)
    """
    if cells < 1 or members < 1 or tile < 1:
        raise ArgumentError(f"Expected cells, members and tile of at least 1; got {cells}, {members} and {tile}.")
    folder = None if out is None else Path(out).absolute()
    if isinstance(images, ActivationSamples):
        if layer is not None and layer != images.layer:
            raise ArgumentError(f"The samples are of layer {images.layer!r}; got the layer {layer!r}.")
        samples = images
    else:
        if layer is None:
            raise ArgumentError("Expected a layer, such as 'layer4'.")
        run: RunOptions = {"mesh": options.get("mesh"), "chunk": options.get("chunk"), "progress": progress}
        samples = sample_activations(model, images, layer, size=size, seed=seed, out=folder, overwrite=overwrite, **run)
    coordinates = lay_out(samples.vectors, layout, seed)
    places, owners, counts = _cells(coordinates, cells, members)
    if not len(places):
        raise ArgumentError(
            f"No cell has {members} of the {len(samples)} images: take more images, fewer cells than {cells} x {cells}, or "
            "fewer members."
        )
    means, logits = (_means(values, owners, len(places)) for values in (samples.vectors, samples.logits))
    directions = whiten_with_ridge(means, samples.vectors) if whiten else means
    result = visualize(
        model,
        direction(samples.layer, directions, cossim_power=cossim_power),
        size=tile + 2 * BORDER,
        steps=steps,
        seed=seed,
        progress=progress,
        out=None if folder is None else folder / "cells",
        overwrite=overwrite,
        **options,
    )
    pictures = np.asarray(result.images)[:, 0, BORDER:-BORDER, BORDER:-BORDER]
    return ActivationAtlas(
        samples.layer, samples, coordinates, cells, owners, places, counts, means, logits, pictures, model.class_names
    )


def lay_out(vectors: np.ndarray, layout: Layout, seed: int) -> np.ndarray:
    """Return positions of vectors (N, C) on a plane, float32 (N, 2)."""
    if isinstance(layout, str):
        if layout == "pca":
            return pca(vectors, 2).transform(vectors)
        if layout == "tsne":
            return tsne(vectors, perplexity=min(30.0, max(1.0, (len(vectors) - 1) / 3)), seed=seed)
        raise ArgumentError(f"A layout is 'tsne', 'pca' or coordinates (N, 2); got {layout!r}.")
    coordinates = np.asarray(layout, np.float32)
    if coordinates.shape != (len(vectors), 2) or not np.isfinite(coordinates).all():
        raise ArgumentError(f"Expected finite coordinates ({len(vectors)}, 2), one for each sample; got {coordinates.shape}.")
    return coordinates


def _cells(coordinates: np.ndarray, cells: int, members: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Divide the plane into cells.

    Returns:
        Row and column of each cell with enough members, int32 (M, 2); each image's index among these or -1, int32 (N,); and
        the number of images in each, int32 (M,).
    """
    low, high = np.percentile(coordinates.astype(np.float64), [RIM, 100 - RIM], axis=0)
    shares = (coordinates - low) / np.where(high > low, high - low, 1)
    is_within = ((shares >= 0) & (shares <= 1)).all(1)
    at = np.minimum((np.clip(shares, 0, 1) * cells).astype(int), cells - 1)
    number = np.where(is_within, at[:, 1] * cells + at[:, 0], cells * cells)  # row by row; y is the second coordinate
    counts = np.bincount(number, minlength=cells * cells + 1)[:-1]
    kept = np.flatnonzero(counts >= members)
    index_of = np.full(cells * cells + 1, -1)
    index_of[kept] = np.arange(len(kept))
    places = np.stack(np.divmod(kept, cells), -1).astype(np.int32)
    return places, index_of[number].astype(np.int32), counts[kept].astype(np.int32)


def _means(values: np.ndarray, owners: np.ndarray, count: int) -> np.ndarray:
    """Return the mean of the values (N, C) of each group, float32 (count, C)."""
    sums = np.zeros((count, values.shape[1]))
    np.add.at(sums, owners[owners >= 0], values[owners >= 0])
    return (sums / np.bincount(owners[owners >= 0], minlength=count)[:, None]).astype(np.float32)
