"""Colors of categories, and their legend."""

from __future__ import annotations

import numpy as np
import pytest

from jaxviz import plot
from jaxviz._errors import ArgumentError


def test_colors_are_distinct_and_the_first_stay_the_same() -> None:
    many = plot.category_colors(40)
    assert many.shape == (40, 3) and many.dtype == np.uint8
    apart = np.abs(many[:, None].astype(int) - many[None]).max(-1) + 255 * np.eye(40, dtype=int)
    assert apart.min() >= 8 and apart[:20, :20].min() >= 20 and apart[:10, :10].min() >= 45
    np.testing.assert_array_equal(plot.category_colors(7), many[:7])
    assert plot.category_colors(0).shape == (0, 3)
    with pytest.raises(ArgumentError):
        plot.category_colors(-1)


def test_a_class_keeps_its_color_where_there_are_few() -> None:
    np.testing.assert_array_equal(plot.class_colors([7, 2], 10), plot.category_colors(10)[[7, 2]])
    np.testing.assert_array_equal(plot.class_colors([900, 2], 1000), plot.category_colors(2))


@pytest.mark.parametrize("dark", [False, True])
def test_a_legend_has_every_color_in_as_many_columns_as_fit(dark: bool) -> None:
    colors = plot.category_colors(5)
    wide = plot.legend(["tench", "golf ball", "church", "x" * 500, ""], colors, width=300, dark=dark)
    assert wide.shape[1] == 300 and wide.dtype == np.uint8
    assert {tuple(c) for c in colors.tolist()} <= {tuple(c) for c in wide.reshape(-1, 3).tolist()}
    assert len(plot.legend(list("abcde"), colors, width=600)) < len(plot.legend(list("abcde"), colors, width=60))
    with pytest.raises(ArgumentError, match="names"):
        plot.legend(["one"], colors)
