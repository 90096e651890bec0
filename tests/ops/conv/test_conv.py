"""Convolutions and their gradients, against XLA's own and torch's, and networks that were asked to be fast."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz as jv
from jaxviz.ops import conv
from jaxviz.ops._conv.direct import xla_conv
from jaxviz.ops._conv.geometry import Geometry
from jaxviz.ops._conv.winograd_f4 import PreparedKernel, plain_kernel, prepare_kernel

# size, channels, channels out, window, stride, padding, dilation, groups
CASES = {
    "3 x 3": (9, 64, 72, 3, 1, 1, 1, 1),
    "no padding": (13, 64, 64, 3, 1, 0, 1, 1),
    "padding of the whole kernel": (6, 64, 64, 3, 1, 2, 1, 1),
    "more padding than the kernel": (7, 64, 64, 3, 1, 4, 1, 1),
    "stride 2": (8, 64, 64, 3, 2, 1, 1, 1),
    "stride 2, odd": (9, 8, 12, 3, 2, 1, 1, 1),
    "stem": (15, 3, 8, 7, 2, 3, 1, 1),
    "stem of even size": (16, 3, 8, 7, 2, 3, 1, 1),
    "stem of stride 4": (19, 1, 8, 11, 4, 2, 1, 1),
    "stem that leaves out rows": (11, 3, 8, 2, 3, 0, 1, 1),
    "stem with more padding than its kernel": (9, 4, 8, 3, 2, 4, 1, 1),
    "dilated": (9, 64, 64, 3, 1, 2, 2, 1),
    "groups": (9, 64, 64, 3, 1, 1, 1, 4),
    "groups, stride 2": (8, 8, 12, 3, 2, 1, 1, 4),
    "many places": (15, 16, 8, 3, 1, 1, 1, 1),
    "many places, stride 2": (15, 16, 8, 3, 2, 1, 1, 1),
    "many places, dilated": (15, 16, 8, 3, 1, 4, 2, 1),
    "few places": (5, 8, 80, 3, 1, 1, 1, 1),
    "few places, stride 2": (6, 8, 80, 3, 2, 1, 1, 1),
    "few places, dilated, stride 3": (11, 8, 80, 4, 3, 3, 2, 1),
    "few places, more padding than the kernel": (2, 8, 80, 3, 1, 4, 1, 1),
    "1 x 1": (9, 16, 12, 1, 1, 0, 1, 1),
    "1 x 1, stride 2": (8, 16, 12, 1, 2, 0, 1, 1),
    "rows that nothing reads": (11, 8, 12, 2, 3, 0, 1, 1),
    "too small for a tile": (3, 64, 64, 3, 1, 1, 1, 1),
    "smaller than the kernel": (2, 64, 64, 3, 1, 1, 1, 1),
    "smaller than the kernel, many places": (2, 16, 8, 3, 1, 1, 1, 1),
    "smaller than the kernel, stride 2": (2, 16, 8, 3, 2, 1, 1, 1),
    "smaller than the kernel, dilated": (2, 8, 12, 3, 1, 2, 2, 1),
    "smaller than the kernel, groups": (2, 8, 12, 3, 1, 1, 1, 4),
    "smaller than a large kernel": (4, 8, 12, 5, 1, 2, 1, 1),
    "one row": (1, 8, 12, 3, 1, 1, 1, 1),
    "one row, no padding": (3, 8, 12, 3, 1, 0, 1, 1),
    "one row, of which every second weight is seen": (1, 8, 12, 3, 2, 2, 1, 1),
    "one row that is not seen": (1, 8, 12, 2, 3, 2, 1, 1),
}


def made(case: str) -> tuple[np.ndarray, np.ndarray, dict[str, Any], partial]:
    """Return images, a kernel, the options of `conv`, and the reference."""
    size, c, k, window, stride, padding, dilation, groups = CASES[case]
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, size, size + 1, c)).astype(np.float32)
    kernel = (rng.normal(size=(window, window, c // groups, k)) / window / np.sqrt(c)).astype(np.float32)
    border = ((padding, padding), (padding, padding))
    options = {"stride": (stride, stride), "padding": border, "dilation": (dilation, dilation), "groups": groups}
    return images, kernel, options, partial(xla_conv, geometry=Geometry(*options.values()))


def prepared(kernel: np.ndarray, options: dict[str, Any]) -> PreparedKernel:
    return prepare_kernel(jnp.asarray(kernel), **{name: options[name] for name in ("stride", "dilation", "groups")})


def weights_of(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_xlas(case):
    images, kernel, options, reference = made(case)
    y, pull = jax.vjp(jax.jit(partial(conv, **options)), images, kernel)
    expected, reference_pull = jax.vjp(jax.jit(reference), images, kernel)
    g = weights_of(y.shape)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    for found, wanted in zip(pull(g), reference_pull(g), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("case", CASES)
def test_prepared_kernels_give_the_same_to_a_few_hundred_thousandths(case):
    images, kernel, options, reference = made(case)
    ready = prepared(kernel, options)
    y, pull = jax.vjp(jax.jit(lambda x: conv(x, ready, **options)), images)
    expected, reference_pull = jax.vjp(lambda x: reference(x, kernel), images)
    g = weights_of(y.shape)
    np.testing.assert_allclose(y, expected, atol=3e-5 * np.abs(expected).max())
    wanted = reference_pull(g)[0]
    np.testing.assert_allclose(pull(g)[0], wanted, atol=3e-5 * np.abs(wanted).max())


def test_what_is_transformed():
    for case in CASES:
        _, kernel, options, _ = made(case)
        _, c, k, window, stride, _, dilation, groups = CASES[case]
        ready = prepared(kernel, options)
        expected = (window, stride, dilation, groups) == (3, 1, 1, 1) and min(c, k) >= 64
        assert (ready.forward is not None) == expected, case
        np.testing.assert_array_equal(plain_kernel(ready), kernel)
        assert plain_kernel(kernel) is kernel
        assert ready.shape == kernel.shape


@pytest.mark.parametrize("case", ["3 x 3", "stride 2", "1 x 1, stride 2"])
@pytest.mark.parametrize("prepare", [False, True])
def test_vmap_jit_and_loops_change_nothing(case, prepare):
    images, kernel, options, _ = made(case)
    weights: Any = prepared(kernel, options) if prepare else kernel

    def slope(x: jax.Array) -> jax.Array:
        return jax.grad(lambda x: (conv(x, weights, **options) ** 2).sum())(x)

    many = jnp.stack([jnp.asarray(images), 2 * jnp.asarray(images), -jnp.asarray(images)])
    each = jnp.stack([jax.jit(slope)(x) for x in many])
    close = partial(np.testing.assert_allclose, atol=3e-5 * float(jnp.abs(each).max()))
    close(jax.jit(jax.vmap(slope))(many), each)
    close(jax.jit(jax.vmap(jax.vmap(lambda x: slope(x[None])[0])))(many), each)
    close(jax.jit(lambda many: jax.lax.map(slope, many))(many), each)


def test_kernels_of_several_networks_may_be_mapped_over():
    images, kernel, options, reference = made("3 x 3")
    kernels = [prepared(factor * kernel, options) for factor in (1, 2)]
    both = jax.tree.map(lambda *leaves: np.stack(leaves), *kernels)
    found = jax.vmap(lambda kernel: conv(images, kernel, **options))(both)
    expected = np.stack([reference(images, factor * kernel) for factor in (1, 2)])
    np.testing.assert_allclose(found, expected, atol=3e-5 * np.abs(expected).max())


@pytest.mark.parametrize("case", ["stride 2, odd", "stem", "few places, stride 2", "1 x 1, stride 2", "dilated"])
def test_second_derivatives(case):
    images, kernel, options, reference = made(case)

    def twice(fn: Any) -> tuple[jax.Array, ...]:
        def slope(x: Any, w: Any) -> jax.Array:
            return jax.grad(lambda x: jnp.sin(fn(x, w)).sum())(x)

        return jax.jit(jax.grad(lambda x, w: (slope(x, w) ** 2).sum(), argnums=(0, 1)))(images, kernel)

    for ours, wanted in zip(twice(partial(conv, **options)), twice(reference), strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-5 * float(jnp.abs(wanted).max()))


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("smaller") and "groups" not in case])
@pytest.mark.parametrize("prepare", [False, True])
def test_maps_smaller_than_the_kernel_are_products(case, prepare):
    """XLA would slide such a map over the kernel, in a loop that is a hundred times slower."""
    images, kernel, options, _ = made(case)
    weights: Any = prepared(kernel, options) if prepare else kernel
    fn = jax.vmap(jax.grad(lambda x: (conv(x, weights, **options) ** 2).sum()))
    assert "convolution(" not in jax.jit(fn).lower(np.stack([images] * 3)).compile().as_text()


def test_gradients_of_a_strided_first_convolution_are_one_image_at_a_time_under_vmap_too():
    """A program that maps over units has one image each: in one batch, all of them would leave the cache."""
    images, kernel, options, _ = made("stem")
    many = jnp.stack([jnp.asarray(images[:1])] * 5)
    slope = jax.grad(lambda x: (conv(x, kernel, **options) ** 2).sum())
    assert str(jax.make_jaxpr(jax.vmap(slope))(many)).count("length=5") == 1
    assert str(jax.make_jaxpr(slope)(many[:, 0])).count("length=5") == 1


def test_only_what_is_asked_for_is_computed():
    images, kernel, options, _ = made("many places, stride 2")
    text = str(jax.make_jaxpr(jax.grad(lambda x: conv(x, kernel, **options).sum()))(images))
    assert text.count("conv_general_dilated[") == 1 + 2  # forwards, and the images' gradient for CPUs and for the rest


@pytest.fixture(scope="module")
def model() -> jv.Model:
    return jv.load()


def test_a_fast_network_is_the_same_network(model):
    images = np.random.default_rng(2).uniform(size=(2, 64, 64, 3)).astype(np.float32)
    before = jax.tree.map(np.asarray, model.state)
    fast = model.fast()
    assert len(jax.tree.leaves(fast.state)) > len(jax.tree.leaves(model.state))
    assert jax.tree.structure(model.state) == jax.tree.structure(before), "fast() changed the model that it was asked of"
    exact = np.asarray(model(images))
    assert 0 < np.abs(fast(images) - exact).max() < 1e-5 * np.abs(exact).max()
    for name, weights in model.state_dict().items():
        np.testing.assert_array_equal(fast.state_dict()[name], weights)
    assert fast.fast().state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    "method", ["saliency", pytest.param("lrp", marks=pytest.mark.full)]
)  # LRP has rules of its own for convolutions
def test_attribution_of_a_fast_network(model, method):
    images = np.random.default_rng(3).uniform(size=(2, 64, 64, 3)).astype(np.float32)
    attribute = getattr(jv.attribution, method)
    exact, found = attribute(model, images).maps, attribute(model.fast(), images).maps
    # The maps of a median pixel: a ReLU whose input is within rounding of 0 may go the other way.
    assert np.median(np.abs(found - exact)) <= 1e-5 * np.abs(exact).max()


def test_visualize_uses_the_fast_network_and_asked_for_exact_ops_the_given_one(model):
    options: dict[str, Any] = {"steps": 3, "size": 64, "transforms": (), "seed": 1}
    wanted = jv.channel("layer3", [1, 2])
    default, exact = jv.visualize(model, wanted, **options), jv.visualize(model, wanted, ops=jv.ops.EXACT, **options)
    assert (default.images != exact.images).any()
    np.testing.assert_allclose(default.images, exact.images, atol=1e-2)
    np.testing.assert_allclose(default.scores, exact.scores, rtol=1e-2)


def test_a_pure_function_is_as_fast_as_it_is():
    model = jv.models.from_function(lambda images: images.mean((1, 2)))
    assert model.fast() is model
