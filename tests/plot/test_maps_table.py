"""Tables of pictures, as arrays and as matplotlib figures; color bars."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from jaxviz._errors import ArgumentError, UnsupportedError
from jaxviz.plot import Bar, color_bar, color_table, figure, table
from tests.tiny import random_images

PICTURES = (random_images(2, 3, 96, 100, 3) * 255).astype(np.uint8)
HEADS = ["photo", "saliency", "grad_cam"]


def places(page: np.ndarray, picture: np.ndarray) -> list[tuple[int, int]]:
    """Return where the picture stands on the page."""
    found = np.argwhere((page[:, :, None] == picture[:1, :1]).all((-1, -2)))
    h, w = picture.shape[:2]
    return [(y, x) for y, x in found.tolist() if np.array_equal(page[y : y + h, x : x + w], picture)]


def test_every_picture_is_in_its_row_and_column() -> None:
    page = table(PICTURES, columns=HEADS)
    where = [[places(page, picture) for picture in row] for row in PICTURES]
    assert all(len(place) == 1 for row in where for place in row)
    ys, xs = np.array(where)[:, :, 0].transpose(2, 0, 1)
    assert (ys == ys[:, :1]).all() and (xs == xs[:1]).all() and ys[1, 0] > ys[0, 0] and (np.diff(xs[0]) > 100).all()


def test_what_stands_around_takes_its_room() -> None:
    plain = table(PICTURES, columns=HEADS).shape
    captions = [["church 7.1", "", "zero everywhere"]] * 2
    assert table(PICTURES, columns=HEADS, captions=captions).shape[0] > plain[0]
    long = [["", "", "negative everywhere, cut off by ReLU"]] * 2  # two lines
    assert table(PICTURES, columns=HEADS, captions=long).shape[0] > table(PICTURES, columns=HEADS, captions=captions).shape[0]
    assert table(PICTURES, columns=HEADS, rows=["a.jpg", "b.jpg"]).shape[1] > plain[1]
    assert table(PICTURES, columns=HEADS, title="A title").shape[0] > plain[0]
    grouped = table(PICTURES, columns=HEADS, groups=[("", 1), ("methods", 2)])
    assert grouped.shape[0] > plain[0] and grouped.shape[1] > plain[1]
    assert table(PICTURES, columns=HEADS, tile=48).shape[0] < plain[0]
    assert table(PICTURES, columns=HEADS, dark=True)[0, 0].tolist() != [255] * 3
    barred = table(PICTURES, columns=HEADS, bars=[Bar("heat", "inferno", ("0", "1"))])
    for color in color_table("inferno")[[0, 255]]:
        assert (barred == color).all(-1).any()


def test_color_bar_goes_from_left_to_right() -> None:
    bar = color_bar("blue_red", ("-1", "0", "1"), name="signed", length=100)
    row = bar[5]
    left, right = (np.flatnonzero((row == color).all(-1)) for color in color_table("blue_red")[[0, 255]])
    assert len(left) and len(right) and right[-1] - left[0] == 99


@pytest.mark.parametrize(
    "call",
    [
        lambda make: make(PICTURES, columns=HEADS[:2]),
        lambda make: make(PICTURES, columns=HEADS, rows=["one"]),
        lambda make: make(PICTURES, columns=HEADS, captions=[["a", "b"]] * 2),
        lambda make: make(PICTURES, columns=HEADS, groups=[("", 2)]),
        lambda make: make([PICTURES[0], PICTURES[1, :2]], columns=HEADS),
    ],
)
def test_what_does_not_fit_is_refused(call) -> None:
    with pytest.raises(ArgumentError, match="Expected"):
        call(table)


def test_wrong_bars_and_tiles() -> None:
    with pytest.raises(ArgumentError, match="two words"):
        color_bar(ends=["0"])
    with pytest.raises(ArgumentError, match="tile"):
        table(PICTURES, columns=HEADS, tile=0)


def test_figure_has_an_axes_for_each_picture_and_leaves_pyplot_alone() -> None:
    pytest.importorskip("matplotlib")
    there = "matplotlib.pyplot" in sys.modules  # imported by another test
    bars = [Bar("heat", "inferno", ("0", "1")), Bar("signed", "blue_red", ("-1", "0", "1"))]
    captions = [["church", "", "zero everywhere"]] * 2
    made = figure(PICTURES, columns=HEADS, rows=["a", "b"], captions=captions, groups=[("", 1), ("m", 2)], bars=bars)
    assert len(made.axes) == 6 + 2 and there == ("matplotlib.pyplot" in sys.modules)
    for axes, picture in zip(made.axes, PICTURES.reshape(6, 96, 100, 3), strict=False):
        np.testing.assert_array_equal(axes.get_images()[0].get_array(), picture)
    assert [axes.get_title() for axes in made.axes[:3]] == ["photo", "m\nsaliency", "grad_cam"]
    assert made.axes[5].get_xlabel() == "zero everywhere" and made.axes[3].get_ylabel() == "b"
    made.canvas.draw()
    with pytest.raises(ArgumentError, match="Expected"):
        figure(PICTURES, columns=HEADS[:2])


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'jaxviz\[plot\]'"):
        figure(PICTURES, columns=HEADS)
