"""Sequences of transforms."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax

from jaxviz._pytree import as_tree, pytree
from jaxviz._types import Array
from jaxviz.transforms._base import Transform, checked
from jaxviz.transforms._geometry import Geometric, move


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Compose:
    """Returned by `compose`."""

    parts: tuple[Transform, ...]

    def __call__(self, key: Array, image: Array) -> Array:
        image = checked(image)
        run: list[Geometric] = []  # neighbors that are one motion
        keys: list[Array] = []
        for position, part in enumerate(self.parts):
            own = jax.random.fold_in(key, position)
            if run and (run[-1].ends or not (isinstance(part, Geometric) and part.fill == run[0].fill)):
                image = move(run, keys, image)
                run, keys = [], []
            if isinstance(part, Geometric):
                run.append(part)
                keys.append(own)
            else:
                image = part(own, image)
        return move(run, keys, image) if run else image


def compose(*transforms: Callable[[Array, Array], Array]) -> Compose:
    """Apply transforms one after the other, each with its own key: `fold_in(key, its position)`.

    Neighbors among `pad`, `jitter`, `scale`, `rotate` and `crop` with the same fill color are one motion on an endless canvas,
    interpolated once: one may bring back what another moved out of view. Only a crop is final: it ends the motion. Nested
    compositions are flattened.

    Args:
        transforms: transforms, or any functions `(key, image) -> image`. A plain function is static: define it once, outside
            the call, or every call compiles again. One that is a pytree may have traced leaves.

    Raises:
        ArgumentError: an argument that cannot be called.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxviz.transforms import pad, rotate
        >>> brighten = lambda key, image: image * jax.random.uniform(key, minval=0.8, maxval=1.2)
        >>> compose(pad(4), rotate(10), brighten)(jax.random.key(0), jnp.ones((16, 16, 3))).shape
        (24, 24, 3)
    """
    parts: list[Transform] = []
    for transform in transforms:
        parts.extend(transform.parts if isinstance(transform, Compose) else [as_tree(transform)])
    return Compose(tuple(parts))


def identity() -> Compose:
    """Return the transform that changes nothing."""
    return compose()
