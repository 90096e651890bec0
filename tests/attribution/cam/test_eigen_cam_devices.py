"""Decompositions on as many devices as cores: they came to a standstill once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.once, pytest.mark.full]

SCRIPT = """
import os
import jax
jax.config.update("jax_num_cpu_devices", max(2, len(os.sched_getaffinity(0))))
import numpy as np
from flax import nnx
from jaxviz.attribution import eigen_cam
from jaxviz.models import ResNet, from_module
model = from_module(ResNet("basic", (1, 1, 1, 1), rngs=nnx.Rngs(0)), mean=[0.5] * 3, std=[0.25] * 3)
images = np.random.default_rng(0).uniform(size=(4 * len(jax.devices()), 224, 224, 3)).astype(np.float32)
assert np.isfinite(eigen_cam(model, images, layer="layer4").maps).all()
"""


def test_it_comes_to_an_end() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], cwd=Path(__file__).parents[3], check=True, timeout=300)
