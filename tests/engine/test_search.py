"""What helps a search: octaves, restarts, views, a diagnosis of every image, and a NaN that stays where it is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz as jv
from tests.tiny import tiny_model

OPTIONS = {"steps": 6, "size": 16, "samples": 2, "mesh": jv.make_mesh(1), "transforms": ()}


def test_an_octave_starts_from_the_enlarged_image_of_the_one_before():
    coarse = jv.visualize(tiny_model(), "relu_1:3", **(OPTIONS | {"size": 8, "steps": 3}))
    both = jv.visualize(tiny_model(), "relu_1:3", scales=(0.5, 1), snapshots=(3,), **OPTIONS)
    assert both.history.shape == (1, 2, 6) and both.snapshots.shape == (1, 2, 1, 16, 16, 3)
    np.testing.assert_allclose(both.history[..., :3], coarse.history, rtol=1e-3, atol=1e-6)
    enlarged = jax.image.resize(coarse.images[0, 0], (16, 16, 3), "cubic").clip(0, 1)
    np.testing.assert_allclose(both.snapshots[0, 0, 0], enlarged, atol=1e-4)
    start = jv.visualize(tiny_model(), "relu_1:3", scales=(0.5, 1), **(OPTIONS | {"steps": 7, "learning_rate": 0.0}))
    assert np.isfinite(start.images).all() and start.settings["scales"] == [[8, 8], [16, 16]]


def test_octaves_are_1_4_apart_and_share_the_steps():
    result = jv.visualize(tiny_model(), "relu_1:3", scales=3, **(OPTIONS | {"size": (16, 20), "steps": 7}))
    assert result.settings["scales"] == [[8, 10], [11, 14], [16, 20]]
    assert result.history.shape == (1, 2, 7) and np.all(result.history != 0)


def test_a_position_moves_with_the_octave():
    model = tiny_model()
    at = jv.neuron("relu", [1, 2], y=[7, 4], x=2).bind(model, (16, 16)).at_size(model, (16, 16), (8, 12))
    np.testing.assert_array_equal(at.y, [3, 2])
    assert at.x == 1
    assert jv.neuron("relu", 1).bind(model, (16, 16)).at_size(model, (16, 16), (8, 12)).y is None
    along = jv.direction_neuron("relu", np.ones(8), y=7).bind(model, (16, 16)).at_size(model, (16, 16), (8, 8))
    assert along.y == 3 and along.x is None


def test_the_best_of_several_starts_is_kept_whole():
    one = jv.visualize(tiny_model(), "relu_1:0-3", **(OPTIONS | {"samples": 6}))
    best = jv.visualize(tiny_model(), "relu_1:0-3", restarts=3, snapshots=(6,), **OPTIONS)
    groups = one.scores.reshape(4, 3, 2)
    kept = groups.mean(2).argmax(1)
    assert len(set(kept.tolist())) > 1  # the first start is not always the best: the test can fail
    rows = np.arange(4), kept
    np.testing.assert_allclose(best.scores, groups[rows], rtol=1e-4)
    np.testing.assert_allclose(best.images, one.images.reshape(4, 3, 2, 16, 16, 3)[rows], atol=1e-4)
    np.testing.assert_allclose(best.history, one.history.reshape(4, 3, 2, 6)[rows], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(best.snapshots[:, :, 0], best.images, atol=1e-6)


def test_views_average_over_the_draws():
    def darken(key, image):
        return image * jax.random.uniform(key)

    one = jv.visualize(tiny_model(), "relu_1:3", **(OPTIONS | {"transforms": darken, "steps": 1, "samples": 32}))
    many = jv.visualize(tiny_model(), "relu_1:3", views=16, **(OPTIONS | {"transforms": darken, "steps": 1, "samples": 32}))
    assert many.history.std() < one.history.std() / 2
    assert abs(many.history.mean() - one.history.mean()) < one.history.std() / 2
    same = jv.visualize(tiny_model(), "relu_1:3", views=4, **OPTIONS)  # without transforms all views are alike
    np.testing.assert_allclose(same.images, jv.visualize(tiny_model(), "relu_1:3", **OPTIONS).images, atol=1e-4)


def test_snapshots_are_the_images_of_a_shorter_run():
    whole = jv.visualize(tiny_model(), "relu_1:0-2", snapshots=(5, 2), **OPTIONS)
    assert whole.snapshots.shape == (3, 2, 2, 16, 16, 3)
    for place, steps in enumerate((2, 5)):
        short = jv.visualize(tiny_model(), "relu_1:0-2", **(OPTIONS | {"steps": steps}))
        np.testing.assert_allclose(whole.snapshots[:, :, place], short.images, atol=1e-4)
    np.testing.assert_array_equal(whole[1:].snapshots, whole.snapshots[1:])
    assert jv.visualize(tiny_model(), "relu_1:0", **OPTIONS).snapshots.shape == (1, 2, 0, 16, 16, 3)


def nan_when_bright(acts, images):
    """A score that becomes a NaN once the image is bright: for one sample, not for its neighbours."""
    bright = images.mean((1, 2, 3))
    return jnp.where(bright > 0.52, jnp.nan, bright)


def test_a_nan_stops_its_own_image_only_and_is_reported():
    options = OPTIONS | {"steps": 40, "learning_rate": 0.02, "param": jv.param.pixel(sd=0.05)}
    weights = np.array([1.0, -1.0])  # the second unit gets darker, and never meets the NaN
    result = jv.visualize(tiny_model(), weights * jv.objectives.from_function(nan_when_bright), **options)
    assert result.diagnosis.tolist() == [["not finite"] * 2, ["ok"] * 2]
    assert np.isfinite(result.images).all() and np.isnan(result.history[0, :, -1]).all()
    assert result.labels == ("1 * nan_when_bright", "-1 * nan_when_bright")
    alone = jv.visualize(tiny_model(), -1.0 * jv.objectives.from_function(nan_when_bright), **options)
    np.testing.assert_allclose(result.images[1], alone.images[0], atol=1e-5)


def nothing(acts, images):
    return jnp.zeros(len(images))


def falls(acts, images):
    return jax.lax.stop_gradient(-images.mean((1, 2, 3))) + (images - jax.lax.stop_gradient(images)).mean((1, 2, 3))


@pytest.mark.parametrize(("objective", "word"), [(nothing, "no gradient"), (falls, "no rise"), ("relu_1:3", "ok")])
def test_every_image_has_a_diagnosis(objective, word):
    result = jv.visualize(tiny_model(), objective, **(OPTIONS | {"steps": 12}))
    assert result.diagnosis.shape == (1, 2) and set(result.diagnosis.ravel()) == {word}


def test_a_silent_unit_is_diagnosed():
    model = tiny_model()

    def silent(acts, images):
        return jax.nn.relu(acts["conv2"][..., 0] - 3).mean((1, 2))  # never active on grey

    assert jv.visualize(model, silent, ops=jv.ops.EXACT, **OPTIONS).diagnosis[0, 0] == "no gradient"
