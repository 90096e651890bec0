"""Programs on images in chunks: the same answer whatever the chunk and the devices, one program, too little memory."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz as jv
from jaxviz._pytree import pytree
from jaxviz.engine import _reduce, map_images, reduce_images
from jaxviz.engine import _sharding as _placement
from tests.compilations import compilations
from tests.tiny import random_images


@pytree
@dataclasses.dataclass(frozen=True)
class Square:
    """Squares, times a number."""

    factor: Any

    def __call__(self, items):
        return {"square": self.factor * items["images"] ** 2, "none": None}


@pytree
@dataclasses.dataclass(frozen=True)
class Powers:
    """The sum over the steps of factor * (step + 1) * image, and how many steps there were."""

    factor: Any

    def start(self, items):
        return {"scaled": self.factor * items["images"]}

    def step(self, items, fixed, numbers, valid):
        weights = (numbers + 1) * valid
        return {"sum": weights.sum() * fixed["scaled"], "count": jnp.broadcast_to(valid.sum(), (len(items["images"]),))}

    def finish(self, items, fixed, sums):
        return {"sum": sums["sum"] + items["images"], "count": sums["count"]}


@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize("chunk", [None, 1, 3, 100])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_chunks_and_devices_change_nothing(count: int, chunk: int | None, devices: int) -> None:
    items = {"images": random_images(count, 3)}
    options = {"chunk": chunk, "mesh": jv.make_mesh(devices)}
    found = map_images(Square(np.float32(2)), items, **options)
    np.testing.assert_allclose(found["square"], 2 * items["images"] ** 2, rtol=1e-6)
    assert found["none"] is None and isinstance(found["square"], np.ndarray)
    for steps in (1, 5, 13):
        found = reduce_images(Powers(np.float32(3)), items, steps, **options)
        np.testing.assert_allclose(found["sum"], items["images"] * (1 + 3 * steps * (steps + 1) / 2), rtol=1e-5)
        np.testing.assert_array_equal(found["count"], steps)


def test_one_program_whatever_the_data_and_the_number_of_steps() -> None:

    def run(i: int) -> None:
        items = {"images": random_images(4, 3, seed=i)}
        reduce_images(Powers(np.float32(i)), items, 40 + 7 * i, chunk=8, mesh=jv.make_mesh(1))
        map_images(Square(np.float32(i)), items, mesh=jv.make_mesh(1))

    run(0)
    with compilations() as compiled:
        for i in range(1, 4):
            run(i)
    assert not compiled.names


def test_the_program_is_as_large_for_many_steps_as_for_few() -> None:
    items, grid = {"images": jnp.zeros((2, 1000))}, _placement.make_grid(jax.local_devices()[:1], 1)
    fixed, sums = _reduce.start_sums(grid, Powers(1.0), items)
    sizes = {
        _reduce.add_steps.lower(grid, 4, Powers(1.0), items, fixed, sums, np.int32(0), np.int32(steps), np.int32(1)).as_text()
        for steps in (4, 40_000)
    }
    assert len(sizes) == 1


def test_no_step_costs_a_collective() -> None:
    items, grid = {"images": jnp.zeros((4, 10))}, _placement.make_grid(jax.local_devices()[:4], 2)
    fixed, sums = _reduce.start_sums(grid, Powers(1.0), items)
    text = (
        _reduce.add_steps.lower(grid, 4, Powers(1.0), items, fixed, sums, np.int32(0), np.int32(9), np.int32(2))
        .compile()
        .as_text()
    )
    assert not any(word in text for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute"))


def _full(*args: Any) -> Any:
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")


def test_images_that_do_not_fit_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    real = _reduce.apply_program
    monkeypatch.setattr(
        _reduce, "apply_program", lambda grid, program, part: (_full if len(part["images"]) > 2 else real)(grid, program, part)
    )
    items = {"images": random_images(7, 3)}
    with pytest.warns(UserWarning, match="Too little memory for . images"):
        found = map_images(Square(np.float32(2)), items, mesh=jv.make_mesh(1))
    np.testing.assert_allclose(found["square"], 2 * items["images"] ** 2, rtol=1e-6)
    monkeypatch.setattr(_reduce, "apply_program", _full)
    with pytest.raises(jv.MemoryLimitError, match="one image"), pytest.warns(UserWarning):
        map_images(Square(np.float32(2)), items, mesh=jv.make_mesh(1))


def test_steps_that_do_not_fit_are_halved_before_images(monkeypatch: pytest.MonkeyPatch) -> None:
    real = _reduce.add_steps
    monkeypatch.setattr(
        _reduce, "add_steps", lambda grid, at_once, *rest: (_full if at_once > 3 else real)(grid, at_once, *rest)
    )
    items = {"images": random_images(2, 3)}
    with pytest.warns(UserWarning, match="steps at once: trying"):
        found = reduce_images(Powers(np.float32(1)), items, 20, chunk=20, mesh=jv.make_mesh(1))
    np.testing.assert_allclose(found["sum"], items["images"] * 211, rtol=1e-5)


def test_other_errors_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Any:
        raise jax.errors.JaxRuntimeError("INTERNAL: broken")

    monkeypatch.setattr(_reduce, "apply_program", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        map_images(Square(np.float32(2)), {"images": random_images(2, 3)})


def test_progress_reaches_the_end() -> None:
    seen: list[jv.Progress] = []
    reduce_images(
        Powers(np.float32(1)), {"images": random_images(5, 3)}, 9, chunk=4, mesh=jv.make_mesh(1), progress=seen.append
    )
    assert seen[-1].images_done == seen[-1].images == 5 and seen[-1].step == seen[-1].steps == 9
    assert [p.images_done for p in seen] == sorted(p.images_done for p in seen)


@pytest.mark.parametrize("chunk", [0, -1, 1.5])
def test_wrong_chunks_are_refused(chunk: float) -> None:
    with pytest.raises(jv.ArgumentError, match="chunk"):
        map_images(Square(np.float32(2)), {"images": random_images(2, 3)}, chunk=chunk)  # type: ignore[arg-type]


def test_as_many_of_everything() -> None:
    with pytest.raises(jv.ArgumentError, match="as many of everything"):
        map_images(Square(np.float32(2)), {"images": random_images(2, 3), "more": random_images(3, 3)})


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_lowers_for_every_platform(platform: str) -> None:
    program, items = Powers(np.float32(1)), {"images": jnp.zeros((2, 3))}

    def whole(program, items):
        fixed = program.start(items)
        return program.finish(items, fixed, program.step(items, fixed, jnp.arange(3), jnp.ones(3)))

    assert jax.export.export(jax.jit(whole), platforms=[platform])(program, items).platforms == (platform,)
