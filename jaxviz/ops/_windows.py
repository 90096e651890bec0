"""How a window moves over a map, as convolutions and poolings name it."""

from __future__ import annotations

from typing import TypeAlias

Pair: TypeAlias = tuple[int, int]  # of height and width
Pairs: TypeAlias = tuple[Pair, Pair]  # padding: (top, bottom), (left, right)
Geometry: TypeAlias = tuple[Pair, Pairs, Pair, int]  # stride, padding, dilation, groups
