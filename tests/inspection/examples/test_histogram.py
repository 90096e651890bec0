"""Histograms of a stream against NumPy's of all numbers at once."""

from __future__ import annotations

from functools import reduce

import jax
import numpy as np
import pytest

from jaxviz.inspection._examples import histogram

RNG = np.random.default_rng(0)
COUNT, MERGE = jax.jit(histogram.count), jax.jit(histogram.merge)
UNITS = 6
NUMBERS = {
    "relu": np.maximum(RNG.normal(size=(300, 6)), 0) * [1e-6, 1e-2, 1, 10, 1e4, 1e9],
    "growing": np.geomspace(1e-8, 1e8, 300)[:, None] * [1, -1],
    "far from zero": 1000 + RNG.uniform(size=(300, 3)) * [1e-3, 1, 100],
    "one value": np.full((300, 3), [0.0, 3.5, -2.0]),
    "two values": np.where(RNG.uniform(size=(300, 2)) < 0.5, [0.0, -1.0], [64.0, 63.0]),
    "signs": RNG.normal(size=(300, 3)) * [1e-3, 1, 1e3],
    "tiny and zero": np.where(RNG.uniform(size=(300, 1)) < 0.5, 0.0, 1e-20),
    "powers of two": 2.0 ** RNG.integers(-10, 10, (300, 2)),
}


def numbers(name: str) -> np.ndarray:
    found = NUMBERS[name].astype(np.float32)
    return found[:, np.arange(UNITS) % found.shape[1]]  # as many of each, so that one program serves all


def stream(values: np.ndarray, sizes: int):
    state = histogram.empty(values.shape[1])
    for first in range(0, len(values), sizes):
        part = np.full((sizes, values.shape[1]), np.nan, np.float32)
        part[: len(values[first : first + sizes])] = values[first : first + sizes]
        state = COUNT(*state, part)
    return state


@pytest.mark.parametrize("name", NUMBERS)
def test_counts_are_those_of_all_numbers_at_once(name: str) -> None:
    values = numbers(name)
    counts, low, high = (np.asarray(part) for part in stream(values, 32))
    edges = histogram.edges(low, high)
    np.testing.assert_array_equal(low, values.min(0))
    np.testing.assert_array_equal(high, values.max(0))
    for unit in range(values.shape[1]):
        assert (np.diff(edges[unit]) > 0).all() and edges[unit, 0] <= low[unit] and high[unit] < edges[unit, -1]
        np.testing.assert_array_equal(counts[unit], np.histogram(values[:, unit].astype(np.float64), edges[unit])[0])
        if low[unit] < high[unit] and name != "far from zero":
            assert np.flatnonzero(counts[unit])[-1] - np.flatnonzero(counts[unit])[0] >= histogram.BINS // 2 - 1, "half is used"


@pytest.mark.parametrize("name", NUMBERS)
def test_neither_order_nor_parts_matter(name: str) -> None:
    values = numbers(name)
    expected = stream(values, 100)
    parts = [stream(part, 25) for part in np.array_split(RNG.permutation(values), 4)]
    for found in (
        stream(values[::-1], 32),
        reduce(MERGE, parts),
        MERGE(expected, histogram.empty(values.shape[1])),
    ):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_what_is_not_finite_is_left_out_and_the_huge_counts_as_large() -> None:
    values = np.full((32, UNITS), np.nan, np.float32)
    values[:3, :3] = [[np.nan, 1.0, 3e38], [np.inf, np.nan, -3e38], [-np.inf, 2.0, 0.0]]
    counts, low, high = COUNT(*histogram.empty(UNITS), values)
    assert np.asarray(counts).sum(1).tolist() == [0, 2, 3, 0, 0, 0]
    assert np.isfinite(histogram.edges(low, high)).all()
