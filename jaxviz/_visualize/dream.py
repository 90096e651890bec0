"""DeepDream: a photo in which a network sees more and more of what it knows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial, reduce
from operator import add
from typing import Unpack

import jax.numpy as jnp
import numpy as np
import optax

from jaxviz import objectives
from jaxviz._blur import gaussian_blur
from jaxviz._errors import ArgumentError
from jaxviz._types import Array, ArrayLike
from jaxviz._visualize.options import DreamOptions, show_options
from jaxviz._visualize.visualize import visualize
from jaxviz.models import Model
from jaxviz.objectives import Objective
from jaxviz.param import pixel
from jaxviz.result import Result
from jaxviz.transforms import roll as rolled


@show_options(DreamOptions)
def deepdream(
    model: Model,
    images: ArrayLike,
    objective: Objective | str | Sequence[str],
    *,
    octaves: int = 4,
    ratio: float = 1.4,
    steps: int = 10,
    learning_rate: float | ArrayLike = 0.006,
    roll: int = 32,
    smoothing: float = 0.5,
    size: int | tuple[int, int] | None = None,
    **options: Unpack[DreamOptions],
) -> Result:
    """Amplify what layers see in photos, from coarse to fine (Mordvintsev et al. 2015, "Inceptionism").

    Gradient ascent on the mean square of layers' activations, starting from the photo at a small size. At the next octave,
    what was added is enlarged and laid on the photo of that size, so that its own detail comes back. At each step the image is
    rolled by a random distance (and its gradient rolled back); the gradient is smoothed by the mean of three Gaussians (sigma
    / 2, sigma and 2 sigma), and standardized: each color to mean 0, so that no cast grows, and all together to standard
    deviation 1, so that the learning rate is in units of [0, 1] whatever the layer.

    Others let sigma grow over the steps of an octave, and move further at each. On the bundled network a constant 0.5 reached
    higher scores and kept the photo's shapes; 0.02 a step instead of 0.006 saturated the colors.

    Args:
        model: the network.
        images: float32 (N, H, W, C) in [0, 1], or (H, W, C) for one.
        objective: the name of a layer, or several, whose mean squares are averaged; or any objective, such as
            `jv.channel("layer3", 7)`, with one unit or one for each photo.
        octaves: sizes, each `ratio` times the one before; the last is the photo's.
        ratio: above 1.
        steps: of ascent at each octave.
        learning_rate: how far a step moves a pixel, in standard deviations of the gradient; traced.
        roll: pixels at most by which the image is rolled; traced.
        smoothing: sigma in pixels, at least 0.
        size: photos are resized to it; None for their own size.
        **options: as for `iter_visualize`: `out`, `seed`, `samples`, `mesh`, `chunk`, `precision`, `progress`, ...

    Returns:
        A `Result` of N units, labels such as `"layer3 square, 0"`.

    Raises:
        ArgumentError: images of another shape or range, octaves that are too small for the network, wrong numbers.
        LayerError: a layer that the network does not have.

    >>> deepdream(model, photo, "layer3").save("out")
    """
    photos = objectives.as_images(images)
    photos = photos if photos.ndim == 4 else photos[None]
    for name, value, least in (("octaves", octaves, 1), ("steps", steps, 1)):
        if value != int(value) or value < least:
            raise ArgumentError(f"{name} must be a whole number of at least {least}; got {value!r}.")
    if not ratio > 1 or not smoothing >= 0:
        raise ArgumentError(f"ratio must be above 1 and smoothing at least 0; got {ratio!r} and {smoothing!r}.")
    wanted = objective if isinstance(objective, Objective) else _squares(objective)
    result = visualize(
        model,
        # An objective of one unit is not repeated by itself: a weight of 1 for each photo makes it as many pieces of work.
        np.ones(len(photos), np.float32) * wanted if len(photos) > 1 else wanted,
        param=pixel,
        transforms=rolled(roll),
        optimizer=partial(dream_ascent, smoothing=float(smoothing)),
        learning_rate=learning_rate,
        steps=int(octaves) * int(steps),
        scales=[ratio**-i for i in reversed(range(int(octaves)))],
        size=photos.shape[1:3] if size is None else size,
        start=photos if len(photos) > 1 else photos[0],
        **options,
    )
    name = wanted.bind(model, result.images.shape[2:4]).labels(model)
    labels = tuple(f"{name[i if len(name) > 1 else 0]}, {i}" for i in range(len(result)))
    return dataclasses.replace(result, labels=labels)


def dream_ascent(learning_rate: float | ArrayLike, *, smoothing: float) -> optax.GradientTransformation:
    """Return the optimizer of `deepdream`: steps of the smoothed, standardized gradient, (H, W, C)."""

    def update(gradient: Array, params: Array | None = None) -> Array:
        smooth = sum((gaussian_blur(gradient, smoothing * factor) for factor in (0.5, 1, 2)), jnp.zeros_like(gradient))
        smooth = smooth - smooth.mean((0, 1), keepdims=True)
        deviation = jnp.sqrt(jnp.maximum(jnp.square(smooth).mean(), 1e-30))  # a gradient of zeros stays one
        return jnp.asarray(-learning_rate * smooth / deviation)

    return optax.stateless(update)  # type: ignore[arg-type]


def _squares(layers: str | Sequence[str]) -> Objective:
    names = (layers,) if isinstance(layers, str) else tuple(layers)
    if not names or not all(isinstance(name, str) for name in names):
        raise ArgumentError(f"Expected an objective, the name of a layer or a list of names; got {layers!r}.")
    return reduce(add, (objectives.layer(name, "square") for name in names)) / len(names)
