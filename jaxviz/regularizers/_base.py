"""The protocol of a regularizer, and plain functions as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from jaxviz._pytree import as_tree
from jaxviz._types import Array


class Regularizer(Protocol):
    """A penalty: float32 image (H, W, C) in [0, 1] to a scalar, larger is worse. A pytree whose weights are traced leaves."""

    def __call__(self, image: Array, /) -> Array: ...


def function(fn: Callable[[Array], Any]) -> Regularizer:
    """Return any function `image (H, W, C) -> scalar` as a regularizer; those that are pytrees already come back as they are.

    The function itself is static: define it once, outside the call, or every call compiles again.

    Raises:
        ArgumentError: `fn` cannot be called.
    """
    return as_tree(fn)
