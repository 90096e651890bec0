"""Winograd's F(2 x 2, 3 x 3), through which networks compute as they are: as near to float64 as the direct sum is."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz.ops import conv
from jaxviz.ops._conv.direct import direct_conv, xla_conv
from jaxviz.ops._conv.geometry import Geometry
from jaxviz.ops._conv.winograd_f2 import hoist_kernel, suits_winograd_f2

# images, height, width, channels, channels out, padding
CASES = {
    "map of 28": (2, 28, 28, 64, 64, ((1, 1), (1, 1))),
    "odd sides": (5, 13, 15, 96, 64, ((1, 1), (1, 1))),
    "no padding": (2, 24, 31, 64, 80, ((0, 0), (0, 0))),
    "uneven padding": (3, 17, 18, 64, 64, ((0, 2), (2, 1))),
    "many channels, small maps": (15, 7, 7, 256, 192, ((1, 1), (1, 1))),
}
GEOMETRY = {name: Geometry(padding=case[-1]) for name, case in CASES.items()}


def made(case: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images as they are above a ReLU, and a kernel."""
    n, h, w, c, k, _ = CASES[case]
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, c, k)) * np.sqrt(2 / 9 / c)
    return np.maximum(rng.normal(size=(n, h, w, c)), 0).astype(np.float32), kernel.astype(np.float32)


def errors(found: Any, exact: Any) -> tuple[float, float]:
    """Return the mean and the largest difference, of the largest value."""
    apart = np.abs(np.asarray(found, np.float64) - exact) / np.abs(exact).max()
    return float(np.sqrt((apart**2).mean())), float(apart.max())


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_as_near_to_float64_as_direct_sums(case: str) -> None:
    images, kernel = made(case)
    assert suits_winograd_f2(jnp.asarray(images), jnp.asarray(kernel), GEOMETRY[case])

    def both(convolve: Any, x: Any, w: Any) -> list[jax.Array]:
        y, pull = jax.vjp(lambda x: convolve(x, w), x)
        return [y, *pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))]

    with jax.enable_x64(True):
        wide = (jnp.asarray(value, jnp.float64) for value in (images, kernel))
        exact = [np.asarray(value) for value in both(partial(xla_conv, geometry=GEOMETRY[case]), *wide)]
    found = jax.jit(partial(both, partial(conv, padding=CASES[case][-1])))(images, kernel)
    direct = jax.jit(partial(both, partial(direct_conv, geometry=GEOMETRY[case])))(images, kernel)
    for ours, theirs, wanted in zip(found, direct, exact, strict=True):
        assert (np.asarray(ours) != np.asarray(theirs)).any(), "it was the direct sum"
        (mean, most), (direct_mean, direct_most) = errors(ours, wanted), errors(theirs, wanted)
        assert mean < 2 * direct_mean and most < 2 * direct_most + 1e-7


@pytest.mark.parametrize("case", ["odd sides", "uneven padding"])
def test_gradients_of_kernels_and_second_derivatives(case: str) -> None:
    images, kernel = made(case)

    def slopes(convolve: Any) -> tuple[jax.Array, ...]:
        def score(x: Any, w: Any) -> jax.Array:
            return jnp.sin(convolve(x, w)).sum()

        def steep(x: Any, w: Any) -> jax.Array:
            return (jax.grad(score)(x, w) ** 2).sum()

        return *jax.grad(score, argnums=(0, 1))(images, kernel), *jax.grad(steep, argnums=(0, 1))(images, kernel)

    found = jax.jit(lambda: slopes(partial(conv, padding=CASES[case][-1])))()
    for ours, wanted in zip(found, slopes(partial(xla_conv, geometry=GEOMETRY[case])), strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-5 * float(jnp.abs(wanted).max()))


def test_one_image_after_the_other_is_one_batch() -> None:
    """A map of 7 x 7 pays for no transform of its kernel; a batch of them does, under `jax.vmap` too."""
    images, kernel = made("many channels, small maps")
    convolve = partial(conv, padding=((1, 1), (1, 1)))
    whole, each = jax.jit(convolve)(images, kernel), jax.jit(jax.vmap(lambda x: convolve(x[None], kernel)[0]))(images)
    np.testing.assert_array_equal(each, whole)
    alone = jax.jit(convolve)(images[:1], kernel)
    np.testing.assert_array_equal(
        alone, jax.jit(partial(direct_conv, geometry=Geometry(padding=((1, 1), (1, 1)))))(images[:1], kernel)
    )
    assert (np.asarray(alone) != np.asarray(whole[:1])).any()
    np.testing.assert_allclose(alone, whole[:1], atol=1e-6 * float(jnp.abs(whole).max()))


