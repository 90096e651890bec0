"""Activation atlases: what a layer tells apart in a folder of images, like near like (Carter et al., 2019)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from jaxviz import plot
from jaxviz._errors import ArgumentError
from jaxviz._types import ArrayLike, StrPath
from jaxviz._visualize.visualize import visualize
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
RIM = 0.5  # percent of the images at each side of the layout that are left out: a few far away would shrink all others


@dataclasses.dataclass(frozen=True, eq=False)
class ActivationAtlas:
    """M cells of a plane on which N images' activations lie, each with a picture of what its activations have in common.

    Attributes:
        layer: its name.
        samples: the activations, with the files that they are of.
        coordinates: float32 (N, 2), where each image's activation lies, x to the right and y downwards.
        grid: cells along each side.
        members: int32 (N,), which cell each image is in, by its number in the arrays below; -1 for none.
        cells: int32 (M, 2), row and column of each cell.
        counts: int32 (M,), images in each.
        vectors: float32 (M, C), the mean of their activations.
        logits: float32 (M, classes), the mean of what the network says of their images.
        pictures: float32 (M, side, side, channels) in [0, 1].
        class_names: of the network, or empty.
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
        """The class that the network says of each cell's images most, int (M,)."""
        return self.logits.argmax(1)

    def picture(
        self, *, labels: bool = False, tile: int | None = None, title: str | None = None, dark: bool = False
    ) -> np.ndarray:
        """Return the whole atlas, uint8 (height, width, 3); where there are too few images it is empty.

        Args:
            labels: a frame in the colour of the class that is said most of the cell's images, and a legend below.
            tile: pixels of a cell's side; as they were made unless given.
            title: a line above all; what it is of unless given.
            dark: white on black.

        Raises:
            ArgumentError: no tile.
        """
        side = self.pictures.shape[1] if tile is None else tile
        if side < 1:
            raise ArgumentError(f"Expected tile >= 1; got {tile}.")
        colours, large, margin = theme(dark), font(18), 24
        seam = max(3, side // 16) if labels else 1
        step = side + (2 * seam if labels else seam)
        row0, column0 = self.cells.min(0)
        down, across = self.cells.max(0) - (row0, column0) + 1
        top = margin + line_height(large) + 16
        width = max(step * int(across), 360)
        foot = None
        if labels:
            said = np.unique(self.classes)
            names = [self.class_names[c] if self.class_names else str(c) for c in said]
            tints = dict(zip(said, plot.colours_of_classes(said, self.logits.shape[1]), strict=True))
            foot = plot.legend(names, np.stack(list(tints.values())), width=width, dark=dark)
        height = top + step * int(down) + (0 if foot is None else foot.shape[0] + 16) + margin
        canvas = Image.new("RGB", (width + 2 * margin, height), colours.paper)
        pen = ImageDraw.Draw(canvas)
        words = f"{self.layer}: {int(self.counts.sum())} of {len(self.samples)} images in {len(self)} cells"
        pen.text((margin, margin - 4), fit(words if title is None else title, large, width), colours.ink, large)
        for i, one in enumerate(tiles(self.pictures, side)):
            y, x = top + (self.cells[i, 0] - row0) * step, margin + (self.cells[i, 1] - column0) * step
            if labels:
                frame = seam - 1
                tint = tuple(int(v) for v in tints[self.classes[i]])
                pen.rectangle((x, y, x + side + 2 * frame - 1, y + side + 2 * frame - 1), fill=tint)
                x, y = x + frame, y + frame
            canvas.paste(Image.fromarray(one), (int(x), int(y)))
        if foot is not None:
            canvas.paste(Image.fromarray(foot), (margin, top + step * int(down) + 16))
        return np.asarray(canvas)


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
    batch: int = 64,
    seed: int = 0,
    out: StrPath | None = None,
    overwrite: bool = False,
    **options: Any,
) -> ActivationAtlas:
    """Make a small activation atlas of a layer.

    One random position of each image is taken, all are laid out on a plane, and the plane is divided into cells; the mean of
    each cell's activations is maximised as a whitened `jaxviz.direction`. All cells are one batch, from one random start.

    Args:
        model: a network with positions in the layer.
        images: folders and files, or an array float (N, H, W, C) in [0, 1], see `sample_activations`; or what that returned.
        layer: a node or module; not with samples, which have theirs.
        cells: along each side of the plane.
        members: images that a cell needs at least.
        layout: "tsne" (scikit-learn, extra `embed`), "pca", or coordinates (N, 2) of the samples by any other method (UMAP).
        whiten: by the samples' second moments, see `jaxviz.objectives.whiten`; asks for what is particular about a cell.
        cossim_power: of the objective, see `jaxviz.direction`.
        tile: pixels of a picture's side.
        steps: of gradient ascent.
        size, batch: see `sample_activations`.
        seed: of the positions, the layout and the pictures.
        out: a folder that keeps activations and pictures: stopped in any way, the same call goes on.
        overwrite: remove a run of other settings from `out`.
        **options: as of `jaxviz.visualize`: `param`, `mesh`, `chunk`, `progress`, ...

    Raises:
        ArgumentError: wrong images or layout, a layer without positions, or no cell with so many members.
        LayerError: a layer that is not there.
        ImageError: there are no files, or none that can be read.
        SaveError: `out` holds a run of other settings, or cannot be written.
        UnsupportedError: "tsne", and scikit-learn is not installed.

    >>> activation_atlas(model, "photos", "layer4").picture(labels=True).shape[-1]
    3
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
        run = {name: options[name] for name in ("mesh", "chunk", "progress") if name in options}
        samples = sample_activations(
            model, images, layer, size=size, batch=batch, seed=seed, out=folder, overwrite=overwrite, **run
        )
    coordinates = lay_out(samples.vectors, layout, seed)
    places, owner, counts = _cells(coordinates, cells, members)
    if not len(places):
        raise ArgumentError(
            f"No cell has {members} of the {len(samples)} images: take more images, fewer cells than {cells} x {cells}, or "
            "fewer members."
        )
    means, logits = (_means(values, owner, len(places)) for values in (samples.vectors, samples.logits))
    wanted = whiten_with_ridge(means, samples.vectors) if whiten else means
    goal = direction(samples.layer, wanted, cossim_power=cossim_power)
    made = visualize(
        model,
        goal,
        size=tile + 2 * BORDER,
        steps=steps,
        seed=seed,
        out=None if folder is None else folder / "cells",
        overwrite=overwrite,
        **options,
    )
    pictures = np.asarray(made.images)[:, 0, BORDER:-BORDER, BORDER:-BORDER]
    return ActivationAtlas(
        samples.layer, samples, coordinates, cells, owner, places, counts, means, logits, pictures, model.class_names
    )


def lay_out(vectors: np.ndarray, layout: Layout, seed: int) -> np.ndarray:
    """Return where vectors (N, C) lie on a plane, float32 (N, 2)."""
    if isinstance(layout, str):
        if layout == "pca":
            return pca(vectors, 2).transform(vectors)
        if layout == "tsne":
            return tsne(vectors, perplexity=min(30.0, max(1.0, (len(vectors) - 1) / 3)), seed=seed)
        raise ArgumentError(f"A layout is 'tsne', 'pca' or coordinates (N, 2); got {layout!r}.")
    given = np.asarray(layout, np.float32)
    if given.shape != (len(vectors), 2) or not np.isfinite(given).all():
        raise ArgumentError(f"Expected finite coordinates ({len(vectors)}, 2), one for each sample; got {given.shape}.")
    return given


def _cells(coordinates: np.ndarray, cells: int, members: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the cells with enough members, int32 (M, 2), each image's among these or -1, (N,), and how many each has, (M,)."""
    low, high = np.percentile(coordinates.astype(np.float64), [RIM, 100 - RIM], axis=0)
    share = (coordinates - low) / np.where(high > low, high - low, 1)
    within = ((share >= 0) & (share <= 1)).all(1)
    at = np.minimum((np.clip(share, 0, 1) * cells).astype(int), cells - 1)
    number = np.where(within, at[:, 1] * cells + at[:, 0], cells * cells)  # row by row; y is the second coordinate
    counts = np.bincount(number, minlength=cells * cells + 1)[:-1]
    kept = np.flatnonzero(counts >= members)
    new = np.full(cells * cells + 1, -1)
    new[kept] = np.arange(len(kept))
    return np.stack(np.divmod(kept, cells), -1).astype(np.int32), new[number].astype(np.int32), counts[kept].astype(np.int32)


def _means(values: np.ndarray, owner: np.ndarray, count: int) -> np.ndarray:
    """Return the mean of the values (N, C) of each of some groups, float32 (count, C)."""
    sums = np.zeros((count, values.shape[1]))
    np.add.at(sums, owner[owner >= 0], values[owner >= 0])
    return (sums / np.bincount(owner[owner >= 0], minlength=count)[:, None]).astype(np.float32)
