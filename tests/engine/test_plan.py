"""Chunks: even, padded to the mesh, sized by the plateau on CPU and by memory elsewhere."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from jaxviz.engine._memory import ACCELERATOR_IMAGES, CPU_IMAGES, fit_memory, make_plan, units_per_device


@pytest.mark.parametrize("units", [1, 2, 7, 8, 9, 26, 513])
@pytest.mark.parametrize("per_device", [1, 5, 8])
@pytest.mark.parametrize("devices", [1, 2, 4])
def test_a_plan_covers_every_unit_with_little_padding(units, per_device, devices):
    plan = make_plan(units, per_device, devices)
    assert plan.chunk % devices == 0 and plan.chunk <= per_device * devices
    assert plan.chunk * len(plan.starts) >= units
    assert plan.starts[-1] < units
    assert plan.chunk * len(plan.starts) - units < devices * len(plan.starts) + len(plan.starts)


def test_memory_is_affine_in_units():
    assert fit_memory(100 + 30, 100 + 60, 100 + 30 * 7 + 29) == 7
    assert fit_memory(100 + 30, 100 + 60, 10) == 1


def test_cpu_takes_the_plateau_and_an_accelerator_its_memory():
    def never(units):
        raise AssertionError("no compilation is needed on CPU")

    cpu = SimpleNamespace(platform="cpu")
    assert units_per_device(1, cpu, never) == CPU_IMAGES
    assert units_per_device(4, cpu, never) == CPU_IMAGES // 4
    assert units_per_device(100, cpu, never) == 1
    gpu = SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_limit": 1000})
    assert units_per_device(1, gpu, lambda units: 100 + 50 * units) == 14  # 800 bytes to use
    assert units_per_device(1, gpu, lambda units: units) == ACCELERATOR_IMAGES
    unknown = SimpleNamespace(platform="gpu", memory_stats=lambda: None)
    assert units_per_device(2, unknown, never) == ACCELERATOR_IMAGES // 2
