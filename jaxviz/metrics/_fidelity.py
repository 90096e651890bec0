"""Infidelity: how well a map predicts the change of the score under perturbations of the image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz import engine
from jaxviz._errors import ArgumentError
from jaxviz._pytree import as_static, leaf, pytree
from jaxviz._types import Array, ArrayLike
from jaxviz.attribution._baseline import Baseline, as_baselines
from jaxviz.attribution._sampling import as_count, as_ids, as_seed, draw_keys, repeated
from jaxviz.attribution._target import AsTarget, Score, Target, target_values
from jaxviz.engine import RunOptions
from jaxviz.metrics._arguments import Maps, as_question, chosen_classes
from jaxviz.models import Model
from jaxviz.models._network import Network

Perturbation: TypeAlias = Literal["square", "noise"] | ArrayLike | Callable[[Array, Array], Array]

# Methods whose maps are gradients; maps of all others are products with image minus baseline.
GRADIENTS = ("saliency", "guided_backprop", "deconvnet", "smoothgrad", "smoothgrad_squared", "vargrad", "")


@pytree
@dataclasses.dataclass(frozen=True)
class Perturb:
    """`Reduction` over perturbations: the change that a map predicts, and the change of the score."""

    network: Network
    target: Target
    strength: Array  # the side of the square, or the standard deviation
    seed: Array
    samples: Array
    kind: Any = dataclasses.field(metadata=dict(static=True))
    multiplied: bool = dataclasses.field(metadata=dict(static=True))
    normalize: bool = dataclasses.field(metadata=dict(static=True))

    def start(self, items: dict[str, Any]) -> dict[str, Any]:
        index = chosen_classes(self.network, self.target, items["images"], items["index"])
        scores, _ = target_values(self.network, self.target, items["images"], index)
        return {"index": index, "scores": scores.T}

    def step(self, items: dict[str, Any], fixed: dict[str, Any], numbers: Array, valid: Array) -> dict[str, Array]:
        images, maps, s = items["images"], items["maps"], len(numbers)
        taken = self._taken(items, numbers)  # (s, n, H, W, C)
        index = repeated(fixed["index"], s)
        scores, _ = target_values(self.network, self.target, (images - taken).reshape(-1, *images.shape[1:]), index)
        change = fixed["scores"] - scores.T.reshape(s, *fixed["scores"].shape)
        if self.multiplied:  # such a map belongs to the full difference to the baseline: take the share of it
            full = images - items["baseline"]
            taken = taken / jnp.where(full == 0, 1, full)
        if maps.shape[-1] == 1:
            # A map without color channels holds for all channels: a gradient of their sum, or a share of the pixel.
            taken = taken.mean(-1, keepdims=True) if self.multiplied else taken.sum(-1, keepdims=True)
        predicted = jnp.einsum("snhwc,nkhwc->snk", taken, maps, precision="highest")
        weight = valid[:, None, None]
        return {
            "square": (weight * (predicted - change) ** 2).sum(0),
            "aa": (weight * predicted**2).sum(0),
            "ab": (weight * predicted * change).sum(0),
            "bb": (weight * change**2).sum(0),
        }

    def finish(self, items: dict[str, Any], fixed: dict[str, Any], sums: dict[str, Array]) -> Array:
        if not self.normalize:
            return sums["square"] / self.samples
        # The minimum over beta of sum((beta a - b)^2).
        explained = jnp.where(sums["aa"] > 0, sums["ab"] ** 2 / jnp.where(sums["aa"] > 0, sums["aa"], 1), 0)
        return jnp.maximum(sums["bb"] - explained, 0) / self.samples

    def _taken(self, items: dict[str, Any], numbers: Array) -> Array:
        images = items["images"]
        n, h, w, c = images.shape
        if self.kind == "given":
            return jnp.moveaxis(items["given"][:, numbers], 1, 0)
        keys = draw_keys(self.seed, items["ids"], numbers)
        if self.kind == "noise":
            draws = jax.vmap(lambda key: jax.random.normal(key, (h * w * c,)))(keys.reshape(-1))
            return self.strength * draws.reshape(-1, n, h, w, c)
        if self.kind == "square":
            place = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys.reshape(-1)).reshape(-1, n, 2)
            first = jnp.floor(place * (jnp.array([h, w]) - self.strength + 1))[..., None]
            inside = [
                (jnp.arange(length) >= first[:, :, axis]) & (jnp.arange(length) < first[:, :, axis] + self.strength)
                for axis, length in enumerate((h, w))
            ]
            square = inside[0][..., :, None] & inside[1][..., None, :]
            return jnp.where(square[..., None], images - items["baseline"], 0)
        each = jax.vmap(self.kind)
        return jax.vmap(each, (0, None))(keys, images)


def infidelity(
    model: Model,
    images: ArrayLike,
    maps: Maps,
    target: AsTarget = None,
    *,
    perturbation: Perturbation = "square",
    strength: float | None = None,
    samples: int = 100,
    seed: int = 0,
    ids: ArrayLike | Sequence[int] | None = None,
    baseline: Baseline = "mean",
    multiplied: bool | None = None,
    normalize: bool = False,
    score: Score = "logit",
    **run: Unpack[RunOptions],
) -> np.ndarray:
    """Return the mean of (I . map - (f(x) - f(x - I)))^2 over perturbations I; lower is better (Yeh et al., 2019).

    Equals Captum's `infidelity`, with perturbations drawn on the device.

    Args:
        model, images, maps, target, score: see `deletion`; the default score is the logit, which maps explain by default. Maps
            keep their color channels; a map without them holds for all channels.
        perturbation: `"square"` replaces a square at a random place by the baseline; `"noise"` subtracts Gaussian noise;
            `fn(key, image) -> I` returns the difference to subtract from one image (H, W, C) in [0, 1]; an array
            (samples, N, H, W, C) holds these differences.
        strength: side of the square in pixels, by default a quarter of the image's shorter side; or standard deviation of the
            noise in units of the image in [0, 1], by default 0.1.
        samples: number of perturbations.
        seed: seed of the perturbations.
        ids: int (N,); images with the same id get the same perturbations. All images do by default.
        baseline: for squares, and for maps that are products, see `attribute`.
        multiplied: whether maps are products of a gradient and image minus baseline, as for integrated gradients; I is then
            divided by image minus baseline, as Captum's decorator does. None: known from the method; False for arrays.
        normalize: scale each map by the factor that minimizes its infidelity, so that its scale does not matter.
        **run: see `jaxviz.RunOptions`.

    Returns:
        float32 (N,), or (N, K) for K targets, in units of the score squared.

    Raises:
        ArgumentError: arguments that do not fit each other.

    >>> maps = jv.attribute(model, images, "input_x_gradient")
    >>> jv.metrics.infidelity(model, images, maps, samples=4, normalize=True).shape == (len(images),)
    True
    """
    question = as_question(model, images, maps, target, score)
    size = (question.images.shape[1], question.images.shape[2])
    lead = question.maps.scores.ndim
    full = question.maps if question.maps.maps.shape[lead : lead + 2] == size else question.maps.resize(size)
    values = full.maps[..., None] if full.spatial else full.maps
    items = question.items(maps=values if full.many else values[:, None])
    items |= {"baseline": as_baselines(model, baseline, question.images), "ids": as_ids(ids, len(question.images))}
    kind: Any = perturbation
    if isinstance(perturbation, str):
        if perturbation not in ("square", "noise"):
            raise ArgumentError(f"A perturbation is 'square', 'noise', a function or an array; got {perturbation!r}.")
    elif callable(perturbation):
        kind = as_static(perturbation)
    else:
        differences, kind = np.asarray(perturbation, np.float32), "given"
        if differences.ndim != 5 or differences.shape[1:] != question.images.shape or not len(differences):
            shape = ", ".join(map(str, question.images.shape))
            raise ArgumentError(f"Expected perturbations (samples, {shape}); got {differences.shape}.")
        samples, items["given"] = len(differences), np.moveaxis(differences, 0, 1)
    samples = as_count(samples, "samples")
    if strength is None:
        strength = 0.1 if kind == "noise" else max(1, round(min(size) / 4))
    if kind == "square" and not (strength == int(strength) and 1 <= strength <= min(size)):
        raise ArgumentError(f"Expected the side of a square from 1 to {min(size)} pixels; got {strength!r}.")
    program = Perturb(
        model.network,
        question.target,
        leaf(strength, "strength", low=0.0),
        as_seed(seed),
        leaf(samples, "samples"),
        kind,
        question.maps.method not in GRADIENTS if multiplied is None else bool(multiplied),
        bool(normalize),
    )
    return question.shaped(engine.reduce_images(program, items, samples, **run))
