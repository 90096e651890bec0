"""How a window moves over a map, as convolutions and poolings name it."""

from __future__ import annotations

from typing import TypeAlias

Pair: TypeAlias = tuple[int, int]  # of height and width
Pairs: TypeAlias = tuple[Pair, Pair]  # padding: (top, bottom), (left, right)
Geometry: TypeAlias = tuple[Pair, Pairs, Pair, int]  # stride, padding, dilation, groups


def output_size(size: Pair, window: Pair, stride: Pair, padding: Pairs, dilation: Pair = (1, 1)) -> Pair:
    """Return how many places a window has on a map (H, W); less than 1 where it does not fit."""
    h, w = (
        (n + low + high - (k - 1) * d - 1) // s + 1
        for n, k, s, (low, high), d in zip(size, window, stride, padding, dilation, strict=True)
    )
    return h, w
