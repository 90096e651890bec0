"""Images with a channel of opacity."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxviz._pytree import pytree
from jaxviz._types import Array, PyTree
from jaxviz.param._base import Param, Shape, as_base, check_image, check_shape, enlarge, known_shape
from jaxviz.param._fourier import fourier

Parts = dict[str, PyTree]


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Alpha:
    """Returned by `alpha`; the parameters are `{"color": ..., "opacity": ...}`, one entry for each parameterization."""

    color: Param
    opacity: Param

    @property
    def shape(self) -> Shape | None:
        return self.color.shape

    def with_shape(self, shape: Sequence[int]) -> Alpha:
        checked = check_shape(shape)
        opacity = self.opacity if checked is None else self.opacity.with_shape((*checked[:2], 1))
        return Alpha(self.color.with_shape(shape), opacity)

    def init(self, key: Array) -> Parts:
        keys = jax.random.split(key)
        return {"color": self.color.init(keys[0]), "opacity": self.opacity.init(keys[1])}

    def decode(self, params: Parts) -> Array:
        parts = self.color.decode(params["color"]), self.opacity.decode(params["opacity"])
        return jnp.concatenate(parts, -1)

    def project(self, params: Parts) -> Parts:
        return {"color": self.color.project(params["color"]), "opacity": self.opacity.project(params["opacity"])}

    def encode(self, image: Array) -> Parts:
        h, w, c = known_shape(self)
        image = jnp.asarray(image, jnp.float32)
        opaque = image.shape == (h, w, c)
        image = check_image(image, (h, w, c if opaque else c + 1))
        opacity = jnp.ones((h, w, 1), jnp.float32) if opaque else image[..., c:]
        return {"color": self.color.encode(image[..., :c]), "opacity": self.opacity.encode(opacity)}

    def enlarged(self, params: Parts, new: Alpha) -> Parts:
        color = enlarge(self.color, new.color, params["color"])
        return {"color": color, "opacity": enlarge(self.opacity, new.opacity, params["opacity"])}


def alpha(base: Param | Callable[[], Param] | None = None) -> Alpha:
    """Parameterize an image with one more channel, its opacity: 0 is transparent, 1 opaque.

    Lucid's `image(alpha=True)`. `shape` is (H, W, C), the shape of the colors. Decoded images are (H, W, C + 1); put them on a
    background (`jaxviz.transforms.composite`) before the network. Opacity starts around 0.5. `encode` takes images with C
    channels, which are opaque, or C + 1.

    Args:
        base: parameterization of the colors and, with separate parameters, of the opacity; None for `fourier()`.

    Raises:
        ArgumentError: `base` is not a parameterization, or is `shared`, which must be the outermost.

    Example:
        >>> import jax
        >>> param = alpha().with_shape((4, 6, 3))
        >>> param.shape, param.decode(param.init(jax.random.key(0))).shape
        ((4, 6, 3), (4, 6, 4))
    """
    param = as_base(base, fourier)
    both = Alpha(param, param)
    return both if param.shape is None else both.with_shape(param.shape)
