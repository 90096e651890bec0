"""Images that start from one of the user's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxviz._static import leaf
from jaxviz._types import Array, ArrayLike, PyTree
from jaxviz.image import resize
from jaxviz.param._base import Param, Shape, as_base, check_image, known_shape, normal, resized
from jaxviz.param._fourier import fourier


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class FromImage:
    """Made by `from_image`; the parameters are those of `base`."""

    image: Array
    base: Param
    sd: Array

    @property
    def shape(self) -> Shape | None:
        return self.base.shape

    def with_shape(self, shape: Sequence[int]) -> FromImage:
        return dataclasses.replace(self, base=self.base.with_shape(shape))

    def init(self, key: Array) -> PyTree:
        leaves, structure = jax.tree.flatten(self.base.encode(self._start()))
        keys = jax.random.split(key, len(leaves))
        # Single numbers are what a parameterisation holds fixed (`maco`), and stay.
        noisy = [one + self.sd * normal(keys[i], one.shape) if one.ndim else one for i, one in enumerate(leaves)]
        return self.base.project(jax.tree.unflatten(structure, noisy))

    def decode(self, params: PyTree) -> Array:
        return self.base.decode(params)

    def project(self, params: PyTree) -> PyTree:
        return self.base.project(params)

    def encode(self, image: Array) -> PyTree:
        return self.base.encode(image)

    def enlarged(self, params: PyTree, new: FromImage) -> PyTree:
        if known_shape(self)[:2] == known_shape(new)[:2]:
            return params
        # What the ascent has changed is scaled up; what the user's image has in detail is taken from the image itself.
        start = self._start()
        change = self.decode(params) - start
        return new.encode(jnp.clip(new._start() + resize(change, known_shape(new)[:2], "bicubic"), 0, 1))

    def _start(self) -> Array:
        return resized(self.image, known_shape(self))


def from_image(image: ArrayLike, base: Param | Callable[[], Param] | None = None, *, sd: float = 0.0) -> FromImage:
    """Start the ascent from an image instead of from noise, in any parameterisation that can encode one.

    All samples of a unit start from the same image: they differ by their transforms, and by noise where `sd` is above
    0. At another size than its own the image is resized (bicubic).

    Args:
        image: float (H, W, C) in [0, 1].
        base: how the image is parameterised; None for `fourier()`. Not `cppn`, which cannot encode an image.
        sd: standard deviation of noise that is added to the parameters, at least 0; in the units of `base`'s own.

    Raises:
        ArgumentError: `image` is no image, `base` no parameterisation, or sd is wrong; from `init` where the channels
            of the image are not those of the parameterisation.

    Example:
        >>> import jax
        >>> import numpy as np
        >>> param = from_image(np.full((8, 6, 3), 0.25)).with_shape((4, 3, 3))
        >>> print(param.decode(param.init(jax.random.key(0))).mean().round(4))
        0.25
    """
    picture = check_image(jnp.asarray(image), None)
    made = as_base(base, fourier)
    return FromImage(picture, made if made.shape is not None else made.with_shape(picture.shape), leaf(sd, "sd", low=0))
