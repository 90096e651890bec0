"""Images computed by a small network from coordinates."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._pytree import leaf, pytree
from jaxviz._types import Array
from jaxviz.param._base import Param, Shape, check_shape, known_shape, normal

Layers = tuple[tuple[Array, Array], ...]


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Cppn:
    """Returned by `cppn`; the parameters are a pair (weights, biases) for each layer, independent of the image's size."""

    sd: Array
    shape: Shape | None = dataclasses.field(metadata=dict(static=True))
    hidden: int = dataclasses.field(metadata=dict(static=True))
    layers: int = dataclasses.field(metadata=dict(static=True))
    radius: bool = dataclasses.field(metadata=dict(static=True))

    def with_shape(self, shape: Sequence[int]) -> Cppn:
        return dataclasses.replace(self, shape=check_shape(shape))

    def init(self, key: Array) -> Layers:
        channels = known_shape(self)[2]
        fan_in = [3 if self.radius else 2] + [2 * self.hidden] * (self.layers - 1)
        layers: list[tuple[Array, Array]] = []
        for n, layer_key in zip(fan_in, jax.random.split(key, self.layers), strict=True):
            weights, biases = jnp.split(normal(layer_key, (n + 1, self.hidden)), [n])
            layers.append((self.sd / np.float32(np.sqrt(n)) * weights, np.float32(0.1) * self.sd * biases[0]))
        last = jnp.zeros((2 * self.hidden, channels), jnp.float32), jnp.zeros(channels, jnp.float32)
        return *layers, last

    def decode(self, params: Layers) -> Array:
        *layers, (weights, biases) = params
        x = self._coordinates()
        for w, b in layers:
            a = jnp.arctan(x @ w + b)
            x = jnp.concatenate([a / 0.67, a * a / 0.6], -1)
        return jax.nn.sigmoid(x @ weights + biases)

    def project(self, params: Layers) -> Layers:
        return params

    def encode(self, image: Array) -> Layers:
        raise ArgumentError("A CPPN cannot start from an image: its weights for it are unknown. Use fourier or pixel.")

    def enlarged(self, params: Layers, new: Param) -> Layers:
        return params

    def _coordinates(self) -> np.ndarray:
        h, w, _ = known_shape(self)
        unit = 2 * np.sqrt(3) / max(h, w)
        y, x = [(np.arange(n) - (n - 1) / 2) * unit for n in (h, w)]
        places = np.stack(np.broadcast_arrays(x[None, :], y[:, None]), -1)
        if self.radius:
            places = np.concatenate([places, np.linalg.norm(places, axis=-1, keepdims=True)], -1)
        return places.astype(np.float32)


def cppn(
    shape: Sequence[int] | None = None, *, hidden: int = 24, layers: int = 8, radius: bool = False, sd: float = 1.0
) -> Cppn:
    """Parameterize an image by the weights of a small network that maps a pixel's coordinates to its color.

    A compositional pattern producing network (Mordvintsev et al. 2018, "Differentiable Image Parameterizations"), in
    the form of Lucid's `cppn`: each layer is a product with weights and the activation

        x -> [atan(x) / 0.67, atan(x)^2 / 0.6]      both parts have mean square 1 for x ~ N(0, 1)

    and the last is a product and a sigmoid. Weights start as N(0, sd^2 / fan-in), biases as N(0, (0.1 sd)^2), the last layer
    as 0, so the image starts gray. Coordinates are those of the pixels' centers; the longer side spans -sqrt(3) to sqrt(3).
    The same parameters give the picture at any size. Every image has its own weights (in Lucid a batch shares them).

    Pictures are smooth shapes of flat color without fine texture, good for classes and deep units. Use `learning_rate=0.003`
    and at least 200 steps: on the bundled network at 64 pixels, classes and layer3 then score as high as with `fourier` in 64
    steps. With 0.01 and above, the picture soon becomes one flat color.

    Args:
        shape: (H, W, C) of the image; None to set it later with `with_shape`, as `visualize` does.
        hidden: width of a layer before the activation doubles it.
        layers: number of layers before the last, at least 1.
        radius: whether the distance from the center is a third coordinate.
        sd: scale of the initial weights, at least 0; larger gives busier pictures.

    Raises:
        ArgumentError: a wrong shape, hidden, layers or sd; always from `encode`: an image has no known weights.

    Example:
        >>> import jax
        >>> small = cppn((16, 16, 3))
        >>> params = small.init(jax.random.key(0))
        >>> small.decode(params).shape, small.with_shape((64, 48, 3)).decode(params).shape
        ((16, 16, 3), (64, 48, 3))
    """
    for name, value in (("hidden", hidden), ("layers", layers)):
        if value != int(value) or value < 1:
            raise ArgumentError(f"{name} must be a whole number of at least 1, got {value!r}.")
    return Cppn(leaf(sd, "sd", low=0), check_shape(shape), int(hidden), int(layers), bool(radius))
