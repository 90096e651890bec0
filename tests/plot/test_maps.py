"""Maps as pictures: limits and who shares them, overlays, outlines, what has nothing to show."""

from __future__ import annotations

import numpy as np
import pytest

from jaxviz._errors import ArgumentError
from jaxviz.plot import clip_limits, color_table, draw_maps, highlight, outline, overlay
from tests.tiny import random_images


def test_limits_are_percentiles_of_what_shares_them() -> None:
    maps = np.abs(np.random.default_rng(0).normal(size=(3, 2, 20, 10))) * np.array([1, 5])[:, None, None]
    low, high = clip_limits(maps, 90)
    assert low.shape == high.shape == (3, 2, 1, 1)
    for n, k in np.ndindex(3, 2):
        assert np.isclose(high[n, k], np.percentile(maps[n, k], 90)) and np.isclose(low[n, k], maps[n, k].min())
    _, row = clip_limits(maps, 90, shared=[1])
    assert np.allclose(row[:, 0], row[:, 1]) and np.isclose(row[1, 0, 0, 0], np.percentile(maps[1], 90))
    _, every = clip_limits(maps, 90, shared=[0, 1])
    assert np.isclose(every, np.percentile(maps, 90)).all()
    signed = maps * np.random.default_rng(1).choice([-1, 1], maps.shape)
    low, high = clip_limits(signed, 90, signed=True)
    assert np.array_equal(low, -high) and np.isclose(high[0, 0], np.percentile(maps[0, 0], 90))


def test_limits_of_maps_that_are_nearly_everywhere_0_or_not_finite() -> None:
    maps = np.zeros((3, 20, 20))
    maps[0, 3, 3] = 7
    maps[1] = np.nan
    maps[1, 0, 0] = 2
    low, high = clip_limits(maps)
    assert high.ravel().tolist() == [7, 3, 1] and low.ravel().tolist() == [0, 2, 0]
    assert all(np.isfinite(limit).all() for limit in clip_limits(np.full((1, 4, 4), np.nan), signed=True))


def test_styles() -> None:
    values = np.array([[-2.0, 0], [1, 2]])
    assert draw_maps(values, "gray", percentile=100)[..., 0].tolist() == [[255, 0], [128, 255]]
    red_blue = color_table("blue_red")
    np.testing.assert_array_equal(draw_maps(values, "signed", percentile=100), red_blue[[[0, 128], [191, 255]]])
    np.testing.assert_array_equal(draw_maps(values, "heat", percentile=100), color_table("inferno")[[[0, 0], [128, 255]]])
    np.testing.assert_array_equal(draw_maps(values, colors="viridis", percentile=100)[1, 1], color_table("viridis")[255])
    colors = draw_maps(np.array([[[1.0, 0, -1]]]), "color", percentile=100)
    assert colors.tolist() == [[[255, 128, 0]]], "RGB"


def test_shared_limits_make_maps_comparable() -> None:
    maps = np.stack([np.eye(8), 0.5 * np.eye(8)])
    alone, together = draw_maps(maps, "gray"), draw_maps(maps, "gray", shared=[0])
    assert np.array_equal(alone[0], alone[1]) and together[1].max() == 128 and together[0].max() == 255


def test_a_map_is_drawn_the_same_alone_and_in_a_batch() -> None:
    maps = random_images(3, 9, 7) - 0.5
    for style in ("heat", "signed", "gray"):
        np.testing.assert_array_equal(draw_maps(maps, style)[1], draw_maps(maps[1], style))
    photos = random_images(3, 18, 14, 3)
    np.testing.assert_array_equal(overlay(photos, maps)[2], overlay(photos[2:], maps[2:])[0])


def test_nothing_to_see_is_hatched() -> None:
    maps = np.ones((3, 16, 16)) * np.arange(1, 17)
    maps[1] = 0
    maps[2] = np.nan
    shown = draw_maps(maps, "gray")
    assert np.array_equal(shown[1], shown[2]) and len(np.unique(shown[1])) == 2 and not np.array_equal(shown[0], shown[1])
    maps[0, :4] = np.nan
    partly = draw_maps(maps, "gray")
    assert np.array_equal(partly[0, :4], shown[1, :4]) and np.array_equal(partly[0, 4:], shown[0, 4:])
    over = overlay(random_images(3, 16, 16, 3), maps)
    assert (over[1] == 212).all(-1).mean() > 0.4 and not (over[0, 4:] == 212).all(-1).any()


