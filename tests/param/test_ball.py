"""Images held within a distance of a given one."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import jaxviz as jv
from tests.contracts import check_all
from tests.tiny import random_images, tiny_model

PHOTO = random_images(6, 5, 3) * 0.9 + 0.05


def test_projection_is_the_nearest_point_of_the_ball():
    far = PHOTO + random_images(6, 5, 3, seed=1) - 0.5
    box = jv.param.ball(PHOTO, 0.02, "l_infinity")
    np.testing.assert_allclose(box.project(far), np.clip(far, PHOTO - 0.02, PHOTO + 0.02), atol=1e-6)
    round_ = jv.param.ball(PHOTO, 0.1)
    change = far - PHOTO
    np.testing.assert_allclose(round_.project(far), PHOTO + change * 0.1 / np.linalg.norm(change), atol=1e-6)
    near = PHOTO + 1e-4
    np.testing.assert_allclose(round_.project(near), near, atol=1e-6)
    np.testing.assert_allclose(round_.init(jax.random.key(0)), PHOTO)


@pytest.mark.parametrize("norm", ["l2", "l_infinity"])
def test_contract(norm):
    variants = [lambda: jv.param.ball(PHOTO, 0.3, norm), lambda: jv.param.ball(PHOTO * 0.5, 0.2, norm)]
    check_all(lambda param, p: param.decode(param.project(p)), variants, [np.stack([PHOTO + 0.1, PHOTO - 0.1])])


def test_a_run_stays_in_the_ball_and_rises():
    photo = np.full((16, 16, 3), 0.5, np.float32)
    options = {"size": 16, "steps": 8, "transforms": (), "param": jv.param.ball(photo, 0.05, "l_infinity")}
    result = jv.visualize(tiny_model(), "relu_1:0-2", **options)
    assert np.abs(result.images - 0.5).max() <= 0.05 + 1e-6
    assert (result.history[..., -1] > result.history[..., 0]).all()


def test_bad_input():
    with pytest.raises(jv.ArgumentError, match="l_infinity"):
        jv.param.ball(PHOTO, 0.1, "l1")
    with pytest.raises(jv.ArgumentError, match=r"\[0, 1\]"):
        jv.param.ball(PHOTO * 2, 0.1)
    with pytest.raises(jv.ArgumentError, match="radius"):
        jv.param.ball(PHOTO, -1)
