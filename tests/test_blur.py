"""The Gaussian blur against SciPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz._blur import gaussian_blur
from tests.tiny import random_images

BLUR = jax.jit(gaussian_blur)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.7, 40.0])
def test_blur_is_scipys_over_its_blur_of_ones(sigma):
    ndimage = pytest.importorskip("scipy.ndimage")
    x = random_images(9, 12, 2).astype(np.float64)

    def blurred(x):
        return ndimage.gaussian_filter(x, sigma, mode="constant", radius=12, axes=(0, 1))

    np.testing.assert_allclose(BLUR(x, sigma), blurred(x) / blurred(np.ones_like(x)), atol=2e-6)


def test_no_blur_and_flat_images():
    x = random_images(5, 6, 3)
    np.testing.assert_array_equal(BLUR(x, 0.0), x)
    np.testing.assert_allclose(BLUR(jnp.full((5, 6, 3), 0.3), 1.5), 0.3, atol=1e-6)
    assert BLUR(x[:1, :1], 2.0).tolist() == x[:1, :1].tolist()
