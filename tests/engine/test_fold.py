"""A fold over a stream of images: the same whatever the parts, chunks and devices; all of a part or none."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz._errors import MemoryLimitError
from jaxviz._pytree import pytree
from jaxviz.engine import Fold, _fold, make_mesh
from tests.compilations import compilations
from tests.tiny import random_images


@pytree
@dataclasses.dataclass(frozen=True)
class Extremes:
    """Of each pixel the largest value times a factor, and the image it comes from; the number of images."""

    factor: Any

    def start(self):
        return jnp.full(4, -jnp.inf), jnp.full(4, -1, jnp.int32), jnp.int32(0)

    def step(self, state, items, numbers):
        best, who, seen = state
        values = jnp.where((numbers >= 0)[:, None], items * self.factor, -jnp.inf)
        first = values.argmax(0)
        better = values.max(0) > best
        return jnp.where(better, values.max(0), best), jnp.where(better, numbers[first], who), seen + (numbers >= 0).sum()

    def merge(self, state, other):
        better = (other[0] > state[0]) | ((other[0] == state[0]) & (other[1] < state[1]))
        return jnp.where(better, other[0], state[0]), jnp.where(better, other[1], state[1]), state[2] + other[2]


@pytest.mark.parametrize(
    ("devices", "chunk", "sizes"), [(1, 1, [11]), (1, 4, [4, 4, 3]), (4, 8, [11]), (4, 4, [1, 2, 8]), (2, None, [5, 6])]
)
def test_neither_parts_nor_chunks_nor_devices_matter(devices: int, chunk, sizes: list[int]) -> None:
    items = random_images(11, 4)
    fold = Fold(Extremes(np.float32(2)), mesh=make_mesh(devices), chunk=chunk)
    first = 0
    for size in sizes:
        fold.add(items[first : first + size], first)
        first += size
    best, who, seen = fold.state()
    np.testing.assert_array_equal(best, 2 * items.max(0))
    np.testing.assert_array_equal(who, items.argmax(0))
    assert seen == 11 and isinstance(best, np.ndarray)
    again = Fold(Extremes(np.float32(2)), fold.state(), mesh=make_mesh(5 - devices if devices > 1 else 2), chunk=2)
    again.add(items[::-1] + 1, 11)
    np.testing.assert_array_equal(again.state()[1], 21 - items.argmax(0))
    assert again.state()[2] == 22


def test_other_numbers_are_the_same_program() -> None:
    items = random_images(10, 4)
    Fold(Extremes(np.float32(2)), mesh=make_mesh(1), chunk=3).add(items, 0)
    with compilations() as compiled:
        fold = Fold(Extremes(np.float32(3)), mesh=make_mesh(1), chunk=3)
        fold.add(items, 7)
        fold.add(items[:1], 17)
    assert not compiled.names


def failing(monkeypatch: pytest.MonkeyPatch, fails, error: Exception) -> None:
    true = _fold._advance

    def advance(grid, program, state, items, numbers):
        if fails(len(numbers), numbers):
            raise error
        return true(grid, program, state, items, numbers)

    monkeypatch.setattr(_fold, "_advance", advance)


def test_too_little_memory_halves_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    items = random_images(11, 4)
    full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
    failing(monkeypatch, lambda count, _: count > 4, full)
    fold = Fold(Extremes(np.float32(1)), mesh=make_mesh(2), chunk=16)
    with pytest.warns(UserWarning, match="Too little memory for"):
        fold.add(items, 0)
    np.testing.assert_array_equal(fold.state()[1], items.argmax(0))
    assert fold.state()[2] == 11
    failing(monkeypatch, lambda count, _: True, full)
    with pytest.raises(MemoryLimitError, match="one image"):
        fold.add(items, 11)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), jax.errors.JaxRuntimeError("INTERNAL: something else")])
def test_a_part_is_added_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch, error) -> None:
    items = random_images(12, 4)
    fold = Fold(Extremes(np.float32(1)), mesh=make_mesh(1), chunk=3)
    fold.add(items[:6], 0)
    failing(monkeypatch, lambda _, numbers: 9 in np.asarray(numbers), error)
    with pytest.raises(type(error)):
        fold.add(items[6:], 6)
    assert fold.state()[2] == 6
    np.testing.assert_array_equal(fold.state()[1], items[:6].argmax(0))
