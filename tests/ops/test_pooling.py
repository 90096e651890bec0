"""Max pooling and its gradient against torch, ties included; adaptive average pooling."""

from __future__ import annotations

from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz import ArgumentError
from jaxviz.ops import avg_pool, max_pool

SHAPES = [(2, 8, 8, 3), (1, 7, 10, 2)]
# window, stride, padding; the first two are ResNet's and VGG's
WINDOWS = [
    ((3, 3), (2, 2), ((1, 1), (1, 1))),
    ((2, 2), (2, 2), ((0, 0), (0, 0))),
    ((3, 3), (1, 1), ((1, 1), (1, 1))),
    ((3, 2), (2, 3), ((1, 1), (0, 0))),
    ((2, 2), (3, 3), ((0, 0), (0, 0))),
    ((4, 4), (2, 2), ((2, 2), (2, 2))),
    ((1, 1), (2, 2), ((0, 0), (0, 0))),
]


def values(shape, kind):
    rng = np.random.default_rng(0)
    if kind == "zeros":
        return np.zeros(shape, np.float32)
    if kind == "ties":  # few distinct values, many windows of zeros, as after a ReLU
        return np.maximum(rng.integers(-3, 3, shape), 0).astype(np.float32)
    return rng.normal(size=shape).astype(np.float32)


@partial(jax.jit, static_argnums=0)
def value_and_pulled(pool, x):
    """Return what a pooling gives, a cotangent, and what its gradient makes of that; compiled as one program."""
    y, pull = jax.vjp(pool, x)
    g = jnp.sin(1 + jnp.arange(y.size, dtype=y.dtype) ** 2).reshape(y.shape)
    return y, g, pull(g)[0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("window, stride, padding", WINDOWS)
def test_max_pool_matches_torch(window, stride, padding, shape):
    torch = pytest.importorskip("torch")
    pool = partial(max_pool, window=window, stride=stride, padding=padding)
    for kind in ("normal", "ties", "zeros"):
        x = values(shape, kind)
        y, g, grad = map(np.asarray, value_and_pulled(pool, x))
        t = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
        u = torch.nn.functional.max_pool2d(t, window, stride, (padding[0][0], padding[1][0]))
        u.backward(torch.from_numpy(g.transpose(0, 3, 1, 2).copy()))
        np.testing.assert_array_equal(y, u.detach().numpy().transpose(0, 2, 3, 1))
        np.testing.assert_allclose(grad, t.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-6, atol=1e-6)


def test_max_pool_gives_each_gradient_to_the_first_of_equals():
    x = jnp.zeros((1, 4, 4, 1))
    grad = jax.grad(lambda x: max_pool(x, window=(2, 2), stride=(2, 2)).sum())(x)[0, :, :, 0]
    np.testing.assert_array_equal(grad, [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize("window, stride, padding", WINDOWS[:2])
def test_max_pool_under_jit_and_vmap(window, stride, padding):
    grad = jax.grad(lambda x: (max_pool(x, window=window, stride=stride, padding=padding) ** 2).sum())
    x = values((2, 1, 7, 9, 2), "ties")
    one_by_one = np.stack([grad(each) for each in x])
    np.testing.assert_array_equal(jax.jit(jax.vmap(grad))(x), one_by_one)


def test_max_pool_gradient_can_be_differentiated_again():
    # The gradient of sum(pool(x)^2) is 2 x at each winner, once for each window that it wins, and 0 elsewhere.
    pooled = partial(max_pool, window=(2, 2), stride=(2, 2))
    first = jax.grad(lambda x: (pooled(x) ** 2).sum())
    x, v = values((1, 6, 6, 2), "normal"), values((1, 6, 6, 2), "normal")[:, ::-1]
    gradient, second = jax.jit(lambda x: (first(x), jax.grad(lambda x: (first(x) * v).sum())(x)))(x)
    np.testing.assert_allclose(second, np.where(gradient != 0, 2 * v, 0), rtol=1e-6)


def test_max_pool_has_no_forward_mode():
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda x: max_pool(x, window=(2, 2), stride=(2, 2)), (jnp.ones((1, 4, 4, 1)),), (jnp.ones((1, 4, 4, 1)),))


def test_max_pool_of_too_small_images():
    with pytest.raises(ArgumentError, match="too small"):
        max_pool(jnp.ones((1, 1, 8, 3)), window=(2, 2), stride=(2, 2))


@pytest.mark.parametrize(
    "size, bins",
    [
        ((7, 7), (7, 7)),
        ((14, 21), (7, 7)),
        ((1, 1), (7, 7)),
        ((2, 3), (7, 7)),
        ((10, 9), (7, 7)),
        ((5, 16), (3, 5)),
        ((5, 6), (1, 1)),
    ],
)
def test_avg_pool_matches_torch(size, bins):
    torch = pytest.importorskip("torch")
    x = values((2, *size, 3), "normal")
    y, g, grad = map(np.asarray, value_and_pulled(partial(avg_pool, size=bins), x))
    t = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    u = torch.nn.functional.adaptive_avg_pool2d(t, bins)
    u.backward(torch.from_numpy(g.transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(y, u.detach().numpy().transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(grad, t.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-6)


def test_pooling_lowers_everywhere():
    def loss(x):
        y = max_pool(x, window=(3, 3), stride=(2, 2), padding=((1, 1), (1, 1)))
        return avg_pool(y, size=(3, 3)).sum()

    exported = jax.export.export(jax.jit(jax.vmap(jax.grad(loss))), platforms=["cpu", "cuda", "tpu"])
    assert exported(jax.ShapeDtypeStruct((2, 1, 16, 12, 3), "float32")).platforms == ("cpu", "cuda", "tpu")


def test_max_pool_has_no_scatter():
    """XLA's own gradient is a select-and-scatter, which is what the hand-written one avoids."""
    loss = lambda x: max_pool(x, window=(3, 3), stride=(2, 2), padding=((1, 1), (1, 1))).sum()  # noqa: E731
    assert "scatter" not in str(jax.make_jaxpr(jax.grad(loss))(jnp.ones((1, 8, 8, 1))))
