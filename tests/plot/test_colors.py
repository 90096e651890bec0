"""Color maps: RGB, perceptually even, neutral at 0, and near the published tables."""

from __future__ import annotations

import numpy as np
import pytest

from jaxviz._errors import ArgumentError
from jaxviz.plot import COLORS, color_table, colorize


def lightness(table: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB colors (n, 3)."""
    linear = np.where(table / 255 <= 0.04045, table / 255 / 12.92, ((table / 255 + 0.055) / 1.055) ** 2.4)
    y = linear @ np.array([0.2126, 0.7152, 0.0722])
    return np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)


@pytest.mark.parametrize("name", ["inferno", "viridis", "gray"])
def test_sequential_maps_get_lighter_evenly(name) -> None:
    steps = np.diff(lightness(color_table(name).astype(float)))
    assert (steps > -0.05).all()
    if name != "gray":  # steps of sRGB are nearly even, too, but not at the dark end
        assert steps.max() < 3 * steps.mean()


def test_the_signed_map_is_neutral_at_0_and_as_light_on_both_sides() -> None:
    table = color_table("blue_red").astype(float)
    light = lightness(table)
    assert np.ptp(table[127:129], axis=1).max() <= 3 and light[127] > 95
    assert (np.diff(light[:128]) > -0.2).all() and (np.diff(light[128:]) < 0.2).all()
    # OKLab, in which it was made, and CIE L* do not agree exactly on blue.
    assert np.abs(light[:128] - light[:127:-1]).max() < 6
    blue, red = table[0], table[-1]
    assert blue[2] > blue[0] + 100 and red[0] > red[2] + 100, "RGB, and negative is blue"


@pytest.mark.parametrize("name", ["inferno", "viridis", "turbo"])
def test_tables_are_the_published_ones(name) -> None:
    published = pytest.importorskip("matplotlib").colormaps[name](np.arange(256))[:, :3] * 255
    assert np.abs(color_table(name) - published).max() < 8


def test_numbers_to_colors() -> None:
    values = np.array([[-5.0, 0, 1], [2, 9, np.nan]])
    shown = colorize(values, "gray", (0, 2))
    assert shown.dtype == np.uint8 and shown.shape == (2, 3, 3)
    assert shown[..., 0].tolist() == [[0, 0, 128], [255, 255, 150]]
    limits = (np.zeros((2, 1)), np.array([[1.0], [4.0]]))
    assert colorize(np.ones((2, 1)), "gray", limits)[..., 0].ravel().tolist() == [255, 64]
    assert colorize(np.array([np.inf, -np.inf]), "gray")[:, 0].tolist() == [255, 0]
    assert len({color_table(name).tobytes() for name in COLORS}) == len(COLORS)


def test_unknown_colors_are_refused() -> None:
    with pytest.raises(ArgumentError, match="inferno"):
        colorize(np.zeros(2), "infreno")  # type: ignore[arg-type]
