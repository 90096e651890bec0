"""Histograms of a stream of numbers of unknown range.

Bin edges are multiples of a power of two. When a number falls outside, the power grows until all numbers fit, and neighboring
bins are added, which is exact on such a grid. The power and the first edge depend only on the minimum and the maximum, so the
counts do not depend on order, chunks or devices: they equal `numpy.histogram(numbers, edges)`. (Like Prometheus' native
histograms, with bins of equal width.)
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._types import Array, ArrayLike

BINS = 64
_LARGEST = 2.0**100  # larger numbers are clipped, so that no power overflows
_FINEST = 20  # bins are at most this power of two finer than the largest number: float32 has no more digits


def empty(units: int) -> tuple[Array, Array, Array]:
    """Return the counts (U, BINS), minimum and maximum (U,) of an empty histogram."""
    return jnp.zeros((units, BINS), jnp.int32), jnp.full(units, jnp.inf), jnp.full(units, -jnp.inf)


def count(counts: Array, low: Array, high: Array, values: Array) -> tuple[Array, Array, Array]:
    """Return counts and range with numbers (n, U) added; numbers that are not finite are ignored."""
    counted = jnp.isfinite(values)
    values = jnp.clip(values, -_LARGEST, _LARGEST)
    new_low = jnp.minimum(low, jnp.where(counted, values, jnp.inf).min(0))
    new_high = jnp.maximum(high, jnp.where(counted, values, -jnp.inf).max(0))
    power, first = _grid(new_low, new_high)
    index = jnp.floor(values * _power_of_two(-power)[None]).astype(jnp.int32) - first[None]
    rows = jnp.arange(len(counts))[:, None]
    more = jnp.zeros_like(counts).at[rows, jnp.clip(index.T, 0, BINS - 1)].add(counted.T.astype(jnp.int32))
    return _moved(counts, low, high, new_low, new_high) + more, new_low, new_high


def merge(a: tuple[Array, Array, Array], b: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    """Return the counts and range of both histograms together."""
    low, high = jnp.minimum(a[1], b[1]), jnp.maximum(a[2], b[2])
    return _moved(*a, low, high) + _moved(*b, low, high), low, high


def edges(low: ArrayLike, high: ArrayLike) -> np.ndarray:
    """Return the bin edges, float64 (U, BINS + 1); where all numbers are equal, edges of bins that can be drawn."""
    power, first = (np.asarray(part, np.float64) for part in _grid(jnp.asarray(low), jnp.asarray(high)))
    exact = (first[:, None] + np.arange(BINS + 1)) * np.exp2(power)[:, None]
    low = np.where(np.isfinite(low), low, 0.0)  # infinite without numbers
    drawable = low[:, None] + np.arange(BINS + 1) / BINS * np.maximum(np.abs(low), 1)[:, None]
    return np.where((low < np.asarray(high))[:, None], exact, drawable)


def _grid(low: Array, high: Array) -> tuple[Array, Array]:
    """Return the power of two of the bin width and the number of the first bin, int32 (U,), as fine as the range allows."""
    low, high = jnp.where(low <= high, low, 0), jnp.where(low <= high, high, 0)
    power = jnp.maximum(_exponent(high - low) - (BINS.bit_length() - 1), _exponent(jnp.maximum(high, -low)) - _FINEST)
    power = jnp.maximum(power, -120)
    wide = _bin(high, power) - _bin(low, power) >= BINS
    power = power + wide
    return power, _bin(low, power)


def _moved(counts: Array, low: Array, high: Array, new_low: Array, new_high: Array) -> Array:
    """Return counts on the grid of a wider range."""
    (power, first), (new_power, new_first) = _grid(low, high), _grid(new_low, new_high)
    numbers = first[:, None] + jnp.arange(BINS)[None]
    numbers = jnp.right_shift(numbers, jnp.clip(new_power - power, 0, 31)[:, None]) - new_first[:, None]
    rows = jnp.arange(len(counts))[:, None]
    return jnp.zeros_like(counts).at[rows, jnp.clip(numbers, 0, BINS - 1)].add(counts)


def _bin(values: Array, power: Array) -> Array:
    return jnp.floor(values * _power_of_two(-power)).astype(jnp.int32)


def _exponent(values: Array) -> Array:
    """Return the smallest e with values < 2**e, for float32 >= 0; -126 for 0."""
    return ((jax.lax.bitcast_convert_type(values, jnp.int32) >> 23) & 255) - 126


def _power_of_two(exponent: Array) -> Array:
    """Return 2**exponent exactly, float32, for exponents from -126 to 127."""
    return jax.lax.bitcast_convert_type((exponent + 127).astype(jnp.int32) << 23, jnp.float32)
