"""DeepDream against the same steps written out in NumPy and SciPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

import jaxviz as jv
from jaxviz._visualize.dream import dream_ascent
from tests.tiny import random_images, tiny_model


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur with weights that add up to 1 over what is inside, by SciPy."""
    ones = np.ones_like(image)
    for axis in (0, 1):
        kernel = dict(sigma=sigma, axis=axis, mode="constant", truncate=20.0)
        image, ones = gaussian_filter1d(image, **kernel), gaussian_filter1d(ones, **kernel)
        image, ones = image / ones, np.ones_like(image)
    return image


def test_a_step_is_the_smoothed_standardised_gradient():
    gradient = random_images(12, 9, 3).astype(np.float64) - 0.3
    ascent = dream_ascent(0.1, smoothing=0.8)
    state = ascent.init(jnp.zeros((12, 9, 3)))
    update, state = ascent.update(jnp.asarray(gradient, jnp.float32), state)
    smooth = sum(blurred(gradient, 0.8 * factor) for factor in (0.5, 1, 2))
    smooth -= smooth.mean((0, 1))
    np.testing.assert_allclose(update, -0.1 * smooth / smooth.std(), atol=2e-5)
    update, _ = ascent.update(jnp.zeros((12, 9, 3)), state)
    np.testing.assert_array_equal(update, 0)


def test_one_octave_is_plain_ascent_from_the_photo():
    model, photo = tiny_model(), random_images(16, 16, 3) * 0.8 + 0.1
    result = jv.deepdream(model, photo, "relu_1", octaves=1, steps=3, roll=0)
    value = jax.grad(lambda x: jnp.square(model.activations(x[None], ["relu_1"])["relu_1"]).mean())
    ascent, x = dream_ascent(0.006, smoothing=0.5), jnp.asarray(photo)
    state = ascent.init(x)
    for _ in range(3):
        update, state = ascent.update(-value(x), state)
        x = jnp.clip(x + update, 0, 1)
    np.testing.assert_allclose(result.images[0, 0], x, atol=1e-4)
    assert result.labels == ("relu_1 square, 0",)


def test_what_was_added_is_laid_on_the_photo_of_the_next_size():
    photo = random_images(16, 20, 3) * 0.8 + 0.1
    still = jv.deepdream(tiny_model(), photo, "relu_1", octaves=3, ratio=1.3, steps=2, learning_rate=0.0)
    np.testing.assert_allclose(still.images[0, 0], photo, atol=1e-5)  # its own detail is back, though it began at 9 x 12
    assert still.settings["scales"] == [[9, 12], [12, 15], [16, 20]]


def test_photos_are_a_batch_and_the_objective_rises():
    photos = random_images(3, 16, 16, 3) * 0.8 + 0.1
    both = jv.deepdream(tiny_model(), photos, ["relu", "relu_1"], octaves=2, steps=4, roll=3)
    before = jv.deepdream(tiny_model(), photos, ["relu", "relu_1"], octaves=1, steps=1, learning_rate=0.0)
    assert both.images.shape == (3, 1, 16, 16, 3) and (both.scores > 1.05 * before.scores).all()
    one = jv.deepdream(tiny_model(), photos[1], ["relu", "relu_1"], octaves=2, steps=4, roll=3)
    np.testing.assert_allclose(both.images[1], one.images[0], atol=1e-4)
    units = jv.deepdream(tiny_model(), photos, jv.channel("relu_1", [1, 2, 3]), octaves=1, steps=1)
    assert units.labels == ("relu_1:1, 0", "relu_1:2, 1", "relu_1:3, 2")


@pytest.mark.parametrize(
    ("options", "words"),
    [({"octaves": 0}, "octaves"), ({"ratio": 1.0}, "ratio"), ({"smoothing": -1}, "smoothing"), ({"objective": []}, "layer")],
)
def test_bad_input(options, words):
    options = {"objective": "relu_1"} | options
    with pytest.raises(jv.ArgumentError, match=words):
        jv.deepdream(tiny_model(), random_images(16, 16, 3), options.pop("objective"), **options)
