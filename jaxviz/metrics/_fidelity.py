"""Infidelity: does a map foretell by how much the score changes when the image is perturbed?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz import engine
from jaxviz._errors import ArgumentError
from jaxviz._pytree import as_static, leaf, pytree
from jaxviz._types import Array, ArrayLike
from jaxviz.attribution._baseline import Baseline, as_baselines
from jaxviz.attribution._target import AsTarget, Score, Target, target_values
from jaxviz.engine import RunOptions
from jaxviz.metrics._arguments import Maps, as_ids, as_question, chosen_classes, keys_of, repeated
from jaxviz.models import Model

Perturbation: TypeAlias = Literal["square", "noise"] | ArrayLike | Callable[[Array, Array], Array]

# Methods whose maps are slopes; those of all others already are products with what changed, the image less a baseline.
SLOPES = ("saliency", "guided_backprop", "deconvnet", "smoothgrad", "smoothgrad_squared", "vargrad", "")


@pytree
@dataclasses.dataclass(frozen=True)
class Perturb:
    """What a map foretells and what the score does, over random perturbations: a `Reduction` over them."""

    model: Model
    target: Target
    strength: Array  # the side of the square, or the standard deviation
    seed: Array
    samples: Array
    kind: Any = dataclasses.field(metadata=dict(static=True))
    multiplied: bool = dataclasses.field(metadata=dict(static=True))
    normalize: bool = dataclasses.field(metadata=dict(static=True))

    def start(self, items: dict[str, Any]) -> dict[str, Any]:
        index = chosen_classes(self.model, self.target, items["images"], items["index"])
        scores, _ = target_values(self.model, self.target, items["images"], index)
        return {"index": index, "scores": scores.T}

    def step(self, items: dict[str, Any], fixed: dict[str, Any], numbers: Array, valid: Array) -> dict[str, Array]:
        images, maps, s = items["images"], items["maps"], len(numbers)
        taken = self._taken(items, numbers)  # (s, n, H, W, C)
        index = repeated(fixed["index"], s)
        scores, _ = target_values(self.model, self.target, (images - taken).reshape(-1, *images.shape[1:]), index)
        change = fixed["scores"] - scores.T.reshape(s, *fixed["scores"].shape)
        if self.multiplied:  # such a map is of the whole way to the baseline: ask which share of the way was gone
            way = images - items["baseline"]
            taken = taken / jnp.where(way == 0, 1, way)
        if maps.shape[-1] == 1:
            # A map without colours tells of all channels together: a slope of their sum, or a share of the pixel.
            taken = taken.mean(-1, keepdims=True) if self.multiplied else taken.sum(-1, keepdims=True)
        foretold = jnp.einsum("snhwc,nkhwc->snk", taken, maps, precision="highest")
        weight = valid[:, None, None]
        return {
            "square": (weight * (foretold - change) ** 2).sum(0),
            "aa": (weight * foretold**2).sum(0),
            "ab": (weight * foretold * change).sum(0),
            "bb": (weight * change**2).sum(0),
        }

    def finish(self, items: dict[str, Any], fixed: dict[str, Any], sums: dict[str, Array]) -> Array:
        if not self.normalize:
            return sums["square"] / self.samples
        # The least of sum((beta a - b)^2) over beta.
        won = jnp.where(sums["aa"] > 0, sums["ab"] ** 2 / jnp.where(sums["aa"] > 0, sums["aa"], 1), 0)
        return jnp.maximum(sums["bb"] - won, 0) / self.samples

    def _taken(self, items: dict[str, Any], numbers: Array) -> Array:
        images = items["images"]
        n, h, w, c = images.shape
        if self.kind == "given":
            return jnp.moveaxis(items["given"][:, numbers], 1, 0)
        keys = keys_of(self.seed, items["ids"], numbers)
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
    ids: ArrayLike | None = None,
    baseline: Baseline = "mean",
    multiplied: bool | None = None,
    normalize: bool = False,
    score: Score = "logit",
    **run: Unpack[RunOptions],
) -> np.ndarray:
    """Return the mean of (I . map - (f(x) - f(x - I)))^2 over perturbations I (Yeh et al., 2019): less is better.

    Captum's `infidelity`, with perturbations drawn on the device.

    Args:
        model, images, maps, target, score: see `deletion`; here the default score is the logit, which maps are of. Maps are
            used with their colours; those without are taken for all channels alike.
        perturbation: `"square"` replaces a square at a random place by the baseline; `"noise"` takes Gaussian noise away;
            `fn(key, image) -> I`, of one image (H, W, C) and in pixels in [0, 1]; or an array of what is taken away,
            (samples, N, H, W, C).
        strength: the side of the square in pixels, a quarter of the image's shorter side unless given; or the standard
            deviation of the noise in [0, 1] units, 0.1 unless given.
        samples: how many perturbations.
        seed: of the perturbations.
        ids: int (N,), images with the same id get the same draws; all do unless given.
        baseline: of squares and of maps that are products, see `attribute`.
        multiplied: whether the maps are products of a slope and image less baseline, such as of integrated gradients; then I is
            divided by image less baseline, as Captum's decorator does. None: by the method that made them; False of arrays.
        normalize: scale each map by the factor that makes its infidelity least, so that its size does not matter.
        **run: see `jaxviz.engine.RunOptions`.

    Returns:
        float32 (N,), or (N, K) for K targets, in squared units of the score.

    Raises:
        ArgumentError: arguments that do not fit each other.

    >>> infidelity(model, images, input_x_gradient(model, images), normalize=True).shape
    (8,)
    """
    asked = as_question(model, images, maps, target, score)
    size = (asked.images.shape[1], asked.images.shape[2])
    lead = asked.maps.scores.ndim
    full = asked.maps if asked.maps.maps.shape[lead : lead + 2] == size else asked.maps.resize(size)
    values = full.maps[..., None] if full.spatial else full.maps
    items = asked.items(maps=values if full.many else values[:, None])
    items |= {"baseline": as_baselines(model, baseline, asked.images), "ids": as_ids(ids, len(asked.images))}
    kind: Any = perturbation
    if isinstance(perturbation, str):
        if perturbation not in ("square", "noise"):
            raise ArgumentError(f"A perturbation is 'square', 'noise', a function or an array; got {perturbation!r}.")
    elif callable(perturbation):
        kind = as_static(perturbation)
    else:
        given, kind = np.asarray(perturbation, np.float32), "given"
        if given.ndim != 5 or given.shape[1:] != asked.images.shape or not len(given):
            shape = ", ".join(map(str, asked.images.shape))
            raise ArgumentError(f"Expected perturbations (samples, {shape}); got {given.shape}.")
        samples, items["given"] = len(given), np.moveaxis(given, 0, 1)
    if samples < 1:
        raise ArgumentError(f"Expected at least 1 perturbation; got samples={samples}.")
    if strength is None:
        strength = 0.1 if kind == "noise" else max(1, round(min(size) / 4))
    if kind == "square" and not (strength == int(strength) and 1 <= strength <= min(size)):
        raise ArgumentError(f"Expected the side of a square from 1 to {min(size)} pixels; got {strength!r}.")
    program = Perturb(
        model.bare(),
        asked.target,
        leaf(strength, "strength", low=0.0),
        leaf(seed, "seed", dtype=np.int32),
        leaf(samples, "samples"),
        kind,
        asked.maps.method not in SLOPES if multiplied is None else bool(multiplied),
        bool(normalize),
    )
    return asked.shaped(engine.reduce_images(program, items, samples, **run))
