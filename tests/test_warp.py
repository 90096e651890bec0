"""The warp against SciPy, and its gradient against the transposed matrix."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz import _warp
from tests.transforms.common import image


def similarity(factor, degrees):
    angle = np.deg2rad(degrees)
    return np.float32(factor) * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)


def spread(factor, degrees):
    return jnp.float32(1.001 * np.abs(similarity(factor, degrees)).sum(1).max())


WARP = jax.jit(_warp.warp, static_argnames=("size", "fill"))
MOTIONS = [
    (1.0, 0, (0, 0)),
    (1.1, 10, (3, -2)),
    (0.9, -7, (0.5, 0.25)),
    (1.6, 40, (0, 1)),
    (0.3, 100, (1, 0)),
    (3.0, -170, (0, -1)),
]


@pytest.mark.parametrize("factor, degrees, offset", MOTIONS)
def test_warp_is_scipys_bilinear_interpolation(factor, degrees, offset):
    ndimage = pytest.importorskip("scipy.ndimage")
    x, size = image(), (11, 15)
    out = WARP(x, similarity(factor, degrees), np.array(offset, np.float32), size=size, fill=0.5, reach=spread(factor, degrees))
    # Where each pixel of the window comes from, in float64 and by a general inverse.
    window = np.stack(np.meshgrid(np.arange(11) - 5.0, np.arange(15) - 7.0, indexing="ij"))
    places = np.einsum("ij,jrc->irc", np.linalg.inv(similarity(factor, degrees)), window - np.reshape(offset, (2, 1, 1)))
    places += np.array([4.0, 5.5]).reshape(2, 1, 1)
    expected = [ndimage.map_coordinates(x[..., k], places, order=1, mode="grid-constant", cval=0.5) for k in range(3)]
    np.testing.assert_allclose(out, np.stack(expected, -1), atol=1e-5)


@pytest.mark.parametrize("factor, degrees, offset", MOTIONS)
def test_gradient_of_warp_is_its_exact_adjoint(factor, degrees, offset):
    """The warp is linear up to its fill: its matrix, column by column, is what the gradient must apply transposed."""
    source, size = (6, 5), (8, 7)
    matrix, offset = similarity(factor, degrees), np.array(offset, np.float32)

    @jax.jit
    def both(x, cotangent, reach):
        move = partial(_warp.warp, matrix=matrix, offset=offset, size=size, fill=0.0, reach=reach)
        columns = jax.vmap(move)(jnp.eye(30).reshape(30, *source, 1)).reshape(30, 56)
        return columns, jax.vjp(move, x)[1](cotangent)[0]

    x, cotangent = image(*source, 2), image(*size, 2)
    for slack in (1, 2.5):  # the bound of the reach may be loose
        columns, gradient = both(x, cotangent, slack * spread(factor, degrees))
        np.testing.assert_allclose(gradient.reshape(30, 2), columns @ cotangent.reshape(56, 2), atol=2e-5)


def test_second_derivative():
    """Gradients go through the gradient: d/dx of |g(x)|^2, g the gradient of a sum of cubes of the warped image."""
    x = image(6, 5, 1)
    move = partial(
        _warp.warp, matrix=similarity(1.1, 20), offset=np.zeros(2, np.float32), size=(6, 5), fill=0.0, reach=spread(1.1, 20)
    )

    def penalty(x):
        return jnp.sum(jax.grad(lambda x: jnp.sum(move(x) ** 3))(x) ** 2)

    direction = image(6, 5, 1, seed=1)
    value, slope = jax.jit(jax.value_and_grad(penalty))(x)
    ahead = jax.jit(penalty)(x + 1e-3 * direction)
    assert float((ahead - value) / 1e-3) == pytest.approx(float(jnp.sum(slope * direction)), rel=0.02)
