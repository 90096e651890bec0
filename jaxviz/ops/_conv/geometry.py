"""Window geometry: stride, padding, dilation, output size."""

from __future__ import annotations

from typing import NamedTuple, Required, TypeAlias, TypedDict

from jaxviz._types import Array

Pair: TypeAlias = tuple[int, int]  # of height and width
Pairs: TypeAlias = tuple[Pair, Pair]  # padding: (top, bottom), (left, right)

NO_PADDING: Pairs = ((0, 0), (0, 0))


class MaxPoolOptions(TypedDict, total=False):
    """Options of `max_pool`."""

    window: Required[Pair]
    stride: Required[Pair]
    padding: Pairs


class Geometry(NamedTuple):
    """How the window of a convolution moves over a map; hashable, so that it can be static."""

    stride: Pair = (1, 1)
    padding: Pairs = NO_PADDING
    dilation: Pair = (1, 1)
    groups: int = 1


def output_length(size: int, window: int, stride: int, padding: Pair, dilation: int = 1) -> int:
    """Return the number of window positions along one side of a map; less than 1 where the window does not fit."""
    return (size + sum(padding) - (window - 1) * dilation - 1) // stride + 1


def output_size(size: Pair, window: Pair, stride: Pair, padding: Pairs, dilation: Pair = (1, 1)) -> Pair:
    """Return the number of window positions on a map (H, W) along each side."""
    h, w = map(output_length, size, window, stride, padding, dilation)
    return h, w


def map_size(x: Array) -> Pair:
    """Return (H, W) of maps (N, H, W, C)."""
    return x.shape[1], x.shape[2]
