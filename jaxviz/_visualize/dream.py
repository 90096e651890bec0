"""DeepDream: amplify what a network responds to in a photo."""

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
from jaxviz._visualize.run import layer_names
from jaxviz._visualize.visualize import visualize
from jaxviz.models import Model
from jaxviz.objectives import Objective
from jaxviz.objectives._match import as_images
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
    """Amplify what layers respond to in photos, from coarse to fine (Mordvintsev et al. 2015, "Inceptionism").

    Gradient ascent on the mean square of layers' activations, starting from the photo at a small size. At the next octave, the
    change so far is enlarged and added to the photo at that size, which restores the photo's detail. In each step the image is
    rolled by a random distance (and the gradient back). The gradient is smoothed by the mean of three Gaussians (sigma / 2,
    sigma and 2 sigma) and standardized: each color to mean 0, which avoids a color cast, and all colors together to standard
    deviation 1, so the learning rate is in units of [0, 1] for every layer.

    Other implementations increase sigma over the steps of an octave, with larger steps. On the bundled network a constant 0.5
    reached higher scores and kept the photo's shapes; a learning rate of 0.02 instead of 0.006 saturated the colors.

    Args:
        model: the network.
        images: float32 (N, H, W, C) in [0, 1], or (H, W, C) for one.
        objective: the name of a layer, or several, whose mean squares are averaged; or any objective, such as
            `jv.channel("layer3", 7)`, with one unit or one for each photo.
        octaves: number of sizes, each `ratio` times the one before; the last is the photo's.
        ratio: above 1.
        steps: steps of ascent at each octave.
        learning_rate: change of a pixel in a step, in standard deviations of the gradient; traced.
        roll: the largest roll in pixels; traced.
        smoothing: sigma in pixels, at least 0.
        size: photos are resized to it; None for their own size.
        **options: as for `visualize`.

    Returns:
        A `Result` of N units, labels such as `"layer3 square, 0"`.

    Raises:
        ArgumentError: images of another shape or range, octaves too small for the network, numbers out of range.
        LayerError: a layer that the network does not have.

    >>> jv.deepdream(model, photos, "layer3", octaves=2, steps=1).labels
    ('layer3 square, 0', 'layer3 square, 1')
    """
    photos = as_images(images)
    photos = photos if photos.ndim == 4 else photos[None]
    for name, value, least in (("octaves", octaves, 1), ("steps", steps, 1)):
        if value != int(value) or value < least:
            raise ArgumentError(f"{name} must be a whole number of at least {least}; got {value!r}.")
    if not ratio > 1 or not smoothing >= 0:
        raise ArgumentError(f"ratio must be above 1 and smoothing at least 0; got {ratio!r} and {smoothing!r}.")
    maximized = objective if isinstance(objective, Objective) else _squares(objective)
    result = visualize(
        model,
        # A weight of 1 for each photo turns an objective of one unit into as many units as photos.
        np.ones(len(photos), np.float32) * maximized if len(photos) > 1 else maximized,
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
    names = maximized.bind(model, result.images.shape[2:4]).labels(model)
    labels = tuple(f"{names[i if len(names) > 1 else 0]}, {i}" for i in range(len(result)))
    return dataclasses.replace(result, labels=labels)


def dream_ascent(learning_rate: float | ArrayLike, *, smoothing: float) -> optax.GradientTransformation:
    """Return the optimizer of `deepdream`: steps along the smoothed, standardized gradient (H, W, C)."""

    def update(gradient: Array, params: Array | None = None) -> Array:
        smooth = sum((gaussian_blur(gradient, smoothing * factor) for factor in (0.5, 1, 2)), jnp.zeros_like(gradient))
        smooth = smooth - smooth.mean((0, 1), keepdims=True)
        deviation = jnp.sqrt(jnp.maximum(jnp.square(smooth).mean(), 1e-30))  # a zero gradient stays zero
        return jnp.asarray(-learning_rate * smooth / deviation)

    return optax.stateless(update)  # type: ignore[arg-type]


def _squares(layers: str | Sequence[str]) -> Objective:
    names = layer_names(layers, "an objective, the name of a layer or a list of names")
    return reduce(add, (objectives.layer(name, "square") for name in names)) / len(names)
