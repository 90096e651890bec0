"""The programs of SmoothGrad and its kin: what they sum over noisy versions of images."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxviz._pytree import pytree
from jaxviz._types import Array, PyTree
from jaxviz.attribution._affine_prefix import at_stem, pull_to_images, stem_gradients
from jaxviz.attribution._sampling import apart, draw_keys, evaluate, repeated, together, weighted_sum
from jaxviz.attribution._target import Target
from jaxviz.models import activations
from jaxviz.models._network import Network
from jaxviz.ops import Ops

MEAN, MEAN_SQUARE, VARIANCE = range(3)


def noisy(images: Array, ids: Array | None, noise: Array, seed: Array, numbers: Array) -> Array:
    """Return images (n, H, W, C) with the normal noise of the samples `numbers` (s,) on them, (s, n, H, W, C).

    All images have the noise of the number 0, drawn once, where they have no `ids` (n,) of their own.
    """
    draw = jax.vmap(jax.vmap(lambda key: jax.random.normal(key, images.shape[1:])))
    keys = draw_keys(seed, jnp.zeros(1, jnp.int32) if ids is None else ids, numbers)
    return images[None] + noise * draw(keys)


@pytree
@dataclasses.dataclass(frozen=True)
class Noisy:
    """A statistic of a method's maps over noise: a program of the engine.

    Summed are the differences to the map of the image itself, and their squares: a small variance of large maps is not the
    difference of two large numbers.
    """

    inner: Any
    statistic: Array  # traced: all three are one program
    noise: Array
    seed: Array
    samples: Array
    absolute: bool = dataclasses.field(metadata=dict(static=True))

    def start(self, items: dict[str, Any]) -> dict[str, Any]:
        found = self._maps({name: value for name, value in items.items() if name != "ids"})
        return {name: found[name] for name in ("maps", "scores", "index")}

    def step(self, items: dict[str, Any], fixed: dict[str, Any], numbers: Array, valid: Array) -> PyTree:
        s = len(numbers)
        images = noisy(items["images"], items.get("ids"), self.noise, self.seed, numbers)
        rest = {name: value for name, value in items.items() if name not in ("images", "ids")}
        found = self._maps({**repeated({**rest, "index": fixed["index"]}, s), "images": together(images)})
        difference = apart(found["maps"], s) - fixed["maps"][None]
        return {"sum": weighted_sum(valid, difference), "squares": weighted_sum(valid, difference * difference)}

    def finish(self, items: dict[str, Any], fixed: dict[str, Any], sums: dict[str, Array]) -> dict[str, Any]:
        shift = sums["sum"] / self.samples
        mean = fixed["maps"] + shift
        variance = jnp.maximum(sums["squares"] / self.samples - shift * shift, 0)
        varied = jnp.where(self.statistic == VARIANCE, variance, variance + mean * mean)
        return {**fixed, "maps": jnp.where(self.statistic == MEAN, mean, varied)}

    def _maps(self, items: dict[str, Any]) -> dict[str, Any]:
        found = self.inner(items)
        return {**found, "maps": jnp.abs(found["maps"])} if self.absolute else found


@pytree
@dataclasses.dataclass(frozen=True)
class MeanGradient:
    """The mean of gradients over noise, through the stem of a network: a program of the engine.

    What noise adds to the stem's values is the same for all images that share it, and gradients are pulled through it once.
    """

    network: Network
    target: Target
    noise: Array
    seed: Array
    samples: Array
    stem: str = dataclasses.field(metadata=dict(static=True))
    ops: Ops = dataclasses.field(metadata=dict(static=True))

    def start(self, items: dict[str, Any]) -> dict[str, Any]:
        found, values = at_stem(self.network, self.target, self.stem, items["images"], items["index"], ops=self.ops)
        return {"scores": found["scores"], "index": found["index"], "values": values}

    def step(self, items: dict[str, Any], fixed: dict[str, Any], numbers: Array, valid: Array) -> Array:
        s, images, ids = len(numbers), items["images"], items.get("ids")
        if ids is None:
            black = jnp.zeros_like(images[:1])
            seen = jnp.concatenate([black, together(noisy(black, None, self.noise, self.seed, numbers))])
            values = self._values(seen)
            values = fixed["values"][None] + (values[1:] - values[:1])[:, None]
        else:
            values = apart(self._values(together(noisy(images, ids, self.noise, self.seed, numbers))), s)
        index, size = repeated(fixed["index"], s), images.shape[1:3]
        found = stem_gradients(self.network, self.target, self.stem, together(values), index, size, ops=self.ops)
        return jnp.swapaxes(weighted_sum(valid, apart(found, s, axis=1), axis=1), 0, 1)

    def finish(self, items: dict[str, Any], fixed: dict[str, Any], sums: Array) -> dict[str, Any]:
        maps = pull_to_images(self.network, self.stem, items["images"], sums / self.samples, ops=self.ops)
        return {"maps": maps, "scores": fixed["scores"], "index": fixed["index"]}

    def _values(self, images: Array) -> Array:
        return activations(self.network, images, (self.stem,), ops=self.ops)[self.stem]


@pytree
@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores and classes of images: a program of one evaluation."""

    network: Network
    target: Target

    def __call__(self, items: dict[str, Any]) -> dict[str, Any]:
        return evaluate(self.network, self.target, items["images"], items["index"])
