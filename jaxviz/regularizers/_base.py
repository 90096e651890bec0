"""The protocol of a regularizer."""

from __future__ import annotations

from typing import Protocol

from jaxviz._types import Array


class Regularizer(Protocol):
    """A penalty: float32 image (H, W, C) in [0, 1] to a scalar, larger is worse. A pytree whose weights are traced leaves."""

    def __call__(self, image: Array, /) -> Array: ...
