"""Options of every run, and the one rule for the default precision.

Precision is that of convolutions and matrix products. GPUs and TPUs round their inputs (TF32, bfloat16) unless told not to;
CPUs always compute in full float32. Results that are compared, read as numbers or saved as features (attribution, metrics,
inspection) use `FULL_PRECISION` by default. Images that are optimized (`visualize` and its kin) follow the caller's
`jax.default_matmul_precision` by default, which is None here: rounding only perturbs the ascent, and speed matters more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypedDict

import jax
from jax.sharding import Mesh

from jaxviz.engine._progress import Progress

FULL_PRECISION = "highest"


class RunOptions(TypedDict, total=False):
    """How a run is carried out; apart from rounding, the options do not change the result.

    Attributes:
        mesh: the devices to use, a mesh of any shape; all devices of this process by default.
        chunk: evaluations of the network at a time, over all devices; chosen for the machine by default.
        precision: of convolutions and matrix products, a value of `jax.default_matmul_precision`; "highest" by default, which
            is full float32 on every device.
        progress: called with a `Progress` after every chunk.
    """

    mesh: Mesh | None
    chunk: int | None
    precision: str
    progress: Callable[[Progress], None] | None


def matmul_precision(precision: str | None) -> AbstractContextManager[None]:
    """Return a context in which JAX computes in `precision`; None keeps the caller's.

    It is a setting of the thread: do not hold it over a `yield`.
    """
    return contextlib.nullcontext() if precision is None else jax.default_matmul_precision(precision)
