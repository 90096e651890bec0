"""The result of an attribution: reduced, normalised, resized, cut; and the one entry by name."""

from __future__ import annotations

import numpy as np
import pytest

import jaxviz as jv
from jaxviz.attribution import Attribution
from jaxviz.attribution._attribution import BLANK, NEGATIVE, NOT_FINITE, OK, diagnose
from tests.tiny import random_images, tiny_model

MODEL, IMAGES = tiny_model(), random_images(3, 16, 16, 3)


def made(maps: np.ndarray, spatial: bool = True, many: bool = False) -> Attribution:
    lead = maps.shape[: 2 if many else 1]
    return Attribution(maps, np.zeros(lead, np.float32), np.full(lead, "church"), None, "test", spatial)


def test_reduce_is_by_channel() -> None:
    maps = np.array([[[[1.0, -3.0, 2.0]]]], np.float32)
    assert {how: float(made(maps, spatial=False).reduce(how).maps[0, 0, 0]) for how in ("max_abs", "sum_abs", "sum")} == {
        "max_abs": 3,
        "sum_abs": 6,
        "sum": 0,
    }
    spatial = made(np.array([[[-2.0, 1.0]]]))
    np.testing.assert_array_equal(spatial.reduce("sum").maps, spatial.maps)
    np.testing.assert_array_equal(spatial.reduce("max_abs").maps, [[[2, 1]]])
    with pytest.raises(jv.ArgumentError, match="mean"):
        spatial.reduce("mean")  # type: ignore[arg-type]


def test_normalize_is_by_map() -> None:
    maps = np.array([[[-2.0, 1.0]], [[0.0, 0.0]], [[10.0, 5.0]]], np.float32)
    np.testing.assert_allclose(made(maps).normalize().maps, [[[-1, 0.5]], [[0, 0]], [[1, 0.5]]])
    np.testing.assert_allclose(made(maps).normalize("min_max").maps, [[[0, 1]], [[0, 0]], [[1, 0]]])
    with pytest.raises(jv.ArgumentError, match="min_max"):
        made(maps).normalize("l2")  # type: ignore[arg-type]


def test_resize_leaves_the_axes() -> None:
    for shape, spatial, many in (
        ((2, 4, 4), True, False),
        ((2, 3, 4, 4), True, True),
        ((2, 4, 4, 3), False, False),
        ((2, 5, 4, 4, 3), False, True),
    ):
        found = made(random_images(*shape), spatial, many).resize((8, 6))
        assert found.maps.shape == tuple({4: 4}.get(n, n) for n in shape[: 2 if many else 1]) + (8, 6) + (
            () if spatial else (3,)
        )


def test_threshold_keeps_the_highest_share() -> None:
    maps = np.arange(10, dtype=np.float32).reshape(1, 2, 5)
    np.testing.assert_array_equal(made(maps).threshold(0.3)[0], [[0] * 5, [0, 0, 1, 1, 1]])
    assert not made(np.zeros((1, 2, 5))).threshold().any(), "of a blank map nothing is highest"
    with pytest.raises(jv.ArgumentError, match="share"):
        made(maps).threshold(0)


def test_cut_out_fills_the_rest() -> None:
    maps = np.zeros((3, 16, 16), np.float32)
    maps[:, :4, :4] = 1
    found = made(maps).cut_out(IMAGES, keep=16 / 256, fill=0.25)
    np.testing.assert_array_equal(found[:, :4, :4], IMAGES[:, :4, :4])
    assert (found[:, 4:] == 0.25).all() and (found[:, :, 4:] == 0.25).all()
    many = made(np.stack([maps, maps], axis=1), many=True).cut_out(IMAGES)
    assert many.shape == (3, 2, 16, 16, 3)
    with pytest.raises(jv.ArgumentError, match="3 images"):
        made(maps).cut_out(IMAGES[:2])


def test_why_a_map_is_blank() -> None:
    maps = np.array([[[0.0, 0]], [[0, 0]], [[np.nan, 1]], [[1, 0]]])
    negative = np.array([False, True, True, True])
    assert list(diagnose(maps, 1, negative=negative)) == [BLANK, NEGATIVE, NOT_FINITE, OK]
    dead = jv.attribute(MODEL, IMAGES, "saliency", lambda scores: 0 * scores[:, 0])
    assert list(dead.diagnosis) == [BLANK] * 3


def test_images_are_taken_apart_and_put_together() -> None:
    whole = jv.attribute(MODEL, IMAGES, "saliency", [[1, 2]])
    assert len(whole) == 3 and [len(one) for one in whole] == [1, 1, 1]
    np.testing.assert_array_equal(whole[-1].maps, whole.maps[2:])
    np.testing.assert_array_equal(whole[[2, 0]].scores, whole.scores[[2, 0]])
    assert whole[1:].targets.shape == (2, 2) and "2 targets" in repr(whole)
    with pytest.raises(IndexError):
        whole[3]


def test_shapes_must_agree() -> None:
    with pytest.raises(jv.ArgumentError, match="maps for scores"):
        Attribution(np.zeros((3, 4, 4)), np.zeros(2), np.full(2, "x"), None, "test", True)


def test_attribute_by_name() -> None:
    direct = jv.attribution.input_x_gradient(MODEL, IMAGES, 1, baseline="black")
    named = jv.attribute(MODEL, IMAGES, "input_x_gradient", 1, baseline="black")
    np.testing.assert_array_equal(direct.maps, named.maps)
    assert named.settings["baseline"] == "black" and named.settings["model"] == "tiny" and named.method == "input_x_gradient"
    with pytest.raises(jv.ArgumentError, match="Did you mean 'saliency'"):
        jv.attribute(MODEL, IMAGES, "salience")
    with pytest.raises(jv.ArgumentError, match=r"'baselin'.*Did you mean 'baseline'"):
        jv.attribute(MODEL, IMAGES, "input_x_gradient", baselin="black")
    with pytest.raises(jv.ArgumentError, match="no option 'layer'"):
        jv.attribute(MODEL, IMAGES, "saliency", layer="relu")


def test_every_method_has_its_own_name_and_function() -> None:
    for name, fn in jv.attribution.METHODS.items():
        assert getattr(jv.attribution, name) is fn and fn.__doc__


def test_wrong_images() -> None:
    with pytest.raises(jv.ArgumentError, match="channels last"):
        jv.attribute(MODEL, IMAGES.transpose(0, 3, 1, 2), "saliency")
    with pytest.raises(jv.ArgumentError, match="Divide 8-bit"):
        jv.attribute(MODEL, (IMAGES * 255).astype(np.uint8), "saliency")
