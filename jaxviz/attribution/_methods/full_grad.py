"""FullGrad: gradient x image, and gradient x bias of every layer that has one."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, TypeAlias, Unpack

import jax
import jax.numpy as jnp

from jaxviz import engine
from jaxviz._errors import ArgumentError
from jaxviz._pytree import pytree
from jaxviz._types import Array, ArrayLike
from jaxviz.attribution._attribution import Attribution, finished
from jaxviz.attribution._cam.layers import resized
from jaxviz.attribution._methods.gradient import pull_back
from jaxviz.attribution._target import AsTarget, Target, as_target, target_values
from jaxviz.engine import RunOptions
from jaxviz.models import Model
from jaxviz.models._network import Network
from jaxviz.ops import EXACT, Ops

Convention: TypeAlias = Literal["pytorch-grad-cam"] | None
_EPSILON = {None: 0.0, "pytorch-grad-cam": 1e-7}


class _Biased:
    """Operations that add a given array to the output of each layer with a bias, and keep the biases; for one trace."""

    def __init__(self, deltas: list[Array] | None) -> None:
        self._deltas = deltas
        self.shapes: list[tuple[int, ...]] = []
        self.biases: list[Array] = []

    def _note(self, y: Array, bias: Array) -> Array:
        self.shapes.append(y.shape)
        self.biases.append(bias)
        return y if self._deltas is None else y + self._deltas[len(self.shapes) - 1]

    def conv(self, x: Array, kernel: Array, bias: Array | None = None, **options: Any) -> Array:
        y = EXACT.conv(x, kernel, bias, **options)
        return y if bias is None else self._note(y, bias)

    def linear(self, x: Array, kernel: Array, bias: Array | None = None) -> Array:
        y = EXACT.linear(x, kernel, bias)
        return y if bias is None else self._note(y, bias)

    def batch_norm(self, x: Array, scale: Array, bias: Array, mean: Array, var: Array, *, epsilon: float = 1e-5) -> Array:
        y = EXACT.batch_norm(x, scale, bias, mean, var, epsilon=epsilon)
        return self._note(y, bias - mean * scale * jax.lax.rsqrt(var + epsilon))

    def table(self) -> Ops:
        return dataclasses.replace(EXACT, conv=self.conv, linear=self.linear, batch_norm=self.batch_norm)


@pytree
@dataclasses.dataclass(frozen=True)
class FullGrad:
    """The maps of the image and of all biases, summed: a program of the engine."""

    network: Network
    target: Target
    convention: Convention = dataclasses.field(default=None, metadata=dict(static=True))

    def __call__(self, items: dict[str, Any]) -> dict[str, Any]:
        images, index = items["images"], items["index"]
        size = (images.shape[1], images.shape[2])
        shapes = self._shapes(images, index)

        def scored(varied: tuple[Array, list[Array]]) -> tuple[Array, tuple[list[Array], Array | None]]:
            ops = _Biased(varied[1])
            scores, chosen = target_values(self.network, self.target, varied[0], index, ops=ops.table())
            return scores, (ops.biases, chosen)

        scores, pull, (biases, chosen) = jax.vjp(scored, (images, [jnp.zeros(s) for s in shapes]), has_aux=True)
        gradient, slopes = pull_back(pull, scores)
        total = gradient * (images - self.network.mean)[None]
        parts, maps = [total], {size: self._map(total)}
        for bias, slope in zip(biases, slopes, strict=True):
            part = bias * slope
            parts.append(part)
            if part.ndim == 5:  # fully connected layers have no positions
                # Enlarging is linear: channels, and layers of one size, are summed first, and enlarged once.
                place = part.shape[2:4]
                maps[place] = maps.get(place, 0) + self._map(part)
        made = sum((resized(one, size) for one in maps.values()), jnp.zeros(()))
        whole = sum((part.sum(tuple(range(2, part.ndim))) for part in parts), jnp.zeros(()))
        return {"maps": jnp.moveaxis(made, 0, 1), "scores": scores.T, "index": chosen, "delta": (whole - scores).T}

    def _shapes(self, images: Array, index: Array | None) -> list[tuple[int, ...]]:
        ops = _Biased(None)
        jax.eval_shape(
            lambda m, t, x, i: target_values(m, t, x, i, ops=ops.table())[0], self.network, self.target, images, index
        )
        return ops.shapes

    def _map(self, parts: Array) -> Array:
        """Return |parts| (K, n, h, w, C), each channel scaled to [0, 1] from its least to its most, summed: (K, n, h, w)."""
        size = jnp.abs(parts)
        size = size - size.min((2, 3), keepdims=True)
        most = size.max((2, 3), keepdims=True) + _EPSILON[self.convention]
        return (size / jnp.where(most > 0, most, 1)).sum(-1)


def full_grad(
    model: Model, images: ArrayLike, target: AsTarget = None, *, convention: Convention = None, **run: Unpack[RunOptions]
) -> Attribution:
    """Return FullGrad (Srinivas and Fleuret, 2019): gradient x image and gradient x bias of every layer, in one map.

    sum_c s(|x_c G_c|) + sum over convolutions with bias and batch normalizations, sum_c s(|b_c G_c|), where x is the image less
    the network's mean color, in units of its normalization or not, G the gradient at the layer's output, and s scales each
    channel to [0, 1] from its least to its most and enlarges it to the image. Never negative.

    Args:
        model: a network that computes through `ops`.
        images: float32 (N, H, W, C) in [0, 1].
        target: what is explained, see `attribute`.
        convention: `"pytorch-grad-cam"` adds 1e-7 to the divisor, which weakens channels whose largest value is as small as
            this.
        **run: see `jaxviz.engine.RunOptions`.

    Returns:
        `maps` float32 (N, H, W), or (N, K, H, W) for K targets. `delta`: the sum of all x G and b G before any scaling, those
        of linear layers too, less the score: 0 but for rounding where the target is a logit and the network has only ReLUs and
        max pooling between its linear operations.

    Raises:
        ArgumentError: images or target of a wrong shape or range.
        UnsupportedError: a network that does not compute through `ops`.

    >>> full_grad(model, images).maps.shape
    (2, 128, 128)
    """
    if convention not in _EPSILON:
        raise ArgumentError(f"A convention is None or 'pytorch-grad-cam'; got {convention!r}.")
    images = model.check_images(images)
    made, index = as_target(model, target, images)
    found = engine.map_images(FullGrad(model.network, made, convention), {"images": images, "index": index}, **run)
    return finished("full_grad", model, made, found, spatial=True, settings={"convention": convention})
