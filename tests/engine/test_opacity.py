"""Images with opacity: laid on random backgrounds while they are made, on grey when they are scored."""

from __future__ import annotations

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
