"""Filters and weights: the numbers are the network's own, and the pictures show them."""

from __future__ import annotations

import numpy as np
import pytest

from jaxviz import plot
from jaxviz._errors import ArgumentError, LayerError, UnitError, UnsupportedError
from jaxviz.inspection import filters, weights
from jaxviz.models import from_function
from tests.tiny import tiny_model

MODEL = tiny_model()
STATE = MODEL.state_dict()


def test_the_first_convolution_is_found_and_its_weights_are_the_networks() -> None:
    found = filters(MODEL)
    assert found.layer == "conv1" and found.units.tolist() == list(range(8))
    np.testing.assert_array_equal(found.weights, STATE["conv1.weight"].transpose(0, 2, 3, 1))
    some = filters(MODEL, "conv1", [5, 2])
    np.testing.assert_array_equal(some.weights, found.weights[[5, 2]])


@pytest.mark.parametrize("scale", ["shared", "each"])
def test_tiles_are_gray_at_zero_and_scaled_as_asked(scale: str) -> None:
    found = filters(MODEL)
    tiles = found.tiles(scale)
    for k, kernel in enumerate(found.weights):
        most = np.abs(kernel if scale == "each" else found.weights).max()
        np.testing.assert_allclose(tiles[k], kernel / most / 2 + 0.5, atol=1e-6)
    assert tiles.dtype == np.float32 and 0 <= tiles.min() and tiles.max() <= 1
    silent = type(found)(found.layer, np.zeros_like(found.weights), found.units)
    assert (silent.tiles(scale) == 0.5).all()


def test_each_weight_is_a_square_of_whole_pixels() -> None:
    found = filters(MODEL, units=[3])
    page = found.picture("each", tile=30, captions=False)
    square = np.kron(found.tiles("each")[0], np.ones((10, 10, 1)))
    corner = page[2:32, 2:32].astype(float) / 255  # within the grid's margin
    np.testing.assert_allclose(corner, square, atol=0.003)
    assert filters(MODEL).picture().shape[-1] == 3


def test_weights_of_any_layer_are_chosen_by_output_and_input() -> None:
    found = weights(MODEL, "conv2", outputs=[4, 1], inputs=[0, 7, 3])
    np.testing.assert_array_equal(found.weights, STATE["conv2.weight"][[4, 1]][:, [0, 7, 3]])
    head = weights(MODEL, "fc")
    np.testing.assert_array_equal(head.weights[..., 0, 0], STATE["fc.weight"])


def test_the_picture_shows_the_strongest_in_signed_colors() -> None:
    found = weights(MODEL, "conv2")
    norms = np.sqrt((found.weights**2).sum((1, 2, 3)))
    down = sorted(np.argsort(-norms)[:2])
    inner = np.sqrt((found.weights[down] ** 2).sum((0, 2, 3)))
    across = sorted(np.argsort(-inner)[:3])
    page = found.picture(rows=2, columns=3, tile=30)
    colors = {tuple(color) for color in page.reshape(-1, 3).tolist()}
    seen = found.weights[down][:, across]
    for row in seen:
        expected = plot.colorize(row, "blue_red", (-np.abs(row).max(), np.abs(row).max()))
        assert {tuple(color) for color in expected.reshape(-1, 3).tolist()} <= colors
    assert found.picture(scale="shared").shape[-1] == 3 and weights(MODEL, "fc").picture().shape[-1] == 3


def test_what_cannot_be_shown_is_told() -> None:
    with pytest.raises(ArgumentError, match="1 or 3 input channels"):
        filters(MODEL, "conv2")
    with pytest.raises(LayerError, match="no kernel of its own"):
        weights(MODEL, "relu")
    with pytest.raises(LayerError, match="conv1"):
        weights(MODEL, "cnv1")
    with pytest.raises(UnitError, match="0 to 7"):
        filters(MODEL, units=[8])
    with pytest.raises(UnitError, match="inputs"):
        weights(MODEL, "conv2", inputs=[-1])
    with pytest.raises(UnsupportedError, match="pure function"):
        filters(from_function(lambda images: images.mean((1, 2))))
    with pytest.raises(ArgumentError, match="scale"):
        filters(MODEL).tiles("none")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="rows"):
        weights(MODEL, "conv2").picture(rows=0)
