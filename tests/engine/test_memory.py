"""Too little memory on a device: chunks are halved until they fit, and where not even one unit does, the error says so."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import numpy as np
import pytest

import jaxviz as jv
from jaxviz._errors import MemoryLimitError
from jaxviz.engine import _execute
from jaxviz.engine._memory import run_or_halve
from tests.tiny import tiny_model

OPTIONS: dict[str, Any] = {"steps": 6, "size": 16, "transforms": ()}
FULL = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 123 bytes."


def limit(patch: pytest.MonkeyPatch, where: str, most: int, message: str = FULL) -> list[int]:
    """Let a part of the program fail for more than `most` units on a device; give the list of the units that it ran for."""
    real, ran = getattr(_execute, where), []

    def limited(mesh: Any, recipe: Any, units: Any, *rest: Any) -> Any:
        each = len(units.keys) // mesh.size
        if each > most:
            raise jax.errors.JaxRuntimeError(message)
        ran.append(len(units.keys))
        return real(mesh, recipe, units, *rest)

    patch.setattr(_execute, where, limited)
    return ran


@pytest.mark.parametrize("where", ["_start", "_block", "_finish"])  # before, amid and after what donates its arguments
def test_a_chunk_that_does_not_fit_is_halved(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = jv.visualize(tiny_model(), "relu_1:0-10", mesh=jv.make_mesh(1), chunk=2, **OPTIONS)
    ran = limit(monkeypatch, where, 2)
    seen: list[jv.Progress] = []
    with pytest.warns(UserWarning, match=r"Too little memory for 11 units at once: trying 5\.") as told:
        result = jv.visualize(tiny_model(), "relu_1:0-10", mesh=jv.make_mesh(1), chunk=11, progress=seen.append, **OPTIONS)
    assert len(told) == 2 and set(ran) == {2}
    np.testing.assert_allclose(result.images, expected.images, atol=1e-4)
    np.testing.assert_allclose(result.history, expected.history, rtol=1e-3, atol=1e-5)
    assert result.labels == expected.labels
    assert seen[-1].images_done == 11 and seen[-1].seconds_left == 0


def test_the_failure_may_come_late_and_on_several_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that were finished stay, and the rest is halved a device."""
    expected = jv.visualize(tiny_model(), "relu_1", mesh=jv.make_mesh(2), chunk=4, **OPTIONS)
    real, calls = _execute._run_chunk, []

    def later(mesh: Any, stages: Any, *rest: Any) -> Any:
        calls.append(len(stages[0].units.keys))
        if len(calls) == 2:
            raise jax.errors.JaxRuntimeError(f"INTERNAL: Autotuning failed: {FULL}")
        return real(mesh, stages, *rest)

    monkeypatch.setattr(_execute, "_run_chunk", later)
    with pytest.warns(UserWarning, match=r"for 6 units at once: trying 2\."):
        result = jv.visualize(tiny_model(), "relu_1", mesh=jv.make_mesh(2), chunk=6, **OPTIONS)
    assert calls == [6, 6, 2, 2, 2]
    np.testing.assert_allclose(result.images, expected.images, atol=1e-4)


def test_one_unit_that_does_not_fit_is_an_error_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, "_block", 0)
    with (
        pytest.warns(UserWarning, match="trying 1"),
        pytest.raises(MemoryLimitError, match=r"one unit of 3 images.*fewer samples"),
    ):
        jv.visualize(tiny_model(), "relu_1:0-1", samples=3, mesh=jv.make_mesh(1), chunk=2, **OPTIONS)
    assert issubclass(MemoryLimitError, jv.JaxvizError) and issubclass(MemoryLimitError, MemoryError)


def test_other_errors_of_the_device_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, "_block", 0, "INTERNAL: something else")
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        jv.visualize(tiny_model(), "relu_1:0-1", mesh=jv.make_mesh(1), chunk=2, **OPTIONS)


def test_trial_programs_that_do_not_fit_mean_one_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*arguments: Any) -> int:
        raise jax.errors.JaxRuntimeError(FULL)

    monkeypatch.setattr(_execute, "units_per_device", too_large)
    sizes = limit(monkeypatch, "_start", 99)
    with warnings.catch_warnings(action="error"):
        jv.visualize(tiny_model(), "relu_1:0-2", mesh=jv.make_mesh(1), **OPTIONS)
    assert sizes == [1, 1, 1]


def test_a_size_is_halved_to_a_multiple_of_the_devices() -> None:
    def run(size: int) -> str:
        if size > 3:
            raise jax.errors.JaxRuntimeError(FULL)
        return f"{size} ran"

    with pytest.warns(UserWarning, match=r"for 21 images at once: trying 9\."):
        assert run_or_halve(run, 21, 3, "images", "too small") == (None, 9)
    assert run_or_halve(run, 3, 3, "images", "too small") == ("3 ran", 3)
    with pytest.raises(MemoryLimitError, match="too small"):
        run_or_halve(run, 4, 4, "images", "too small")


def test_too_little_memory_inside_a_chunk_halves_the_chunk() -> None:
    """Steps that do not fit, one at a time, are a matter of too many images."""

    def run(size: int) -> None:
        raise MemoryLimitError("one step")

    with pytest.warns(UserWarning, match="trying 2"):
        assert run_or_halve(run, 4, 1, "images", "too small") == (None, 2)
