"""Parameters that the samples of one unit share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._pytree import leaf, pytree
from jaxviz._types import Array, PyTree
from jaxviz.param._base import Param, Shape, as_base, enlarge
from jaxviz.param._fourier import fourier

Parts = dict[str, PyTree]


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Shared:
    """Returned by `shared`; the parameters are `{"own": ..., "common": ...}`, both those of `base`.

    Every sample has a copy of the common part, so the engine treats it like any parameter. A group decodes the mean of the
    copies: all copies then have equal gradients, an optimizer updates them equally, and they stay equal.
    """

    base: Param
    amount: Array
    points: int = dataclasses.field(metadata=dict(static=True))

    @property
    def shape(self) -> Shape | None:
        return self.base.shape

    def with_shape(self, shape: Sequence[int]) -> Shared:
        return dataclasses.replace(self, base=self.base.with_shape(shape))

    def init(self, key: Array) -> Parts:
        return self._apart(self.base.init(key))

    def decode(self, params: Parts) -> Array:
        return self.base.decode(self._sum(params))

    def project(self, params: Parts) -> Parts:
        inside = self.base.project(self._sum(params))
        own = jax.tree.map(lambda whole, common: whole - self.amount * common, inside, params["common"])
        return {"own": own, "common": params["common"]}

    def encode(self, image: Array) -> Parts:
        return self._apart(self.base.encode(image))

    def decode_group(self, params: Parts) -> Array:
        return jax.vmap(self.decode)(self._agreed(params))

    def project_group(self, params: Parts) -> Parts:
        return jax.vmap(self.project)(self._agreed(params))

    def enlarged(self, params: Parts, new: Shared) -> Parts:
        return self._apart(enlarge(self.base, new.base, self._sum(params)))

    def _apart(self, whole: PyTree) -> Parts:
        return {"own": whole, "common": jax.tree.map(jnp.zeros_like, whole)}

    def _sum(self, params: Parts) -> PyTree:
        return jax.tree.map(lambda own, common: own + self.amount * common, params["own"], params["common"])

    def _agreed(self, params: Parts) -> Parts:
        """Return the parameters with the common parts of all samples interpolated from the same points."""
        samples = jax.tree.leaves(params)[0].shape[0]
        mix = _through_points(samples, min(self.points, samples))
        common = jax.tree.map(lambda leaf: jnp.einsum("st,t...->s...", mix, leaf, precision="highest"), params["common"])
        return {"own": params["own"], "common": common}


def _through_points(samples: int, points: int) -> np.ndarray:
    """Return the matrix (S, S) that projects values at S samples onto lines through evenly spread points."""
    x = np.linspace(0, points - 1, samples)
    lines = np.maximum(0, 1 - np.abs(x[:, None] - np.arange(points)))
    return (lines @ np.linalg.pinv(lines)).astype(np.float32)


def shared(base: Param | Callable[[], Param] | None = None, *, amount: float = 1.0, points: int = 1) -> Shared:
    """Parameterize each sample of a unit by its own part plus a part that all samples share.

    Samples then look alike where their objectives agree, for interpolations and comparisons. Lucid builds such bases from
    `lowres_tensor`s with a coarse axis of samples; here it is a sum of two sets of parameters of any base:

        image[s] = base.decode(own[s] + amount * common)

    The common part is 0 at the start and after `encode`. Constants of `base` stay constant.

    Args:
        base: the parameterization of a sample; None for `fourier()`. `shared` must be the outermost.
        amount: weight of the common part, at least 0: how much more a step of it changes the images than a step of their own
            part; 0 shares nothing.
        points: number of common parts, evenly spread over the samples with linear interpolation between them: 1 is the same
            for all, 2 goes from the first sample to the last. With as many points as samples, nothing is shared.

    Raises:
        ArgumentError: `base` is not a parameterization, or amount or points is out of range.

    Example:
        >>> import jax
        >>> param = shared().with_shape((4, 6, 3))
        >>> params = jax.vmap(param.init)(jax.random.split(jax.random.key(0), 5))
        >>> param.decode_group(params).shape
        (5, 4, 6, 3)
    """
    if points != int(points) or points < 1:
        raise ArgumentError(f"points must be a whole number of at least 1, got {points!r}.")
    return Shared(as_base(base, fourier), leaf(amount, "amount", low=0), int(points))
