"""SmoothGrad and its kin: the mean, the mean square or the variance of a method's maps of noisy images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Unpack

import jax
import numpy as np

from jaxviz import engine
from jaxviz._pytree import leaf
from jaxviz._types import Array, ArrayLike
from jaxviz.attribution._affine_prefix import find_stem
from jaxviz.attribution._attribution import Attribution, finished
from jaxviz.attribution._methods.gradient import Gradient
from jaxviz.attribution._methods.integrated_gradients import Path
from jaxviz.attribution._methods.noise_tunnel import Inner, as_inner
from jaxviz.attribution._methods.smoothgrad_programs import MEAN, MEAN_SQUARE, VARIANCE, MeanGradient, Noisy, Scores, noisy
from jaxviz.attribution._sampling import as_count, as_ids, as_seed
from jaxviz.attribution._target import AsTarget, Target, as_target
from jaxviz.engine import RunOptions
from jaxviz.models import Model


class NoiseOptions(NamedTuple):
    """The options that SmoothGrad and its kin share; `smoothgrad` describes them."""

    inner: str
    inner_options: Mapping[str, Any] | None
    samples: int
    noise: float
    absolute: bool
    seed: int
    ids: ArrayLike | None


def smoothgrad(
    model: Model,
    images: ArrayLike,
    target: AsTarget = None,
    *,
    inner: str = "saliency",
    inner_options: Mapping[str, Any] | None = None,
    samples: int = 50,
    noise: float = 0.15,
    absolute: bool = False,
    seed: int = 0,
    ids: ArrayLike | None = None,
    **run: Unpack[RunOptions],
) -> Attribution:
    """Return the mean of a method's maps over noisy copies of the image (Smilkov et al., 2017).

    The class explained where `target` is None is the top class of the image without noise. Noise is not cut off at 0 and 1.
    One forward and one backward pass a sample; of a network's affine start, its first convolution, one backward pass in all.

    Args:
        model: any network or function.
        images: float32 (N, H, W, C) in [0, 1].
        target: what is explained, see `attribute`.
        inner: the method: `"saliency"`, `"input_x_gradient"`, `"guided_backprop"`, `"deconvnet"`, `"integrated_gradients"`, or
            a class activation map, `"grad_cam"` to `"grad_cam_elementwise"` (Smooth Grad-CAM, Omeiza et al., 2019).
        inner_options: its own, such as `{"baseline": "black", "steps": 20}` or `{"layer": "layer3"}`.
        samples: noisy copies of each image. Another number compiles nothing new.
        noise: standard deviation, in units of the image in [0, 1].
        absolute: of absolute maps, as Captum's `NoiseTunnel` over its `Saliency`.
        seed: of the noise. An image's map is the same alone or in any batch.
        ids: whole numbers (N,), one for each image, for noise of its own; all images share theirs unless given.
        **run: see `jaxviz.engine.RunOptions`.

    Returns:
        `maps` as those of the inner method: float32 (N, H, W, C), signed, or (N, K, H, W, C) for K targets; without the axis
        C for class activation maps.

    Raises:
        ArgumentError: images, target, method, option or a number that do not fit.
        UnsupportedError: an inner method that the network cannot take.

    >>> smoothgrad(model, images, inner="guided_backprop", samples=100, noise=0.1).maps.shape
    (2, 128, 128, 3)
    """
    options = NoiseOptions(inner, inner_options, samples, noise, absolute, seed, ids)
    return _smoothed("smoothgrad", MEAN, model, images, target, options, run)


def smoothgrad_squared(
    model: Model,
    images: ArrayLike,
    target: AsTarget = None,
    *,
    inner: str = "saliency",
    inner_options: Mapping[str, Any] | None = None,
    samples: int = 50,
    noise: float = 0.15,
    absolute: bool = False,
    seed: int = 0,
    ids: ArrayLike | None = None,
    **run: Unpack[RunOptions],
) -> Attribution:
    """Return the mean of the squares of a method's maps over noisy copies of the image (Hooker et al., 2019).

    Args, returns and raises as `smoothgrad`; the maps are at least 0.
    """
    options = NoiseOptions(inner, inner_options, samples, noise, absolute, seed, ids)
    return _smoothed("smoothgrad_squared", MEAN_SQUARE, model, images, target, options, run)


def vargrad(
    model: Model,
    images: ArrayLike,
    target: AsTarget = None,
    *,
    inner: str = "saliency",
    inner_options: Mapping[str, Any] | None = None,
    samples: int = 50,
    noise: float = 0.15,
    absolute: bool = False,
    seed: int = 0,
    ids: ArrayLike | None = None,
    **run: Unpack[RunOptions],
) -> Attribution:
    """Return the variance of a method's maps over noisy copies of the image (Adebayo et al., 2018), divided by their number.

    Args, returns and raises as `smoothgrad`; the maps are at least 0.
    """
    options = NoiseOptions(inner, inner_options, samples, noise, absolute, seed, ids)
    return _smoothed("vargrad", VARIANCE, model, images, target, options, run)


def _smoothed(
    method: str,
    statistic: int,
    model: Model,
    images: ArrayLike,
    target: AsTarget,
    options: NoiseOptions,
    run: RunOptions,
) -> Attribution:
    samples = as_count(options.samples, "samples")
    images = model.check_images(images)
    made, index = as_target(model, target, images)
    about = as_inner(options.inner, model, made, images, options.inner_options)
    items = {"images": images, "index": index, **about.items}
    if options.ids is not None:
        items["ids"] = as_ids(options.ids, len(images))
    noise, seed, count = leaf(options.noise, "noise", low=0), as_seed(options.seed), leaf(samples, "samples")
    program = Noisy(about.program, np.int32(statistic), noise, seed, count, bool(options.absolute))  # type: ignore[arg-type]
    if isinstance(about.program, Path):
        found = _over_paths(model, made, program, about, items, samples, run)
    else:
        if statistic == MEAN and not options.absolute and isinstance(about.program, Gradient) and not about.items:
            stem = find_stem(model.network, made, images.shape[1:3])
            if stem is not None:
                program = MeanGradient(model.network, made, noise, seed, count, stem, about.program.ops)
        found = engine.reduce_images(program, items, samples, **run)
    settings = {
        "inner": options.inner,
        "samples": samples,
        "noise": options.noise,
        "absolute": options.absolute,
        "seed": options.seed,
        "ids": options.ids,
        **(options.inner_options or {}),
    }
    return finished(method, model, made, found, spatial=about.spatial, settings=settings, layer=about.layer)


def _over_paths(
    model: Model, target: Target, program: Noisy, about: Inner, items: dict[str, Any], samples: int, run: RunOptions
) -> dict[str, Any]:
    """Return the statistic of maps that take a sum over steps each: one sample after the other, their moments on the host."""
    images, ids = items["images"], items.pop("ids", None)
    quiet: RunOptions = {**run, "progress": None}
    clean = engine.map_images(Scores(model.network, target), {"images": images, "index": items["index"]}, **quiet)
    mean, squares = np.float64(0), np.float64(0)  # Welford's recurrence
    for sample in range(samples):
        seen = _one_noisy(images, ids, program.noise, program.seed, np.asarray([sample], np.int32))
        given = {**items, "images": seen, "index": clean["index"]}
        maps = engine.reduce_images(about.program, given, about.steps, **run)["maps"].astype(np.float64)  # type: ignore[arg-type]
        maps = np.abs(maps) if program.absolute else maps
        shift = maps - mean
        mean = mean + shift / (sample + 1)
        squares = squares + shift * (maps - mean)
    variance = squares / samples
    maps = (mean, variance + mean * mean, variance)[int(program.statistic)]
    return {"maps": np.asarray(maps, np.float32), "scores": clean["scores"], "index": clean["index"]}


@jax.jit
def _one_noisy(images: Array, ids: Array | None, noise: Array, seed: Array, numbers: Array) -> Array:
    return noisy(images, ids, noise, seed, numbers)[0]