@pytest.mark.parametrize("case", [*CASES, "few places"])
def test_kernels_transformed_for_many_steps_give_the_same(case: str) -> None:
    n, case = (2, "many channels, small maps") if case == "few places" else (None, case)
    images, kernel = made(case)
    images, convolve = images[:n], partial(conv, padding=CASES[case][-1])

    def both(x: Any, w: Any) -> list[jax.Array]:
        y, pull = jax.vjp(lambda x: convolve(x, w), x)
        return [y, *pull(jnp.cos(y)), jax.grad(lambda x: jnp.sin(pull(convolve(x, w))[0]).sum())(x)]

    found = jax.jit(lambda x, w: both(x, hoist_kernel(w)))(images, kernel)
    for ours, wanted in zip(found, jax.jit(both)(images, kernel), strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-5 * float(jnp.abs(wanted).max()))
    each = jax.jit(jax.vmap(lambda x, w: convolve(x[None], hoist_kernel(w))[0], (0, None)))(images, kernel)
    np.testing.assert_allclose(each, found[0], rtol=0, atol=0)  # one batch, whose places are counted together


def _same(x: Any, w: Any) -> Any:
    return conv(x, w, padding=((1, 1), (1, 1)))


def test_kernels_transformed_for_many_steps_are_transformed_outside_of_the_loop() -> None:
    images, kernel = made("many channels, small maps")

    def looped(x: Any, w: Any) -> Any:
        tiled = hoist_kernel(w)
        return jax.lax.fori_loop(0, 3, lambda i, x: x + _same(x, tiled), x)

    kernel = kernel[..., :1].repeat(256, -1)
    text = str(jax.make_jaxpr(looped)(images[:4], kernel))
    assert text.count("f32[16,65536] = dot_general") == 2  # that of the kernel and that of its turn, and none in the loop
    assert "f32[16,65536]" not in text.split("scan[")[1]


@pytest.mark.parametrize("ready", [lambda kernel: kernel, hoist_kernel])
def test_networks_may_be_mapped_over(ready: Any) -> None:
    images, kernel = made("map of 28")
    found = jax.vmap(lambda kernel: conv(images, ready(kernel), padding=((1, 1), (1, 1))))(jnp.stack([kernel, 2 * kernel]))
    np.testing.assert_allclose(found[1], 2 * found[0], atol=1e-6 * float(jnp.abs(found).max()))
    np.testing.assert_allclose(found[0], xla_conv(images, kernel, GEOMETRY["map of 28"]), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding", "dilation", "groups"),
    [
        ((2, 28, 28, 64), (3, 3, 64, 64), 2, 1, 1, 1),
        ((2, 28, 28, 64), (3, 3, 64, 64), 1, 2, 2, 1),
        ((2, 28, 28, 128), (3, 3, 64, 128), 1, 1, 1, 2),
        ((2, 28, 28, 64), (5, 5, 64, 64), 1, 2, 1, 1),
        ((2, 28, 28, 32), (3, 3, 32, 64), 1, 1, 1, 1),
        ((2, 28, 28, 64), (3, 3, 64, 64), 1, 3, 1, 1),
        ((2, 112, 112, 64), (3, 3, 64, 64), 1, 1, 1, 1),
        ((64, 4, 4, 64), (3, 3, 64, 64), 1, 1, 1, 1),
    ],
)
def test_what_stays_a_direct_sum(shape, kernel, stride, padding, dilation, groups) -> None:
    sides = (stride, stride), ((padding, padding), (padding, padding)), (dilation, dilation), groups
    assert not suits_winograd_f2(jnp.zeros(shape), jnp.zeros(kernel), Geometry(*sides))
    assert suits_winograd_f2(jnp.zeros((2, 28, 28, 64)), jnp.zeros((3, 3, 64, 64)), Geometry(padding=((1, 1), (1, 1))))
    assert not suits_winograd_f2(jnp.zeros((2, 28, 28, 64), jnp.bfloat16), jnp.zeros((3, 3, 64, 64)), GEOMETRY["map of 28"])
