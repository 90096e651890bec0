"""Gradient SHAP: expected gradients over random baselines, random places on the path and noise."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz import engine
from jaxviz._pytree import leaf, pytree
from jaxviz._types import Array, ArrayLike, PyTree
from jaxviz.attribution._attribution import Attribution, finished
from jaxviz.attribution._baseline import Baseline, as_baselines
from jaxviz.attribution._methods.gradient import gradients
from jaxviz.attribution._sampling import apart, as_count, as_ids, as_seed, draw_keys, evaluate, repeated, together, weighted_sum
from jaxviz.attribution._target import AsTarget, ClassTarget, Target, as_target
from jaxviz.engine import RunOptions
from jaxviz.models import Model, activations
from jaxviz.models._network import Network


def draws(keys: Array, shape: tuple[int, ...], baselines: int) -> tuple[Array, Array, Array]:
    """Return for keys (s, n) places in [0, 1] (s, n), which of the baselines int32 (s, n), and normal noise (s, n, *shape)."""
    low = float(np.nextafter(np.float32(-1), np.float32(0)))  # the inverse of the error function is infinite at -1

    def one(key: Array) -> tuple[Array, Array, Array]:
        # One draw for all three: each further one takes a second to compile.
        values = jax.random.uniform(key, (2 + math.prod(shape),), minval=low, maxval=1)
        place, which = (1 + values[0]) / 2, ((1 + values[1]) / 2 * baselines).astype(jnp.int32)
        noise = math.sqrt(2) * jax.scipy.special.erfinv(values[2:])
        return place, jnp.minimum(which, baselines - 1), noise.reshape(shape)

    return jax.vmap(jax.vmap(one))(keys)


@pytree
@dataclasses.dataclass(frozen=True)
class Known:
    """What has to be known of a baseline to score it for any image: its logits, or its scores where no class is chosen."""

    network: Network
    target: Target

    def __call__(self, items: dict[str, Array]) -> Array:
        if isinstance(self.target, ClassTarget):
            return activations(self.network, items["images"], ("output",))["output"]
        scores = evaluate(self.network, self.target, items["images"], None)["scores"]
        assert scores is not None
        return scores


@pytree
@dataclasses.dataclass(frozen=True)
class Shap:
    """Gradients at random places between random baselines and the noisy image: a program of the engine."""

    network: Network
    target: Target
    baselines: Array | None  # (B, H, W, C), drawn from; None: each image's own, in the items
    known: Array | None  # (B, classes) or (B, K), see `Known`
    noise: Array
    seed: Array
    samples: Array

    def start(self, items: dict[str, Any]) -> dict[str, Any]:
        found = evaluate(self.network, self.target, items["images"], items["index"])
        fixed = {"scores": found["scores"], "index": found["index"]}
        if self.baselines is None:
            fixed["ends"] = evaluate(self.network, self.target, items["baseline"], found["index"])["scores"]
        return fixed

    def step(self, items: dict[str, Any], fixed: dict[str, Any], numbers: Array, valid: Array) -> PyTree:
        s, images, index = len(numbers), items["images"], repeated(fixed["index"], len(numbers))
        count = 1 if self.baselines is None else len(self.baselines)
        place, which, noise = draws(draw_keys(self.seed, items["ids"], numbers), images.shape[1:], count)
        base = items["baseline"][None] if self.baselines is None else self.baselines[which]
        difference = images[None] + self.noise * noise - base
        seen = together(base + place[..., None, None, None] * difference)
        maps = apart(gradients(self.network, self.target, seen, index)[1], s, axis=1) * difference[None]
        sums = {"maps": jnp.swapaxes(weighted_sum(valid, maps, axis=1), 0, 1)}
        if self.known is not None:
            known = self.known[which]  # (s, n, ...)
            if isinstance(self.target, ClassTarget):
                known = apart(self.target.scores({"output": together(known)}, seen, index).T, s)
            sums["ends"] = weighted_sum(valid, known)
        return sums

    def finish(self, items: dict[str, Any], fixed: dict[str, Any], sums: dict[str, Array]) -> dict[str, Any]:
        maps = sums["maps"] / self.samples
        ends = fixed["ends"] if self.known is None else sums["ends"] / self.samples
        delta = maps.sum((2, 3, 4)) - (fixed["scores"] - ends)
        return {"maps": maps, "scores": fixed["scores"], "index": fixed["index"], "delta": delta}


def gradient_shap(
    model: Model,
    images: ArrayLike,
    target: AsTarget = None,
    *,
    baseline: Baseline = "mean",
    samples: int = 50,
    noise: float = 0.0,
    seed: int = 0,
    ids: ArrayLike | None = None,
    **run: Unpack[RunOptions],
) -> Attribution:
    """Return gradient SHAP, the mean of `(x + e - b) * df/dx(b + a (x + e - b))` (Lundberg and Lee, 2017; Erion et al., 2021).

    Each sample draws a in [0, 1], one of the baselines b and noise e. In the limit the map's sum is the score less the mean
    score of the baselines; `delta` is by how much it is not. One forward and one backward pass a sample.

    Args:
        model: any network or function.
        images: float32 (N, H, W, C) in [0, 1].
        target: what is explained, see `attribute`.
        baseline: B images (B, H, W, C) that every sample of every image draws from (photos, for instance), even where B is N;
            or whatever `attribute` takes for one baseline.
        samples: of each image.
        noise: standard deviation of e, in units of the image in [0, 1].
        seed: of the draws. An image's map is the same alone or in any batch.
        ids: whole numbers (N,), one for each image, for draws of its own; all images share theirs unless given.
        **run: see `jaxviz.engine.RunOptions`.

    Returns:
        `maps` float32 (N, H, W, C), signed, or (N, K, H, W, C) for K targets; `delta` (N,) or (N, K).

    Raises:
        ArgumentError: images, target, baseline or a number that do not fit.
    """
    samples = as_count(samples, "samples")
    images = model.check_images(images)
    made, index = as_target(model, target, images)
    many = not isinstance(baseline, str) and jnp.ndim(baseline) == 4
    given = as_baselines(model, baseline, images, sets=True)
    items: dict[str, Any] = {"images": images, "index": index, "ids": as_ids(ids, len(images))}
    if many:
        quiet: RunOptions = {**run, "progress": None}
        known = jnp.asarray(engine.map_images(Known(model.network, made), {"images": given}, **quiet))
    else:
        items["baseline"], known = given, None
    program = Shap(
        model.network,
        made,
        given if many else None,
        known,
        leaf(noise, "noise", low=0),
        as_seed(seed),
        leaf(samples, "samples"),
    )
    found = engine.reduce_images(program, items, samples, **run)
    settings = {"baseline": baseline, "samples": samples, "noise": noise, "seed": seed, "ids": ids}
    return finished("gradient_shap", model, made, found, spatial=False, settings=settings)
