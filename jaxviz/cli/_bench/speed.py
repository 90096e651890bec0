"""The speed of a machine: the peaks of its devices, and of networks on them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxviz
from jaxviz.models import activations, forward
from jaxviz.models._network import Network

UNITS = "units"  # the task of activation maximization, measured on several devices too


@dataclass(frozen=True)
class Timing:
    """Seconds of a call: median, minimum and maximum of several calls, and the time of the first."""

    median: float
    least: float
    most: float
    first: float

    @property
    def compiling(self) -> float:
        return max(0.0, self.first - self.median)


@dataclass(frozen=True)
class Peak:
    """The speed of a device in one kind of operation, in FLOP/s."""

    name: str
    flops: float


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        model, task, batch, devices: what was measured; `batch` is for each device, and counts units for the task `units`.
        rate: images, or image-steps, per second.
        spread: the lowest and the highest rate.
        compiling: seconds of the first call, minus those of a later call.
        flops: FLOP/s, by XLA's count of the program before optimization.
        memory: bytes that the compiled program needs on a device, or None if XLA does not report it.
    """

    model: str
    task: str
    batch: int
    devices: int
    rate: float
    spread: tuple[float, float]
    compiling: float
    flops: float
    memory: int | None


def time_calls(fn: Callable[[], Any], seconds: float, least: int = 3) -> Timing:
    """Time calls of `fn` until their results are ready: a first that compiles, then at least `least` for `seconds`."""

    def timed() -> float:
        begun = time.perf_counter()
        jax.block_until_ready(fn())
        return time.perf_counter() - begun

    first = timed()
    times: list[float] = []
    while len(times) < least or sum(times) < seconds:
        times.append(timed())
    return Timing(statistics.median(times), min(times), max(times), first)


def peaks(device: Any, seconds: float) -> list[Peak]:
    """Measure matrix products and 3 x 3 convolutions on one device: full float32, and faster types on accelerators."""
    small = device.platform == "cpu"
    kinds = [("float32", jnp.float32, "highest")]
    if not small:
        kinds += [("default precision", jnp.float32, "default"), ("bfloat16", jnp.bfloat16, "default")]
    n, batch = (1024, 4) if small else (8192, 128)
    measured: list[Peak] = []
    for words, dtype, precision in kinds:
        with jax.default_matmul_precision(precision), jax.default_device(device):
            key = jax.random.key(0)
            a = jax.random.normal(key, (n, n), dtype)
            timing = time_calls(lambda a=a: _product(a, a), seconds)
            measured.append(Peak(f"matrix product, {words}", 2 * n**3 / timing.median))
            x, w = jax.random.normal(key, (batch, 28, 28, 256), dtype), jax.random.normal(key, (3, 3, 256, 256), dtype)
            timing = time_calls(lambda x=x, w=w: _convolution(x, w), seconds)
            measured.append(Peak(f"3 x 3 convolution, {words}", 2 * batch * 28 * 28 * 9 * 256 * 256 / timing.median))
    return measured


@jax.jit
def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return a @ b


@jax.jit
def _convolution(x: jax.Array, w: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@jax.jit
def _logits(network: Network, images: jax.Array) -> jax.Array:
    return forward(network, images)


@jax.jit
def _gradients(network: Network, images: jax.Array) -> jax.Array:
    return jax.grad(lambda images: forward(network, images).max(-1).sum())(images)


def measure(
    model: jaxviz.Model, task: str, batch: int, size: int, layer: str, *, precision: str, seconds: float, devices: int = 1
) -> Row:
    """Measure one task: `forward`, `gradient` (of each image's top logit), or `units` (steps of activation maximization)."""
    with jax.default_matmul_precision(precision):
        if task == UNITS:
            return _measure_units(model, batch, size, layer, precision, seconds, devices)
        fn = {"forward": _logits, "gradient": _gradients}[task]
        images = jax.random.uniform(jax.random.key(0), (batch, size, size, model.in_channels))
        timing = time_calls(lambda: fn(model.network, images), seconds)
        lowered = fn.lower(model.network, images)
        return Row(
            model.name,
            task,
            batch,
            1,
            batch / timing.median,
            (batch / timing.most, batch / timing.least),
            timing.compiling,
            _flops(lowered) / timing.median,
            _memory(lowered),
        )


def _measure_units(model: jaxviz.Model, batch: int, size: int, layer: str, precision: str, seconds: float, devices: int) -> Row:
    """Measure `visualize` with its defaults, between its reports of progress."""
    units, mesh = batch * devices, jaxviz.make_mesh(devices)
    marks: list[tuple[float, int]] = []
    begun = time.perf_counter()

    def run(steps: int) -> None:
        def mark(now: jaxviz.Progress) -> None:
            marks.append((time.perf_counter(), now.step))

        objective = jaxviz.channel(layer, np.arange(units) % model.layers(size)[layer].channels)
        jaxviz.visualize(model, objective, steps=steps, size=size, chunk=units, mesh=mesh, precision=precision, progress=mark)

    steps, first = 8, None
    while True:
        marks.clear()
        run(steps)
        first = first or marks[0][0] - begun
        elapsed = marks[-1][0] - marks[0][0]
        if elapsed >= seconds and len(marks) > 1:
            break
        steps = math.ceil(steps * (min(8, max(1.5, 1.5 * seconds / elapsed)) if elapsed else 8))
    times = [(b[0] - a[0]) / (b[1] - a[1]) for a, b in pairwise(marks)]
    each = statistics.median(times)

    def value(images: jax.Array, network: Network) -> jax.Array:
        return activations(network, images, (layer,))[layer][..., 0].mean((1, 2)).sum()

    lowered = jax.jit(jax.grad(value)).lower(jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32), model.network)
    return Row(
        model.name,
        f"{UNITS} of {layer}",
        batch,
        devices,
        units / each,
        (units / max(times), units / min(times)),
        max(0.0, first - each),
        devices * _flops(lowered) / each,
        _memory(lowered),
    )


def _flops(lowered: Any) -> float:
    return float((lowered.cost_analysis() or {}).get("flops", math.nan))


def _memory(lowered: Any) -> int | None:
    analysis = lowered.compile().memory_analysis()
    parts = ("temp_size_in_bytes", "argument_size_in_bytes", "output_size_in_bytes")
    return None if analysis is None else sum(getattr(analysis, part) for part in parts)
