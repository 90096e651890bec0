"""Images from images: what an early layer keeps comes back, whatever the batch; caricatures; accentuation."""

from __future__ import annotations

import json

import jax
import jax.export
import numpy as np
import optax
import pytest

import jaxviz as jv
from jaxviz._visualize.inversion import accentuate, caricature, invert
from jaxviz._visualize.stages import sample_keys
from jaxviz.engine import Recipe, Unit, _ascent
from jaxviz.objectives import near
from jaxviz.objectives._algebra import partition
from jaxviz.regularizers import total_variation
from tests.compilations import compilations
from tests.contracts import PLATFORMS
from tests.tiny import random_images, tiny_model

MODEL = tiny_model()
PHOTOS = np.clip(0.5 + np.cumsum(random_images(3, 16, 16, 3) - 0.5, axis=1) / 4, 0, 1)  # smooth downwards, as photos are
SMOOTH = 0.1  # the default weight of total variation, a pixel
QUICK = {"param": jv.param.pixel, "learning_rate": 0.05, "regularizers": ()}


@pytest.fixture(scope="module")
def inversion():
    return invert(MODEL, PHOTOS, ["conv1", "relu_1"], steps=150, samples=2, **QUICK)


def test_the_first_layer_gives_the_photo_back(inversion):
    assert inversion.images.shape == (2, 3, 16, 16, 3) and inversion.distances.shape == inversion.psnr.shape == (2, 3)
    assert (inversion.distances[0] < 0.01).all() and (inversion.distances[1] < 0.4).all()
    grey = -10 * np.log10(np.square(PHOTOS - 0.5).mean((1, 2, 3)))
    assert (inversion.psnr[0] > grey + 1).all()
    assert (inversion.psnr[0] > inversion.psnr[1]).all()  # the deeper layer knows less
    assert "conv1: distance" in repr(inversion)


def test_distances_and_psnr_are_of_the_nearest_sample(inversion):
    assert inversion.result.images.shape == (6, 2, 16, 16, 3)
    assert inversion.result.labels == ("conv1:0", "conv1:1", "conv1:2", "relu_1:0", "relu_1:1", "relu_1:2")
    for i, layer in enumerate(("conv1", "relu_1")):
        photos, made = (np.asarray(MODEL.activations(x, layer)[layer]) for x in (PHOTOS, inversion.images[i]))
        want = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(made, photos, strict=True)]
        np.testing.assert_allclose(inversion.distances[i], want, rtol=1e-3)
        scores = inversion.result[layer].scores
        np.testing.assert_allclose(inversion.distances[i], np.sqrt(-scores).min(1), rtol=1e-3)
    want = -10 * np.log10(np.square(inversion.images - PHOTOS).mean((2, 3, 4)))
    np.testing.assert_allclose(inversion.psnr, want, rtol=1e-4)


def test_one_photo_alone_is_the_same_as_in_the_batch(inversion):
    alone = invert(MODEL, PHOTOS[1], "conv1", steps=150, samples=2, **QUICK)
    np.testing.assert_allclose(alone.result.images[0], inversion.result.images[1], atol=1e-3)


def test_saving_keeps_what_was_reached(inversion, tmp_path):
    folder = inversion.result.save(tmp_path / "out")
    settings = json.loads((folder / "result.json").read_text())["settings"]
    np.testing.assert_allclose(settings["psnr"], inversion.psnr, rtol=1e-5)
    assert settings["layers"] == ["conv1", "relu_1"] and (folder / "relu_1-0002-1.png").exists()


def test_names_sizes_and_the_default_smoothness():
    options = {"steps": 2, "param": jv.param.pixel, "size": (8, 10), "names": ["dog", "ball", "church"]}
    result = invert(MODEL, PHOTOS, "conv1", **options).result
    assert result.labels == ("conv1:dog", "conv1:ball", "conv1:church") and result.images.shape[2:] == (8, 10, 3)
    weight = result.history - invert(MODEL, PHOTOS, "conv1", **options, regularizers=()).result.history
    start = invert(MODEL, PHOTOS, "conv1", **(options | {"steps": 0})).result.images[0, 0]
    np.testing.assert_allclose(weight[..., 0], -total_variation(SMOOTH / 80)(start), rtol=1e-3)


def test_with_transforms_the_photo_is_seen_through_them():
    options = {"steps": 1, "start": PHOTOS, "transforms": jv.transforms.jitter(6), "learning_rate": 0.0, "regularizers": ()}
    moved = invert(MODEL, PHOTOS, "conv1", param=jv.param.pixel, **options)
    np.testing.assert_allclose(moved.result.history, 0, atol=1e-5)
    np.testing.assert_allclose(moved.psnr, 100, atol=1e-3)


