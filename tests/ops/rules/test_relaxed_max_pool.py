"""Relaxed max pooling: the values of max pooling, the gradient of the root mean square."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxviz.ops import RELAXED, max_pool
from tests.tiny import random_images

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(("window", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 0)])
def test_gradient_against_torch(window, stride, padding):
    x = random_images(2, 9, 8, 3) - 0.5
    options = dict(window=(window,) * 2, stride=(stride,) * 2, padding=((padding,) * 2,) * 2)
    out, pull = jax.vjp(lambda x: RELAXED.max_pool(x, **options), x)
    np.testing.assert_array_equal(out, max_pool(x, **options))
    g = random_images(*out.shape, seed=1)
    t = torch.tensor(x.transpose(0, 3, 1, 2).copy(), requires_grad=True)
    torch.nn.functional.avg_pool2d(t**2, window, stride, padding).sqrt().backward(torch.tensor(g.transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(pull(g)[0], t.grad.numpy().transpose(0, 2, 3, 1), atol=1e-6)


def test_a_window_of_zeros_has_no_gradient_and_no_nan():
    out, pull = jax.vjp(lambda x: RELAXED.max_pool(x, window=(2, 2), stride=(2, 2)), np.zeros((1, 4, 4, 2), np.float32))
    np.testing.assert_array_equal(pull(np.ones(out.shape, np.float32))[0], 0)
