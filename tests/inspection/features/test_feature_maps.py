"""Feature maps against the network's activations, put in order by NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import jaxviz as jv
from jaxviz._errors import ArgumentError, LayerError, UnitError
from jaxviz.inspection import feature_maps
from tests.compilations import compilations
from tests.tiny import random_images, tiny_model

MODEL = tiny_model()
IMAGES = random_images(5, 16, 16, 3)
ACTS = {name: np.asarray(value) for name, value in MODEL.activations(IMAGES, ["conv1", "relu_1", "avgpool", "fc"]).items()}


@pytest.mark.parametrize("order", ["max", "mean"])
@pytest.mark.parametrize("count", [None, 3])
def test_the_strongest_channels_of_each_image_come_first(order: str, count: int | None) -> None:
    found = feature_maps(MODEL, IMAGES, ["conv1", "relu_1"], channels=count, order=order)
    for name, one in found.items():
        for i, act in enumerate(ACTS[name]):
            strength = getattr(act, order)((0, 1))
            best = np.sort(strength)[::-1][:count]
            np.testing.assert_allclose(one.strengths[i], best, atol=1e-6)
            np.testing.assert_allclose(one.maps[i], np.moveaxis(act[..., one.channels[i]], -1, 0), atol=1e-6)
            np.testing.assert_allclose(strength[one.channels[i]], best, atol=1e-6)
            assert len(set(one.channels[i].tolist())) == len(best)


def test_given_channels_are_kept_in_their_order_and_compile_nothing_new() -> None:
    found = feature_maps(MODEL, IMAGES, "relu_1", channels=[7, 0, 3])["relu_1"]
    np.testing.assert_allclose(found.maps, np.moveaxis(ACTS["relu_1"][..., [7, 0, 3]], -1, 1), atol=1e-6)
    with compilations() as compiled:
        feature_maps(MODEL, IMAGES, "relu_1", channels=[1, 2, 11])
    assert not compiled.names


def test_an_image_is_the_same_alone_and_on_any_devices() -> None:
    whole = feature_maps(MODEL, IMAGES, ["relu_1", "fc"], channels=4)
    for chunk, devices in ((1, 1), (4, 2)):
        other = feature_maps(MODEL, IMAGES[2:4], ["relu_1", "fc"], channels=4, chunk=chunk, mesh=jv.make_mesh(devices))
        for name in ("relu_1", "fc"):
            np.testing.assert_allclose(other[name].maps, whole[name].maps[2:4], atol=1e-6)


def test_a_layer_without_positions_is_a_chart() -> None:
    found = feature_maps(MODEL, IMAGES, ["fc", "avgpool"])
    assert found["fc"].maps.shape == (5, 5) and not found["fc"].is_spatial
    np.testing.assert_allclose(found["fc"].maps, -np.sort(-ACTS["fc"], axis=1), atol=1e-6)
    assert found["fc"].labels[0] == "tench" and found["avgpool"].labels == ()
    for one in found.values():
        page = one.picture(1)
        assert page.dtype == np.uint8 and page.shape[-1] == 3
        with pytest.raises(ArgumentError, match="no positions"):
            one.draw()
        with pytest.raises(ArgumentError, match="no positions"):
            one.draw_receptive_field(0, 0)


@pytest.mark.parametrize("view", ["map", "smooth", "overlay"])
def test_pictures_show_each_map_at_the_images_size(view: str) -> None:
    found = feature_maps(MODEL, IMAGES, "relu_1", channels=6)["relu_1"]
    drawn = found.draw(2, view=view, side=32)
    assert drawn.shape == (6, 32, 32, 3) and drawn.dtype == np.uint8
    if view == "map":  # each unit a square: the strongest is the lightest
        y, x = found.strongest_position(2)
        square = drawn[0, y * 8 : y * 8 + 8, x * 8 : x * 8 + 8]
        assert (square == square[0, 0]).all() and square.sum() == drawn[0].reshape(4, 8, 4, 8, 3).sum((1, 3, 4)).max()
    assert found.picture(2, view=view).shape[-1] == 3


def test_the_frame_is_where_the_unit_sees() -> None:
    found = feature_maps(MODEL, IMAGES, "conv1", channels=2)["conv1"]
    page = found.draw_receptive_field(3, 2, 1, side=160, width=2)  # 3 x 3 pixels from (5, 3), ten times as large
    inside = page[50:80, 30:60]
    frame = np.array([255, 214, 10])
    assert not (inside == frame).all(-1).any()
    for line in (page[48:50, 28:62], page[80:82, 28:62], page[48:82, 28:30], page[48:82, 60:62]):
        assert (line == frame).all()
    assert page[:40].mean() < 0.75 * page[50:80, 30:60].mean() or page[100:].mean() < 0.75 * inside.mean()
    with pytest.raises(UnitError, match=r"\(7, 7\)"):
        found.draw_receptive_field(8, 0)


def test_wrong_use_is_told() -> None:
    with pytest.raises(LayerError, match="conv1"):
        feature_maps(MODEL, IMAGES, "conv9")
    with pytest.raises(UnitError, match="0 to 7"):
        feature_maps(MODEL, IMAGES, "conv1", channels=[8])
    with pytest.raises(UnitError, match="at least one"):
        feature_maps(MODEL, IMAGES, "conv1", channels=0)
    with pytest.raises(ArgumentError, match="'median'"):
        feature_maps(MODEL, IMAGES, "conv1", order="median")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="5 images"):
        feature_maps(MODEL, IMAGES, "conv1").popitem()[1].picture(5)
    with pytest.raises(ArgumentError, match="view"):
        feature_maps(MODEL, IMAGES, "conv1")["conv1"].draw(view="shown")  # type: ignore[arg-type]
