"""Images parameterized by a pyramid: a sum of images, each half the size of the one before."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax

from jaxviz._errors import ArgumentError
from jaxviz._pytree import leaf, pytree
from jaxviz._types import Array
from jaxviz.image import resize
from jaxviz.param._base import Shape, Squash, check_image, check_shape, check_squash, known_shape, normal
from jaxviz.param._color import to_image, to_signal

Pyramid = tuple[Array, ...]


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Laplacian:
    """Returned by `laplacian`; the parameters are a tuple of arrays (h, w, C), full size first."""

    sd: Array
    shape: Shape | None = dataclasses.field(metadata=dict(static=True))
    levels: int = dataclasses.field(metadata=dict(static=True))
    decorrelate: bool = dataclasses.field(metadata=dict(static=True))
    squash: Squash = dataclasses.field(metadata=dict(static=True))

    def with_shape(self, shape: Sequence[int]) -> Laplacian:
        return dataclasses.replace(self, shape=check_shape(shape))

    def init(self, key: Array) -> Pyramid:
        keys = jax.random.split(key, self.levels)
        channels = known_shape(self)[2]
        return tuple(self.sd * normal(keys[i], (*size, channels)) for i, size in enumerate(self._sizes()))

    def decode(self, params: Pyramid) -> Array:
        return to_image(self._signal(params), self.decorrelate, self.squash)

    def project(self, params: Pyramid) -> Pyramid:
        if self.squash == "sigmoid":
            return params
        # Subtract what leaves [0, 1] from the finest level: only it can change single pixels.
        signal = self._signal(params)
        inside = to_signal(to_image(signal, self.decorrelate, self.squash), self.decorrelate, self.squash)
        return params[0] + (inside - signal), *params[1:]

    def encode(self, image: Array) -> Pyramid:
        rest = to_signal(check_image(image, known_shape(self)), self.decorrelate, self.squash)
        coarse: list[Array] = []
        for size in reversed(self._sizes()[1:]):
            coarse.append(resize(rest, size))
            rest = rest - self._up(coarse[-1])
        return rest, *reversed(coarse)

    def _signal(self, params: Pyramid) -> Array:
        return sum((self._up(level) for level in params[1:]), params[0])

    def _up(self, level: Array) -> Array:
        return resize(level, known_shape(self)[:2])

    def _sizes(self) -> list[tuple[int, int]]:
        h, w, _ = known_shape(self)
        return [(max(1, h >> i), max(1, w >> i)) for i in range(self.levels)]


def laplacian(
    shape: Sequence[int] | None = None,
    *,
    levels: int = 4,
    sd: float = 0.01,
    decorrelate: bool = True,
    squash: Squash = "sigmoid",
) -> Laplacian:
    """Parameterize an image by a pyramid: a sum of images, each half the size of the one before, scaled up to full size.

    Lucid's `laplacian_pyramid_image`, with decorrelated colors and a sigmoid like its other images:

        image = sigmoid(correlate(sum over i of bilinear(params[i])))     params[i] ~ N(0, sd^2), (H // 2^i, W // 2^i, C)

    Coarse levels change many pixels at once, so pictures are smooth, without the periodic borders of `fourier`. Pixels are
    scaled up as equal squares (Lucid's are aligned at their top left corners). Try `learning_rate=0.05`.

    Args:
        shape: (H, W, C) of the image; None to set it later with `with_shape`, as `visualize` does.
        levels: number of images, at least 1; sizes stop at one pixel.
        sd: standard deviation of all initial parameters, at least 0.
        decorrelate: whether the parameters are decorrelated colors; affects only images with 3 channels.
        squash: `"sigmoid"`, or `"clip"`: the image is 0.5 plus the sum, clipped to [0, 1] after every step.

    Raises:
        ArgumentError: a wrong shape, levels, sd or squash; also from `init` and `decode`, if no shape is set.

    Example:
        >>> import jax
        >>> param = laplacian((8, 6, 3), levels=3)
        >>> params = param.init(jax.random.key(0))
        >>> [level.shape for level in params], param.decode(params).shape
        ([(8, 6, 3), (4, 3, 3), (2, 1, 3)], (8, 6, 3))
    """
    if isinstance(levels, bool) or levels != int(levels) or levels < 1:
        raise ArgumentError(f"levels must be a whole number of at least 1, got {levels!r}.")
    return Laplacian(leaf(sd, "sd", low=0), check_shape(shape), int(levels), bool(decorrelate), check_squash(squash))