def test_overlay_blends_by_magnitude_or_evenly() -> None:
    photos = np.full((1, 2, 2, 3), 0.4, np.float32)
    photos[..., 0] = 0.8
    maps = np.array([[[0.0, 1], [2, 4]]])
    plain = overlay(photos, maps, fade=0, alpha=1, percentile=100)
    assert plain[0, 0, 0].tolist() == [204, 102, 102], "where the map is 0 the photograph is untouched, RGB"
    np.testing.assert_array_equal(plain[0, 1, 1], color_table("inferno")[255])
    half = overlay(photos, maps, fade=0, alpha=0.5, percentile=100, constant=True, colors="gray")
    assert half[0, 0, 0].tolist() == [102, 51, 51] and half[0, 1, 1].tolist() == [230, 179, 179]
    faded = overlay(photos, maps, fade=1, percentile=100)
    assert np.ptp(faded[0, 0, 0].astype(int)) == 0, "gray"
    signed = overlay(photos, maps * [[1, -1], [1, -1]], signed=True, fade=0, alpha=1, percentile=100)
    np.testing.assert_array_equal(signed[0, 1, 1], color_table("blue_red")[0])
    gray = overlay(np.full((1, 2, 2, 1), 51, np.uint8), maps, fade=0)
    assert gray[0, 0, 0].tolist() == [51] * 3


def test_overlay_scales_maps_and_takes_several_a_photo() -> None:
    photos, maps = random_images(2, 16, 24, 3), random_images(2, 3, 4, 6)
    many = overlay(photos, maps)
    assert many.shape == (2, 3, 16, 24, 3) and many.dtype == np.uint8
    np.testing.assert_array_equal(many[:, 1], overlay(photos, maps[:, 1]))


def test_outline_and_highlight() -> None:
    photos = np.full((1, 6, 6, 3), 200, np.uint8)
    mask = np.zeros((1, 6, 6), bool)
    mask[0, 1:5, 1:6] = True  # it touches the right border, which is no edge
    drawn = outline(photos, mask, width=1, color=(1, 2, 3))
    line = (drawn == [1, 2, 3]).all(-1)[0].astype(int).tolist()
    assert line == [[0] * 6, [0, 1, 1, 1, 1, 1], [0, 1, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1], [0] * 6]
    assert (drawn[0, 0] == 200).all() and (outline(photos, mask, width=9)[mask] != 200).all()
    dimmed = highlight(photos, mask[:, None], dim=0.5)
    assert dimmed.shape == (1, 1, 6, 6, 3) and dimmed[0, 0, 0, 0, 0] == 100 and dimmed[0, 0, 2, 2, 0] == 200


@pytest.mark.parametrize(
    "call",
    [
        lambda: clip_limits(np.zeros((2, 3, 3)), 0),
        lambda: clip_limits(np.zeros((2, 3, 3)), 101),
        lambda: clip_limits(np.zeros((2, 3, 3)), shared=[1]),
        lambda: clip_limits(np.zeros(3)),
        lambda: draw_maps(np.zeros((2, 2)), "jet"),
        lambda: draw_maps(np.zeros((2, 2)), "color"),
        lambda: overlay(np.zeros((2, 4, 4, 3)), np.zeros((3, 4, 4))),
        lambda: overlay(np.zeros((4, 4, 3)), np.zeros((1, 4, 4))),
        lambda: overlay(np.zeros((1, 4, 4, 3)), np.ones((1, 4, 4)), alpha=2),
        lambda: outline(np.zeros((1, 4, 4, 3)), np.zeros((1, 4, 4))),
        lambda: outline(np.zeros((1, 4, 4, 3)), np.zeros((1, 5, 4), bool)),
        lambda: highlight(np.zeros((1, 4, 4, 3)), np.zeros((1, 4, 4), bool), dim=-1),
    ],
)
def test_what_does_not_fit_is_refused(call) -> None:
    with pytest.raises(ArgumentError, match=r"Expected|style"):
        call()
