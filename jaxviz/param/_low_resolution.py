"""Images parameterized by a coarse grid that is scaled up."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._pytree import leaf, pytree
from jaxviz._types import Array
from jaxviz.image import resize
from jaxviz.param._base import Shape, Squash, check_image, check_shape, check_squash, known_shape, normal
from jaxviz.param._color import to_image, to_signal

Smooth = Literal["bilinear", "bicubic"]


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class LowResolution:
    """Returned by `low_resolution`; the parameters are an array (h, w, C), the coarse grid."""

    sd: Array
    shape: Shape | None = dataclasses.field(metadata=dict(static=True))
    size: tuple[int, int] | None = dataclasses.field(metadata=dict(static=True))
    factor: int = dataclasses.field(metadata=dict(static=True))
    method: Smooth = dataclasses.field(metadata=dict(static=True))
    decorrelate: bool = dataclasses.field(metadata=dict(static=True))
    squash: Squash = dataclasses.field(metadata=dict(static=True))

    def with_shape(self, shape: Sequence[int]) -> LowResolution:
        return dataclasses.replace(self, shape=check_shape(shape))

    def init(self, key: Array) -> Array:
        return self.sd * normal(key, self._grid())

    def decode(self, params: Array) -> Array:
        return to_image(resize(params, known_shape(self)[:2], self.method), self.decorrelate, self.squash)

    def project(self, params: Array) -> Array:
        if self.squash == "sigmoid":
            return params
        # Bilinear values lie between those of the grid. Bicubic values may lie slightly outside: decode clips them.
        return to_signal(to_image(params, self.decorrelate, self.squash), self.decorrelate, self.squash)

    def encode(self, image: Array) -> Array:
        h, w, _ = known_shape(self)
        rows, columns, _ = self._grid()
        signal = to_signal(check_image(image, self.shape), self.decorrelate, self.squash)
        back = [self._least_squares(*sizes) for sizes in ((rows, h), (columns, w))]
        return jnp.einsum("ih,hwc,jw->ijc", back[0], signal, back[1], precision="highest")

    def _grid(self) -> Shape:
        h, w, c = known_shape(self)
        rows, columns = self.size or (-(-h // self.factor), -(-w // self.factor))
        return min(rows, h), min(columns, w), c

    def _least_squares(self, few: int, many: int) -> np.ndarray:
        with jax.ensure_compile_time_eval():  # a constant of the program, also while tracing
            up = np.asarray(resize(np.eye(few, dtype=np.float32)[:, :, None], (many, few), self.method))[..., 0]
        return np.linalg.pinv(up.astype(np.float64)).astype(np.float32)


def low_resolution(
    shape: Sequence[int] | None = None,
    *,
    factor: int = 4,
    size: int | tuple[int, int] | None = None,
    method: Smooth = "bilinear",
    sd: float = 0.01,
    decorrelate: bool = True,
    squash: Squash = "sigmoid",
) -> LowResolution:
    """Parameterize an image by a coarse grid that is scaled up smoothly, so it has no fine detail.

    Lucid's `lowres_tensor` (whose pixels are aligned at their top left corners; these are equal squares):

        image = sigmoid(correlate(bilinear(params)))     params ~ N(0, sd^2), (ceil(H / factor), ceil(W / factor), C)

    `encode` returns the grid nearest to an image by least squares (before the sigmoid); it is exact for an image without finer
    detail. For parameters that several images share, see `shared`. Try `learning_rate=0.05`.

    Args:
        shape: (H, W, C) of the image; None to set it later with `with_shape`, as `visualize` does.
        factor: image pixels for one grid cell, along each side, at least 1.
        size: rows and columns of the grid, or one number for both, instead of a factor; at most those of the image.
        method: `"bilinear"` or `"bicubic"`.
        sd: standard deviation of the initial parameters, at least 0.
        decorrelate: whether the parameters are decorrelated colors; affects only images with 3 channels.
        squash: `"sigmoid"`, or `"clip"`: the image is 0.5 plus the signal, the grid clipped to [0, 1] after every step.

    Raises:
        ArgumentError: a wrong shape, factor, size, method, sd or squash; also from `init`, if no shape is set.

    Example:
        >>> import jax
        >>> param = low_resolution((16, 10, 3), factor=4)
        >>> params = param.init(jax.random.key(0))
        >>> params.shape, param.decode(params).shape
        ((4, 3, 3), (16, 10, 3))
    """
    if factor != int(factor) or factor < 1:
        raise ArgumentError(f"factor must be a whole number of at least 1, got {factor!r}.")
    if method not in get_args(Smooth):
        raise ArgumentError(f"method must be 'bilinear' or 'bicubic', got {method!r}.")
    if size is not None:
        pair: tuple[Any, ...] = (size, size) if isinstance(size, int) else tuple(size)
        if len(pair) != 2 or not all(isinstance(side, int | np.integer) and side >= 1 for side in pair):
            raise ArgumentError(f"size is the rows and columns of the grid, or one number for both; got {size!r}.")
        size = int(pair[0]), int(pair[1])
    return LowResolution(
        leaf(sd, "sd", low=0), check_shape(shape), size, int(factor), method, bool(decorrelate), check_squash(squash)
    )
