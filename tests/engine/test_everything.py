"""Every objective, parameterisation, transform and regulariser in the engine: batching never shows, one trace, and it rises."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxviz as jv
from jaxviz.objectives import gram, whiten
from tests.contracts import check_run
from tests.tiny import random_images, tiny_model

MODEL = tiny_model()
PHOTOS = random_images(3, 16, 16, 3) * 0.5 + 0.25
RNG = np.random.default_rng(0)
VECTORS = RNG.uniform(size=(3, 8)).astype(np.float32)
PATCHES = RNG.uniform(size=(3, 2, 2, 8)).astype(np.float32)
SAMPLES = RNG.normal(size=(50, 8)) + 1
FEATURES = {name: np.asarray(value) for name, value in MODEL.activations(PHOTOS, ["relu", "relu_1"]).items()}
OPTIONS: dict[str, Any] = {"steps": 12, "size": 16, "samples": 2, "learning_rate": 0.05, "transforms": ()}
# Where a gradient is rounding alone, Adam makes a whole step of its sign: nothing that two programs could agree on.
OPTIONS["optimizer"] = functools.partial(optax.adam, eps=1e-5)
DARK = np.full((16, 16, 3), 0.3, np.float32)
WEIGHTS = np.array([1.0, 2.0, 3.0], np.float32)  # makes three units of an objective that has one


def contrast(acts: Any, images: Any) -> Any:
    return acts["relu_1"][..., 3].mean((1, 2)) * images.std((1, 2, 3))


def darken(key: Any, image: Any) -> Any:
    return image * jax.random.uniform(key, minval=0.9, maxval=1.0)


# Name -> the objective, three units of it, with an amount that may vary without another program.
OBJECTIVES: dict[str, Callable[[float], Any]] = {
    "channel": lambda a: jv.channel("relu_1", [1, 4, int(6 + a)]),
    "neuron": lambda a: jv.neuron("relu", [1, 2, 5], y=[1, 2, int(2 + a)], x=int(a)),
    "the neuron in the centre": lambda a: jv.neuron("relu_1", [1, 2, int(4 + a)]),
    "layer, mean": lambda a: a * WEIGHTS * jv.layer("relu"),
    "layer, square (DeepDream)": lambda a: a * WEIGHTS * jv.layer("relu_1", "square"),
    "layer, norm": lambda a: a * WEIGHTS * jv.layer("conv2", "norm"),
    "logit": lambda a: jv.logit(["tench", "church", "gas pump"] if a == 1 else [4, 1, 0]),
    "direction": lambda a: jv.direction("relu", a * VECTORS, cossim_power=a),
    "weighted channels": lambda a: jv.direction("relu", np.eye(8)[:3] * a - 0.2),
    "direction at a position": lambda a: jv.direction_neuron("relu", a * VECTORS, y=int(a), x=3, cossim_power=a),
    "tensor direction": lambda a: jv.tensor_direction("relu", a * PATCHES, cossim_power=1),
    "whitened direction": lambda a: jv.direction("relu", a * whiten(VECTORS, SAMPLES), cossim_power=2),
    "interpolation": lambda a: jv.interpolate(jv.channel("relu_1", [1, 2, 3]), a * jv.channel("relu", [4, 5, 6])),
    "alignment": lambda a: jv.channel("relu_1", [1, 4, 7]) + 0.1 * a * jv.alignment("relu", 1 + a),
    "diversity": lambda a: jv.channel("relu_1", [1, 4, 7]) - 0.1 * a * jv.diversity("relu"),
    "diverse": lambda a: jv.diverse(jv.channel("relu_1", [1, 4, 7]), "relu", weight=0.3 * a),
    "negative": lambda a: -a * jv.channel("conv2", [1, 4, 7]),
    "sum and product of scores": lambda a: jv.channel("relu_1", [1, 4, 7]) * jv.layer("relu") - 0.1 * a * jv.layer("conv1"),
    "all combinations": lambda a: jv.product(jv.channel("relu_1", [1, 2]), a * jv.channel("relu", [4, 5])),
    "features": lambda a: jv.match("relu", a * FEATURES["relu"]),
    "features, cosine": lambda a: jv.match("relu_1", a * FEATURES["relu_1"], distance="cosine"),
    "features, Lucid's dot": lambda a: jv.match("relu", a * FEATURES["relu"], distance="dot", cossim_power=a),
    "an image's features": lambda a: jv.match_image("relu", PHOTOS / a),
    "an image": lambda a: jv.near(PHOTOS / a),
    "style": lambda a: jv.style("relu", PHOTOS / a),
    "Gram matrices": lambda a: jv.style("relu", grams=gram(jnp.asarray(a * FEATURES["relu"]))),
    "a function": lambda a: a * WEIGHTS * jv.objectives.from_function(contrast),
}
PARAMS: dict[str, Callable[[float], Any]] = {
    "pixel": lambda a: jv.param.pixel(sd=0.1 * a),
    "fourier": lambda a: jv.param.fourier(decay=a, desaturation=a),
    "laplacian": lambda a: jv.param.laplacian(levels=3, sd=0.1 * a),
    "low resolution": lambda a: jv.param.low_resolution(factor=2, sd=0.1 * a),
    "cppn": lambda a: jv.param.cppn(hidden=6, layers=2, sd=a),
    "maco": lambda a: jv.param.maco(contrast=a, slopes=a),
    "ball": lambda a: jv.param.ball(PHOTOS[int(a)], 0.1 * a, "l2"),
    "alpha": lambda a: jv.param.alpha(jv.param.fourier(decay=a)),
    "grayscale": lambda a: jv.param.grayscale(jv.param.pixel(sd=0.1 * a)),
    "shared": lambda a: jv.param.shared(jv.param.fourier(decay=a), amount=a),
}
T, R = jv.transforms, jv.regularizers
TRANSFORMS: dict[str, Callable[[float], Any]] = {
    "motions": lambda a: [T.pad(2, 0.1), T.jitter(int(a)), T.scale(1 - 0.1 * a, 1.1), T.rotate(5 * a), T.crop(16)],
    "box crops, colours": lambda a: [T.random_resized_crop(16, (0.5, 0.9)), T.color_jitter(0.1, 0.1, 0.1, 0.1 * a)],
    "flip, roll, blur, noise": lambda a: [T.flip(0.3 * a), T.roll(int(2 * a)), T.blur(0.1, 0.5 * a), T.noise(0.02 * a, 0.01)],
    "standard, colour shift, a function": lambda a: [T.standard(), T.color_shift(0.02 * a, 0.1), darken],
}
REGULARIZERS: dict[str, Callable[[float], Any]] = {
    "norms": lambda a: [R.l1(1e-4 * a, 0.5), R.l2(1e-4, 0.5), R.p_norm(1e-4 * a, 2 + a), R.l_infinity(1e-3), R.near(DARK, 0.1)],
    "smoothness": lambda a: [
        R.total_variation(1e-5 * a),
        R.frequency_penalty(1e-4 * a, a),
        R.blur(1e-3 * a),
        R.boundary_complexity(1e-4 * a, 2),
    ],
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective(name: str) -> None:
    check_run(MODEL, [OBJECTIVES[name](a) for a in (1.0, 2.0)], **OPTIONS)


@pytest.mark.parametrize("name", PARAMS)
def test_param(name: str) -> None:
    options = OPTIONS | {"learning_rate": 0.02 if name in ("cppn", "ball") else 0.1}
    check_run(MODEL, [PARAMS[name](a) for a in (1.0, 2.0)], objective="relu_1:1,4,7", name="param", **options)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform(name: str) -> None:
    options = OPTIONS | {"steps": 40}
    check_run(MODEL, [TRANSFORMS[name](a) for a in (1.0, 2.0)], objective="relu_1:1,4,7", name="transforms", **options)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_regularizer(name: str) -> None:
    check_run(MODEL, [REGULARIZERS[name](a) for a in (1.0, 2.0)], objective="relu_1:1,4,7", name="regularizers", **OPTIONS)
