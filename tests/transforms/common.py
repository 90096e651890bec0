"""What the tests of transforms share: keys, an image, and one way to call."""

from __future__ import annotations

import jax
import numpy as np

from tests.tiny import random_images

KEYS = jax.random.split(jax.random.key(0), 3)
APPLY = jax.jit(lambda transform, key, image: transform(key, image))  # compiled once for a kind and shape


def call(transform, key, image):
    """What `check_all` calls."""
    return transform(key, image)


def image(h: int = 9, w: int = 12, c: int = 3, seed: int = 0) -> np.ndarray:
    return random_images(h, w, c, seed=seed)


def images(*shape: int) -> np.ndarray:
    """One image for each of KEYS."""
    return random_images(len(KEYS), *(shape or (9, 12, 3)))
