"""Images with opacity: laid on random backgrounds while they are made, on grey when they are scored."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxviz as jv
from tests.tiny import tiny_model

OPTIONS = {"steps": 24, "size": 16, "learning_rate": 0.05, "transforms": ()}


def test_an_image_with_opacity(tmp_path):
    result = jv.visualize(tiny_model(), "relu_1:0-2", param=jv.param.alpha, samples=2, **OPTIONS)
    assert result.images.shape == (3, 2, 16, 16, 4)
    assert (result.history[..., -4:].mean(-1) > result.history[..., :4].mean(-1)).all()
    shown = 0.5 + result.images[..., 3:] * (result.images[..., :3] - 0.5)
    scores = tiny_model().activations(shown[0], ["relu_1"])["relu_1"][..., 0].mean((1, 2))
    np.testing.assert_allclose(result.scores[0], scores, rtol=1e-4)
    folder = result.save(tmp_path / "out")
    with Image.open(folder / "relu_1-0000-0.png") as picture:
        assert picture.mode == "RGBA"
    with Image.open(folder / "contact_sheet.png") as sheet:
        assert sheet.mode == "RGB"


def test_what_the_network_sees_is_laid_on_a_background_of_ones_own_too():
    own = jv.visualize(
        tiny_model(), "relu_1:0", param=jv.param.alpha, **(OPTIONS | {"transforms": jv.transforms.composite(0.5)})
    )
    np.testing.assert_allclose(own.history[0, 0, -1], own.scores[0, 0], rtol=0.2)  # no randomness is left


def test_a_photo_cannot_be_compared_with_an_image_with_opacity():
    with pytest.raises(jv.ArgumentError, match="opacity"):
        jv.visualize(tiny_model(), jv.near(np.zeros((16, 16, 3))), param=jv.param.alpha, **OPTIONS)


def test_transparency_is_the_accumulated_gradient():
    """MACO's: the sum of |gradient| over the steps, cut at its 80th percentile."""
    options = OPTIONS | {"param": jv.param.pixel, "samples": 2}
    result = jv.visualize(tiny_model(), "relu_1:3,5", transparency=True, **options)
    plain = jv.visualize(tiny_model(), "relu_1:3,5", snapshots=range(1, 25), **options)
    np.testing.assert_allclose(result.images[..., :3], plain.images, atol=1e-5)
    np.testing.assert_allclose(result.scores, plain.scores, rtol=1e-4)
    start = jv.visualize(tiny_model(), "relu_1:3,5", **(options | {"steps": 0})).images
    path = np.concatenate([start[:, :, None], plain.snapshots[:, :, :-1]], 2)  # the images that the gradients are of
    for unit, channel in enumerate((3, 5)):
        value = lambda x, c=channel: tiny_model().activations(x[None], "relu_1")["relu_1"][0, ..., c].mean()  # noqa: E731
        each = [sum(np.abs(jax.grad(value)(jnp.asarray(x))).mean(-1) for x in images) for images in path[unit]]
        for found, want in zip(result.images[unit, ..., 3], each, strict=True):
            np.testing.assert_allclose(found, np.clip(want / np.percentile(want, 80), 0, 1), atol=2e-3)


def test_transparency_of_octaves_snapshots_and_chunks(tmp_path):
    options = OPTIONS | {"scales": 2, "snapshots": (6, 24), "transparency": True, "param": jv.param.pixel}
    options["mesh"] = jv.make_mesh(1)
    whole = jv.visualize(tiny_model(), "relu_1:0-4", chunk=5, **options)
    kept = jv.visualize(tiny_model(), "relu_1:0-4", chunk=2, out=tmp_path / "out", **options)
    assert whole.images.shape == (5, 1, 16, 16, 4) and whole.snapshots.shape == (5, 1, 2, 16, 16, 4)
    np.testing.assert_allclose(kept.images, whole.images, atol=1e-3)
    np.testing.assert_allclose(whole.snapshots[:, :, 1], whole.images, atol=1e-6)
    assert (whole.images[..., 3].max((2, 3)) == 1).all() and whole.images[..., 3].std() > 0.05
    with Image.open(tmp_path / "out" / "relu_1-0000-0.png") as picture:
        assert picture.mode == "RGBA"
    with pytest.raises(jv.ArgumentError, match="their own opacity"):
        jv.visualize(tiny_model(), "relu_1:0", param=jv.param.alpha, transparency=True, **OPTIONS)
