"""Transforms one after the other."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz import ArgumentError
from jaxviz import transforms as T
from tests.contracts import check_all
from tests.transforms.common import KEYS, call, image, images


def test_every_part_has_its_own_key():
    seen = []

    def spy(key, image):
        seen.append(jax.random.key_data(key))
        return image

    T.compose(spy, T.jitter(2), T.compose(spy, spy))(KEYS[0], image())
    expected = [jax.random.key_data(jax.random.fold_in(KEYS[0], position)) for position in (0, 2, 3)]
    np.testing.assert_array_equal(seen, expected)


def test_identity():
    x = image()
    assert T.identity()(KEYS[0], x) is x
    assert len(T.compose(T.identity(), T.pad(1), T.identity()).parts) == 1


def brighten(key, image):
    return image * jax.random.uniform(key, minval=0.8, maxval=1.2)


def test_contract():
    """Motions, a user's function, and motions again."""
    variants = [
        lambda: T.compose(T.pad(2), T.rotate(10), brighten, T.jitter(3)),
        lambda: T.compose(T.pad(2), T.rotate(80.5), brighten, T.jitter(8)),
    ]
    check_all(call, variants, [KEYS, images()])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: T.compose(T.pad(1), 3),  # pyright: ignore
        lambda: T.compose(T.pad(1))(KEYS[0], jnp.zeros((4, 4))),
    ],
)
def test_wrong_arguments(wrong):
    with pytest.raises(ArgumentError):
        wrong()
