"""Images within a distance of a fixed image."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp

from jaxviz._errors import ArgumentError
from jaxviz._pytree import leaf, pytree
from jaxviz._types import Array, ArrayLike
from jaxviz.param._base import Shape, check_image, check_shape, known_shape, resized


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Ball:
    """Returned by `ball`; the parameters are the image (H, W, C) itself."""

    image: Array
    radius: Array
    shape: Shape | None = dataclasses.field(metadata=dict(static=True))
    norm: str = dataclasses.field(metadata=dict(static=True))

    def with_shape(self, shape: Sequence[int]) -> Ball:
        return dataclasses.replace(self, shape=check_shape(shape))

    def init(self, key: Array) -> Array:
        return self._center()

    def decode(self, params: Array) -> Array:
        return params

    def project(self, params: Array) -> Array:
        center = self._center()
        change = params - center
        if self.norm == "l_infinity":
            change = jnp.clip(change, -self.radius, self.radius)
        else:
            length = jnp.sqrt(jnp.square(change).sum())
            change = change * jnp.minimum(1, self.radius / jnp.maximum(length, 1e-12))
        # The center is in [0, 1], so clipping only brings the image nearer to it.
        return jnp.clip(center + change, 0, 1)

    def encode(self, image: Array) -> Array:
        return self.project(check_image(image, known_shape(self)))

    def _center(self) -> Array:
        shape = known_shape(self)
        return check_image(resized(self.image, shape), shape)


def ball(image: ArrayLike, radius: float, norm: Literal["l2", "l_infinity"] = "l2") -> Ball:
    """Parameterize an image by its pixels, held within a distance of another image, where it starts.

    After every step of the optimizer, the image is projected onto the ball and clipped to [0, 1]: adversarial changes (Madry et
    al. 2018) and Lucid's `unit_balls`.

    Args:
        image: the center, float (H, W, C) in [0, 1]; resized to the size of the run.
        radius: at least 0, traced; for "l2" the norm of the whole change, for "l_infinity" the largest change of one value.
        norm: "l2" or "l_infinity".

    Raises:
        ArgumentError: not an image in [0, 1], a negative radius or another norm.

    Example:
        >>> param = ball(jnp.full((4, 4, 3), 0.5), 0.1, "l_infinity").with_shape((4, 4, 3))
        >>> round(float(param.project(jnp.ones((4, 4, 3))).max()), 2)
        0.6
    """
    if norm not in ("l2", "l_infinity"):
        raise ArgumentError(f"norm must be 'l2' or 'l_infinity', got {norm!r}.")
    picture = check_image(jnp.asarray(image), None)
    if not bool(((picture >= 0) & (picture <= 1)).all()):  # NaN fails too
        raise ArgumentError("The image at the center of a ball must be in [0, 1].")
    return Ball(picture, leaf(radius, "radius", low=0), check_shape(picture.shape), norm)
