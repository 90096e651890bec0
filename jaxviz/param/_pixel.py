"""Images parameterized by their pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp

from jaxviz._pytree import leaf, pytree
from jaxviz._types import Array
from jaxviz.param._base import Shape, Squash, check_image, check_shape, check_squash, known_shape, normal
from jaxviz.param._color import to_image, to_signal


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Pixel:
    """Returned by `pixel`; the parameters are an array (H, W, C)."""

    sd: Array
    shape: Shape | None = dataclasses.field(metadata=dict(static=True))
    decorrelate: bool = dataclasses.field(metadata=dict(static=True))
    squash: Squash = dataclasses.field(metadata=dict(static=True))

    def with_shape(self, shape: Sequence[int]) -> Pixel:
        return dataclasses.replace(self, shape=check_shape(shape))

    def init(self, key: Array) -> Array:
        noise = self.sd * normal(key, known_shape(self))
        return noise + 0.5 if self._plain else noise

    def decode(self, params: Array) -> Array:
        return params if self._plain else to_image(params, self.decorrelate, self.squash)

    def project(self, params: Array) -> Array:
        if self.squash == "sigmoid":
            return params
        return jnp.clip(params, 0, 1) if self._plain else self.encode(self.decode(params))

    def encode(self, image: Array) -> Array:
        image = check_image(image, self.shape)
        return image if self._plain else to_signal(image, self.decorrelate, self.squash)

    @property
    def _plain(self) -> bool:
        return self.squash == "clip" and not self.decorrelate


def pixel(shape: Sequence[int] | None = None, *, sd: float = 0.01, decorrelate: bool = False, squash: Squash = "clip") -> Pixel:
    """Parameterize an image by its pixels, the textbook form: gray plus noise, clipped to [0, 1] after every step.

    With `decorrelate` the optimizer changes decorrelated colors instead of RGB. With `squash="sigmoid"` the image is
    `sigmoid(params)`, which needs no clipping; `pixel(decorrelate=True, squash="sigmoid")` is Lucid's `pixel_image`.

    Args:
        shape: (H, W, C) of the image; None to set it later with `with_shape`, as `visualize` does.
        sd: standard deviation of the initial noise, at least 0; around 0.5 for `"clip"`, around 0 before the sigmoid.
        decorrelate: whether the parameters are decorrelated colors; affects only images with 3 channels.
        squash: how the image stays in [0, 1]: `"clip"` or `"sigmoid"`.

    Raises:
        ArgumentError: a wrong shape, sd or squash; also from `init`, if no shape is set.

    Example:
        >>> import jax
        >>> param = pixel((4, 6, 3))
        >>> param.decode(param.init(jax.random.key(0))).shape
        (4, 6, 3)
    """
    return Pixel(leaf(sd, "sd", low=0), check_shape(shape), bool(decorrelate), check_squash(squash))
