"""The protocol of a parameterization, and checks that all of them share."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jaxviz._errors import ArgumentError
from jaxviz._types import Array, PyTree
from jaxviz.image import resize

Squash = Literal["clip", "sigmoid"]
Shape = tuple[int, int, int]


@runtime_checkable
class Param(Protocol):
    """A parameterization of one image: a pytree, so that compiled programs can take it as an argument.

    `shape` is the image's (H, W, C), or None until the caller sets it with `with_shape`. Optional methods:

    - `decode_group(params)` and `project_group(params)`: like `decode` and `project`, for the S images of one unit together,
      whose parameters have a leading axis S (see `shared`).
    - `enlarged(params, new)`: the parameters of `new`, the same parameterization for larger images, for the same picture as
      `params`.
    """

    @property
    def shape(self) -> Shape | None: ...

    def with_shape(self, shape: Sequence[int]) -> Param:
        """Return the same parameterization for images of `shape` (H, W, C)."""
        ...

    def init(self, key: Array) -> PyTree:
        """Return random float32 parameters to start from."""
        ...

    def decode(self, params: PyTree) -> Array:
        """Return the image of the parameters, float32 (H, W, C) in [0, 1]."""
        ...

    def project(self, params: PyTree) -> PyTree:
        """Return the nearest parameters whose image is in [0, 1]; called after every step of the optimizer."""
        ...

    def encode(self, image: Array) -> PyTree:
        """Return parameters whose image is `image`, (H, W, C) in [0, 1]."""
        ...


def decode_group(param: Param, params: PyTree) -> Array:
    """Return the images (S, H, W, C) of the samples of one unit of work, whose parameters have a leading axis S.

    Example:
        >>> import jax
        >>> from jaxviz.param import fourier, shared
        >>> param = shared(fourier((4, 6, 3)))
        >>> decode_group(param, jax.vmap(param.init)(jax.random.split(jax.random.key(0), 5))).shape
        (5, 4, 6, 3)
    """
    together = getattr(param, "decode_group", None)
    return jax.vmap(param.decode)(params) if together is None else together(params)


def project_group(param: Param, params: PyTree) -> PyTree:
    """Return the nearest parameters, with a leading axis S of samples, whose images are in [0, 1]."""
    together = getattr(param, "project_group", None)
    return jax.vmap(param.project)(params) if together is None else together(params)


def enlarge(old: Param, new: Param, params: PyTree) -> PyTree:
    """Return the parameters of `new` for the same picture as the `params` of `old`: ascent from coarse to fine.

    Exact where the parameterization allows it (`fourier`, `cppn`). The others resize the image (bicubic, clipped to [0, 1])
    and encode it. Pixels are squares: the corners of the picture stay in the corners.

    Args:
        old: the parameterization of `params`, of known shape.
        new: the same for another size: `old.with_shape((height, width, channels))`.
        params: the parameters of one image.

    Example:
        >>> import jax
        >>> from jaxviz.param import fourier
        >>> old = fourier((8, 8, 3))
        >>> new = old.with_shape((12, 16, 3))
        >>> new.decode(enlarge(old, new, old.init(jax.random.key(0)))).shape
        (12, 16, 3)
    """
    before, after = known_shape(old), known_shape(new)
    if before[2] != after[2]:
        raise ArgumentError(f"Enlarging keeps the channels; got images of shape {before} and {after}.")
    own = getattr(old, "enlarged", None)
    if own is not None and type(new) is type(old):
        return own(params, new)
    return new.encode(resized(old.decode(params), after))


def resized(image: Array, shape: Shape) -> Array:
    """Return `image` at the height and width of `shape`, bicubic and clipped to [0, 1]; unchanged if it has them already."""
    return image if image.shape[:2] == shape[:2] else jnp.clip(resize(image, shape[:2], "bicubic"), 0, 1)


def as_base(base: Any, default: Callable[[], Param]) -> Param:
    """Return the parameterization that another one wraps: `base`, the result of the function `base`, or the default for None.

    Raises:
        ArgumentError: not a parameterization, or one that decodes samples together, which must be the outermost.
    """
    param = default() if base is None else base if isinstance(base, Param) or not callable(base) else base()
    if not isinstance(param, Param):
        raise ArgumentError(f"base must be a parameterization such as fourier() or pixel(), got {base!r}.")
    if hasattr(param, "decode_group"):
        raise ArgumentError("shared(...) must be the outermost parameterization: write shared(alpha()), not alpha(shared()).")
    return param


def check_shape(shape: Sequence[int] | None) -> Shape | None:
    """Return `shape` as three ints (H, W, C), or None; raise `ArgumentError` for anything else."""
    if shape is None:
        return None
    try:
        sizes = tuple(operator.index(size) for size in shape)
    except TypeError:
        sizes = ()
    if len(sizes) != 3 or min(sizes) < 1:
        raise ArgumentError(f"The shape of an image is three positive integers (height, width, channels), got {shape!r}.")
    return sizes[0], sizes[1], sizes[2]


def known_shape(param: Param) -> Shape:
    """Return `param.shape`; raise `ArgumentError` if it is not set."""
    if param.shape is None:
        raise ArgumentError("The parameterization has no shape yet: call with_shape((height, width, channels)) first.")
    return param.shape


def check_squash(squash: str) -> Squash:
    """Return `squash`; raise `ArgumentError` unless it is "clip" or "sigmoid"."""
    if squash not in ("clip", "sigmoid"):
        raise ArgumentError(f"squash must be 'clip' or 'sigmoid', got {squash!r}.")
    return squash


def check_image(image: Array, shape: Shape | None) -> Array:
    """Return `image` as float32 (H, W, C); raise `ArgumentError` if it has another shape."""
    image = jnp.asarray(image, jnp.float32)
    if image.ndim != 3 or (shape is not None and image.shape != shape):
        raise ArgumentError(f"Expected an image (H, W, C) of shape {shape or '(H, W, C)'}, got {image.shape}.")
    return image


def logit(image: Array) -> Array:
    """Return the inverse of the sigmoid, of values clipped to [1e-4, 1 - 1e-4]: at 0 and 1 it is infinite."""
    image = jnp.clip(image, 1e-4, 1 - 1e-4)
    return jnp.log(image) - jnp.log1p(-image)


def clip_through(image: Array) -> Array:
    """Clip to [0, 1] with the gradient of the identity, so that a clipped pixel can come back."""
    return image + jax.lax.stop_gradient(jnp.clip(image, 0, 1) - image)


def normal(key: Array, shape: Sequence[int]) -> Array:
    """Draw float32 normal numbers of `shape`.

    Drawn in a row and reshaped: XLA's CPU compiler takes many seconds over random numbers of four axes, and none over one.
    """
    return jax.random.normal(key, (math.prod(shape),), jnp.float32).reshape(shape)
