"""Images optimized to match or exaggerate photos: feature inversion, caricatures, accentuation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np

from jaxviz import objectives, regularizers
from jaxviz._errors import ArgumentError
from jaxviz._types import Array, ArrayLike
from jaxviz._visualize.options import AccentuateOptions, CaricatureOptions, InvertOptions, show_options
from jaxviz._visualize.run import layer_names
from jaxviz._visualize.visualize import visualize
from jaxviz.models import Model, from_function
from jaxviz.objectives import ObjectiveLike
from jaxviz.objectives._match import as_images, fitted
from jaxviz.objectives._parse import as_objective
from jaxviz.param import Param, pixel
from jaxviz.regularizers import Regularizer
from jaxviz.result import Result
from jaxviz.transforms import Transform
from jaxviz.transforms import caricature as gentle

_CHUNK = 64  # images at once in plain forward passes
_SMALLEST_ERROR = 1e-10  # mean squared difference that counts as 100 dB


@dataclass(frozen=True, eq=False, repr=False)
class Inversion:
    """The result of `invert`: N images reconstructed from each of L layers, and their distances to the photos.

    Attributes:
        result: all samples, as a `Result` of L x N units with labels such as `"layer1:0"`; its `save` writes them.
        layers: L names.
        images: float32 (L, N, H, W, C) in [0, 1]; the nearest of several samples.
        distances: float32 (L, N), `|phi(x) - phi(photo)| / |phi(photo)|` of these images at their layer.
        psnr: float32 (L, N), peak signal-to-noise ratio of these images and the photos in dB, at most 100.
    """

    result: Result
    layers: tuple[str, ...]
    images: np.ndarray
    distances: np.ndarray
    psnr: np.ndarray

    def __repr__(self) -> str:
        means = zip(self.layers, self.distances.mean(1), self.psnr.mean(1), strict=True)
        return f"Inversion({'; '.join(f'{name}: distance {d:.2g}, {p:.1f} dB' for name, d, p in means)})"


@show_options(InvertOptions)
def invert(
    model: Model | Callable[[Array], Array],
    images: ArrayLike,
    layers: str | Sequence[str],
    *,
    distance: str = "l2",
    param: Param | Callable[[], Param] = pixel,
    transforms: Transform | Sequence[Transform] = (),
    regularizers: Regularizer | Sequence[Regularizer] | None = None,
    learning_rate: float | ArrayLike = 0.1,
    steps: int = 256,
    size: int | tuple[int, int] | None = None,
    names: Sequence[str] | None = None,
    **options: Unpack[InvertOptions],
) -> Inversion:
    """Reconstruct images from their activations (Mahendran and Vedaldi 2015): the result shows what a layer keeps.

    For each layer and photo, find an image x that minimizes `|phi(x) - phi(photo)|^2 / |phi(photo)|^2`, with phi the layer's
    activations, plus total variation. The paper's third term, a norm that keeps pixels in range, is not needed: images are in
    [0, 1] by construction. All images of a layer are one batch, and each layer is one program.

    The defaults were chosen on the bundled network: two photos of 128 pixels are reconstructed with 35 dB from `conv1`, and
    with 30, 23, 20 and 13 dB from `layer1` to `layer4`.

    Args:
        model: as in `visualize`.
        images: float32 (N, H, W, C) in [0, 1], or (H, W, C) for one.
        layers: one or more node or module names.
        distance: `"l2"`, or `"cosine"` or `"dot"`: see `jaxviz.objectives.match`.
        param: as in `visualize`. Plain pixels by default: for early layers they come nearer to the photo.
        transforms: none by default. The photo gets the same transforms in each step.
        regularizers: as in `visualize`; None for a total variation with weight 0.1, averaged over pixels.
        learning_rate: of the optimizer.
        steps: steps of gradient descent.
        size: photos are resized to it; None for their own size.
        names: of the images, for the labels; None for their numbers.
        **options: as for `visualize`. Random keys depend only on the seed and the sample.

    Returns:
        An `Inversion`.

    Raises:
        ArgumentError: images of another shape or range (NaN is out of range), no layers, or features that are all 0.
        LayerError: a layer that the network does not have.
        Interrupted: Ctrl-C; its `result` keeps the finished units.

    >>> inverted = jv.invert(model, photos, ["layer1", "layer2"], steps=1, size=32)
    >>> inverted.images.shape, inverted.psnr.shape
    ((2, 2, 32, 32, 3), (2, 2))
    """
    model, photos, height, width = _prepare(model, images, size)
    layers = layer_names(layers)
    labels = _labels(layers, _image_names(names, len(photos)))
    targets = _features(model, photos, layers)
    plain = isinstance(transforms, list | tuple) and not transforms
    result = visualize(
        model,
        [
            objectives.match(name, targets[name], distance=distance)
            if plain
            else objectives.match_image(name, photos, distance=distance)
            for name in layers
        ],
        param=param,
        transforms=transforms,
        regularizers=_smoothness(height, width) if regularizers is None else regularizers,
        learning_rate=learning_rate,
        steps=steps,
        size=(height, width),
        **options,
    )
    grid = result.images.reshape(len(layers), len(photos), *result.images.shape[1:])
    all_distances = np.stack([_distances(model, row, name, targets[name]) for name, row in zip(layers, grid, strict=True)])
    error = np.square(grid - photos[None, :, None]).mean((3, 4, 5))
    all_psnr = -10 * np.log10(np.maximum(error, _SMALLEST_ERROR)).astype(np.float32)
    best = all_distances.argmin(2)[..., None]
    distances, psnr = (np.take_along_axis(values, best, 2)[..., 0] for values in (all_distances, all_psnr))
    nearest = np.take_along_axis(grid, best[..., None, None, None], 2)[:, :, 0]
    how = {"layers": list(layers), "distance": distance, "distances": distances.tolist(), "psnr": psnr.tolist()}
    result = dataclasses.replace(result, labels=labels, settings={**result.settings, **how})
    return Inversion(result, layers, nearest, distances, psnr)


@show_options(CaricatureOptions)
def caricature(
    model: Model | Callable[[Array], Array],
    images: ArrayLike,
    layers: str | Sequence[str],
    *,
    cossim_power: float = 1.0,
    transforms: Transform | Sequence[Transform] | None = None,
    size: int | tuple[int, int] | None = None,
    names: Sequence[str] | None = None,
    **options: Unpack[CaricatureOptions],
) -> Result:
    """Exaggerate images: large activations in the direction of the photo's, as in Lucid's caricatures.

    Maximizes `phi(x) . phi(photo) * max(0.1, cosine) ** cossim_power`, with the same random transforms of both; see
    `jaxviz.objectives.match`.

    Args:
        model: as in `visualize`.
        images: float32 (N, H, W, C) in [0, 1], or (H, W, C) for one.
        layers: one or more node or module names.
        cossim_power: at least 0; larger is nearer to the photo and less exaggerated. Traced.
        transforms: None for those of Lucid's notebook, `jaxviz.transforms.caricature`.
        size: photos are resized to it; None for their own size.
        names: of the images, for the labels; None for their numbers.
        **options: as for `visualize`.

    Returns:
        A `Result` of L x N units, labels such as `"layer3:0"`.

    Raises:
        ArgumentError, LayerError, Interrupted: as for `invert`.

    >>> jv.caricature(model, photos, ["layer2", "layer3"], steps=1, size=32).labels
    ('layer2:0', 'layer2:1', 'layer3:0', 'layer3:1')
    """
    model, photos, height, width = _prepare(model, images, size)
    layers = layer_names(layers)
    labels = _labels(layers, _image_names(names, len(photos)))
    matches = [objectives.match_image(name, photos, distance="dot", cossim_power=cossim_power) for name in layers]
    transforms = gentle() if transforms is None else transforms
    result = visualize(model, matches, transforms=transforms, size=(height, width), **options)
    how = {"layers": list(layers), "cossim_power": float(cossim_power)}
    return dataclasses.replace(result, labels=labels, settings={**result.settings, **how})


@show_options(AccentuateOptions)
def accentuate(
    model: Model | Callable[[Array], Array],
    images: ArrayLike,
    objective: ObjectiveLike,
    *,
    penalty: float | None = None,
    layer: str | None = None,
    size: int | tuple[int, int] | None = None,
    names: Sequence[str] | None = None,
    **options: Unpack[AccentuateOptions],
) -> Result:
    """Accentuate what an objective responds to in images: gradient ascent that starts from the photo and stays near it.

    Maximizes `objective - penalty * d`. The distance d is the mean squared difference to the photo's pixels or, with `layer`,
    the relative squared difference of that layer's activations (`jaxviz.objectives.near` and `match_image`), with the same
    random transforms of both images.

    Args:
        model: as in `visualize`.
        images: float32 (N, H, W, C) in [0, 1], or (H, W, C) for one.
        objective: one for all images, or with one unit for each; any number of units for one image.
        penalty: weight of the distance, in units of the objective; traced. None for 100, or 3 with `layer`: chosen by eye on
            the bundled network (two photos, three objectives, `layer2`); other networks and objectives need other weights.
        layer: where the distance is measured; None for the pixels.
        size: photos are resized to it; None for their own size.
        names: of the images, for the labels; None for their numbers.
        **options: as for `visualize`, except `start`, which is the photo.

    Returns:
        A `Result` of N units (or K, for one image), labels such as `"layer4:7, 0"`; `scores` contain the penalty.

    Raises:
        ArgumentError, LayerError, Interrupted: as for `invert`.

    >>> jv.accentuate(model, photos, "layer4:7", steps=1, size=32).labels
    ('layer4:7, 0', 'layer4:7, 1')
    """
    model, photos, height, width = _prepare(model, images, size)
    names = _image_names(names, len(photos))
    start = photos[0] if len(photos) == 1 else photos
    objective = as_objective(objective)
    near = objectives.near(start) if layer is None else objectives.match_image(layer, start)
    weight = float((100.0 if layer is None else 3.0) if penalty is None else penalty)
    total = objective + weight * near
    units = objective.bind(model, (height, width)).labels(model)
    result = visualize(model, total, size=(height, width), start=start, **options)
    rows = range(len(result))
    labels = tuple(f"{units[i if len(units) > 1 else 0]}, {names[i if len(names) > 1 else 0]}" for i in rows)
    how = {"penalty": weight, "near": layer or "pixels"}
    return dataclasses.replace(result, labels=labels, settings={**result.settings, **how})


def _prepare(
    model: Model | Callable[[Array], Array], images: ArrayLike, size: int | tuple[int, int] | None
) -> tuple[Model, np.ndarray, int, int]:
    """Return the model, the photos (N, H, W, C) at the size of the run, and that size."""
    model = model if isinstance(model, Model) else from_function(model)
    photos = as_images(images)
    photos = photos if photos.ndim == 4 else photos[None]
    _, height, width, _ = photos.shape
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
    return model, fitted(photos, model, (height, width)), height, width


def _image_names(names: Sequence[str] | None, images: int) -> list[str]:
    labels = [str(i) for i in range(images)] if names is None else [str(name) for name in names]
    if len(labels) != images:
        raise ArgumentError(f"Expected a name for each of {images} images, got {len(labels)}.")
    return labels


def _labels(layers: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{layer}:{name}" for layer in layers for name in names)


def _features(model: Model, images: np.ndarray, layers: Sequence[str]) -> dict[str, np.ndarray]:
    parts = [model.activations(images[first : first + _CHUNK], layers) for first in range(0, len(images), _CHUNK)]
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in layers}


def _distances(model: Model, images: np.ndarray, layer: str, targets: np.ndarray) -> np.ndarray:
    """Return |phi(x) - t| / |t| for images (N, S, H, W, C) and targets (N, ...), (N, S)."""
    count, samples = images.shape[:2]
    features = _features(model, images.reshape(-1, *images.shape[2:]), [layer])[layer].reshape(count, samples, -1)
    targets = targets.reshape(count, 1, -1)
    return np.linalg.norm(features - targets, axis=-1) / np.linalg.norm(targets, axis=-1)


def _smoothness(height: int, width: int) -> Regularizer:
    return regularizers.total_variation(0.1 / (height * width))  # it is a sum over pixels, the distance a mean
