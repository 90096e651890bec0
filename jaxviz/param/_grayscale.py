"""Images without color."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax.numpy as jnp

from jaxviz._pytree import pytree
from jaxviz._types import Array, PyTree
from jaxviz.param._base import Param, Shape, as_base, check_image, check_shape, enlarge, known_shape
from jaxviz.param._fourier import fourier


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Grayscale:
    """Returned by `grayscale`; the parameters are those of `base`, for one channel."""

    base: Param
    channels: int | None = dataclasses.field(metadata=dict(static=True))

    @property
    def shape(self) -> Shape | None:
        shape = self.base.shape
        return None if shape is None or self.channels is None else (shape[0], shape[1], self.channels)

    def with_shape(self, shape: Sequence[int]) -> Grayscale:
        checked = check_shape(shape)
        if checked is None:
            return dataclasses.replace(self, channels=None)
        h, w, c = checked
        return Grayscale(self.base.with_shape((h, w, 1)), c)

    def init(self, key: Array) -> PyTree:
        known_shape(self)
        return self.base.init(key)

    def decode(self, params: PyTree) -> Array:
        return jnp.broadcast_to(self.base.decode(params), known_shape(self))

    def project(self, params: PyTree) -> PyTree:
        return self.base.project(params)

    def encode(self, image: Array) -> PyTree:
        return self.base.encode(check_image(image, known_shape(self)).mean(-1, keepdims=True))

    def enlarged(self, params: PyTree, new: Grayscale) -> PyTree:
        return enlarge(self.base, new.base, params)


def grayscale(base: Param | Callable[[], Param] | None = None) -> Grayscale:
    """Parameterize an image without color: one channel of another parameterization, repeated in all channels.

    Lucid's `grayscale_image_rgb`. `encode` averages an image's channels.

    Args:
        base: parameterization of the one channel; None for `fourier()`.

    Raises:
        ArgumentError: `base` is not a parameterization, or is `shared`, which must be the outermost.

    Example:
        >>> import jax
        >>> param = grayscale(fourier(decay=1.0)).with_shape((4, 6, 3))
        >>> image = param.decode(param.init(jax.random.key(0)))
        >>> image.shape, bool((image[..., 0] == image[..., 2]).all())
        ((4, 6, 3), True)
    """
    param = as_base(base, fourier)
    gray = Grayscale(param, None)
    return gray if param.shape is None else gray.with_shape(param.shape)
