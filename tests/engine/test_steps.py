"""What each of many steps tells, over images, devices and chunks."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz import engine
from jaxviz._pytree import pytree
from jaxviz.engine import _reduce


@pytree
@dataclasses.dataclass(frozen=True)
class Powers:
    """Tells images to the power of the step's number, plus what `start` found."""

    shift: jax.Array

    def start(self, items):
        total = items["x"].sum(1) + self.shift
        return {"sum": total, "nothing": None}, {"twice": 2 * total}

    def step(self, items, fixed, numbers):
        told = items["x"][:, None] ** numbers[None, :, None] + fixed["twice"][:, None, None] / 2
        return {"powers": told, "nothing": None}


X = np.random.default_rng(0).uniform(size=(6, 3)).astype(np.float32)


@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize(("images", "steps", "chunk"), [(6, 11, 8), (1, 11, 8), (3, 2, None), (6, 1, 100), (5, 9, 1)])
def test_equals_a_loop(devices: int, images: int, steps: int, chunk: int | None) -> None:
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("units",))
    found, told = engine.map_steps(Powers(jnp.float32(2)), {"x": X[:images]}, steps, mesh=mesh, chunk=chunk)
    np.testing.assert_allclose(found["sum"], X[:images].sum(1) + 2, rtol=1e-6)
    expected = X[:images, None] ** np.arange(steps)[None, :, None] + found["sum"][:, None, None]
    assert told["powers"].shape == (images, steps, 3) and told["nothing"] is None
    np.testing.assert_allclose(told["powers"], expected, rtol=1e-5)


def test_one_program_for_most_counts() -> None:
    """Of chunks of 8, little is padding, and a count of any size is served by 8, 4, 2 or 1 at a time."""
    for steps in (20, 23, 50, 100, 784, 10_000):
        assert _reduce._steps_at_once(steps, 8, 1) == 8
    for most in (1, 7, 8, 128):
        for along in (1, 2, 4):
            for steps in range(1, 400):
                each = _reduce._steps_at_once(steps, most, along)
                assert 1 <= each <= most and (each == most or any(each == most >> k for k in range(8)))
                assert each == 1 or -steps % (each * along) <= max(steps / 3, 3)


def test_too_little_memory_halves_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    tell = _reduce.evaluate_steps

    def small(grid, program, items, fixed, numbers, rounds):
        tried.append(numbers.shape[1])
        if numbers.shape[1] > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return tell(grid, program, items, fixed, numbers, rounds)

    monkeypatch.setattr(_reduce, "evaluate_steps", small)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("units",))
    with pytest.warns(UserWarning, match="2 steps|trying"):
        _, told = engine.map_steps(Powers(jnp.float32(0)), {"x": X[:1]}, 9, mesh=mesh, chunk=8)
    assert told["powers"].shape == (1, 9, 3) and tried[0] > 2 and set(tried[-2:]) <= {1, 2}


def test_progress_is_told() -> None:
    seen: list[engine.Progress] = []
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("units",))
    engine.map_steps(Powers(jnp.float32(0)), {"x": X}, 19, mesh=mesh, chunk=12, progress=seen.append)
    assert [p.step for p in seen] == [8, 16, 19] and seen[-1].images_done == 6