def test_a_caricature_exaggerates():
    result = caricature(MODEL, PHOTOS, ["conv1", "relu_1"], steps=24, transforms=(), learning_rate=0.05, param=jv.param.pixel)
    assert result.labels[3] == "relu_1:0" and result.images.shape == (6, 1, 16, 16, 3)
    for name in ("conv1", "relu_1"):
        photos, made = (
            np.asarray(MODEL.activations(x, name)[name]).reshape(3, -1) for x in (PHOTOS, result[name].images[:, 0])
        )
        assert ((photos * made).sum(1) > np.square(photos).sum(1)).all()  # more of it than the photo has
        cosine = (photos * made).sum(1) / np.linalg.norm(photos, axis=1) / np.linalg.norm(made, axis=1)
        np.testing.assert_allclose(result[name].scores[:, 0], (photos * made).sum(1) * np.maximum(cosine, 0.1), rtol=1e-3)


def test_accentuation_starts_from_the_photo_and_stays_near_it():
    options = {"steps": 24, "transforms": (), "learning_rate": 0.02, "param": jv.param.pixel, "names": ["a", "b", "c"]}

    def channel(images):
        return np.asarray(MODEL.activations(images, "relu_1")["relu_1"])[..., 3].mean((1, 2))

    far, close = (accentuate(MODEL, PHOTOS, "relu_1:3", penalty=p, **options) for p in (0.0, 100.0))
    assert far.labels == ("relu_1:3, a", "relu_1:3, b", "relu_1:3, c")
    apart = [np.square(result.images[:, 0] - PHOTOS).mean((1, 2, 3)) for result in (far, close)]
    assert (apart[1] < apart[0] / 4).all()
    assert (channel(far.images[:, 0]) > channel(close.images[:, 0])).all()
    assert (channel(close.images[:, 0]) > channel(PHOTOS)).all()
    many = accentuate(MODEL, PHOTOS[0], "relu_1:3,4", layer="conv1", **(options | {"steps": 0, "names": ["a"]}))
    assert many.labels == ("relu_1:3, a", "relu_1:4, a")
    np.testing.assert_allclose(many.images[:, 0], [PHOTOS[0]] * 2, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.full((2, 16, 16, 3), np.nan), "conv1"), r"\[0, 1\]"),
        ((np.ones((2, 16, 16, 4)), "conv1"), r"\(N, H, W, 3\)"),
        ((np.ones((16, 16)), "conv1"), r"\(H, W, C\)"),
        ((np.ones((2, 16, 16, 3), np.uint8), "conv1"), "255"),
        ((PHOTOS, []), "layer"),
        ((PHOTOS, "conv9"), "conv1"),
    ],
)
@pytest.mark.parametrize("make", [invert, caricature])
def test_wrong_arguments_say_what_was_expected(make, arguments, message):
    with pytest.raises((jv.ArgumentError, jv.LayerError), match=message):
        make(MODEL, *arguments, steps=1)


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(jv.ArgumentError, match="3 images, got 1"):
        invert(MODEL, PHOTOS, "conv1", names=["dog"])
    with pytest.raises(jv.ArgumentError, match=r"\[2, 3\]"):
        accentuate(MODEL, PHOTOS, "relu_1:3,4", steps=1)


def test_the_default_penalty_is_that_of_where_nearness_is_measured():
    options = {"steps": 1, "transforms": (), "param": jv.param.pixel, "learning_rate": 0.0}
    assert accentuate(MODEL, PHOTOS[0], "relu_1:3", **options).settings["penalty"] == 100
    result = accentuate(MODEL, PHOTOS[0], "relu_1:3", layer="conv1", **options)
    assert result.settings["penalty"] == 3 and result.settings["near"] == "conv1"
    activation = np.asarray(MODEL.activations(PHOTOS[:1], "relu_1")["relu_1"])[0, ..., 3].mean()
    np.testing.assert_allclose(result.scores, [[activation]], rtol=1e-4)  # at the photo itself the penalty is 0


def test_other_photos_and_amounts_do_not_compile_again():
    options = {"steps": 1, "transforms": jv.transforms.jitter(2), "param": jv.param.pixel}
    for make in (
        lambda i: invert(MODEL, PHOTOS / i, ["conv1"], steps=i, learning_rate=0.1 * i, param=jv.param.pixel),
        lambda i: caricature(MODEL, PHOTOS / i, ["conv1"], cossim_power=i, **options),
        lambda i: accentuate(MODEL, PHOTOS / i, f"relu_1:{i + 2}", penalty=i, **options),
    ):
        make(1)
        with compilations() as compiled:
            make(2)
        assert not compiled.names


def test_a_reference_and_a_start_lower_for_every_platform():
    objective = (jv.channel("relu", [1, 2, 3]) + near(PHOTOS)).bind(MODEL, (16, 16))
    each, rest = partition(objective)
    recipe = Recipe(
        MODEL.network, jv.param.fourier((16, 16, 3)), jv.transforms.jitter(2), (), rest, np.float32(0.1), ("relu",), optax.adam
    )
    unit = Unit(each, sample_keys(0, np.zeros((3, 0), np.uint32), 2).reshape(3, 1, 2), PHOTOS)

    def run(recipe, unit):
        carry, value = _ascent.step(recipe, unit, _ascent.start(recipe, unit), np.int32(0))
        return value, _ascent.finish(recipe, unit, carry)

    exported = jax.export.export(jax.jit(jax.vmap(run, in_axes=(None, 0))), platforms=PLATFORMS)(recipe, unit)
    assert exported.platforms == PLATFORMS
