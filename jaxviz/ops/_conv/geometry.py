"""How a window moves over a map, as convolutions and poolings name it."""

from __future__ import annotations

from typing import TypeAlias

Pair: TypeAlias = tuple[int, int]  # of height and width
Pairs: TypeAlias = tuple[Pair, Pair]  # padding: (top, bottom), (left, right)
Geometry: TypeAlias = tuple[Pair, Pairs, Pair, int]  # stride, padding, dilation, groups


def places(size: int, window: int, stride: int, padding: Pair, dilation: int = 1) -> int:
    """Return how many places a window has along one side of a map; less than 1 where it does not fit."""
    return (size + sum(padding) - (window - 1) * dilation - 1) // stride + 1


def output_size(size: Pair, window: Pair, stride: Pair, padding: Pairs, dilation: Pair = (1, 1)) -> Pair:
    """Return how many places a window has on a map (H, W), along each side."""
    h, w = map(places, size, window, stride, padding, dilation)
    return h, w
