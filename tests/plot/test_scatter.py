"""Scatter plots: where thumbnails come to stand, which colors they have, what the legend holds."""

from __future__ import annotations

import numpy as np
import pytest

from jaxviz import ArgumentError, plot
from jaxviz.plot._scatter import label_colors

RED, GREEN, BLUE = [255, 0, 0], [0, 255, 0], [0, 0, 255]


def images(*colors: list[int], side: int = 16) -> np.ndarray:
    return np.stack([np.broadcast_to(np.array(color, np.uint8), (side, side, 3)) for color in colors])


def places(picture: np.ndarray, color: list[int]) -> np.ndarray:
    """Return row and column of the middle of all pixels of a color, (2,), or an empty array."""
    found = np.argwhere((picture == color).all(-1))
    return found.mean(0) if len(found) else found


def test_thumbnails_stand_where_their_points_are() -> None:
    picture = plot.scatter(
        np.array([[0.0, 0], [10, 0], [10, 5]]), images(RED, GREEN, BLUE), arrange="free", size=400, tile=20, legend=False
    )
    red, green, blue = (places(picture, color) for color in (RED, GREEN, BLUE))
    np.testing.assert_allclose(green - red, [0, 360], atol=1)  # 400 without a tile all around
    np.testing.assert_allclose(blue - green, [-180, 0], atol=1)  # y upwards, one scale for both axes
    assert (picture == RED).all(-1).sum() == 20 * 20


def test_on_a_grid_no_two_share_a_place_and_the_nearest_has_it() -> None:
    points = np.array([[0.0, 0], [0.02, 0], [10, 10], [5, 5]])
    picture = plot.scatter(points, images(RED, GREEN, BLUE, [9, 9, 9]), size=400, tile=40, legend=False)
    assert len(places(picture, GREEN)) and not len(places(picture, RED)), "nearer to the center of the place that both fall on"
    offset = places(picture, BLUE) - places(picture, GREEN)
    assert (offset % 40 == 0).all() and (np.abs(offset) == [320, 320]).all()
    free = plot.scatter(points, images(RED, GREEN, BLUE, [9, 9, 9]), arrange="free", size=400, tile=40, legend=False)
    assert len(places(free, RED)) and not len(places(free, GREEN)), "the first; the other would cover it"


def test_classes_have_colors_of_their_own_and_a_legend() -> None:
    points, names = np.random.default_rng(0).normal(size=(40, 2)), ["b", "a"] * 20
    drawn = plot.scatter(points, labels=names, size=300)
    bare = plot.scatter(points, labels=names, size=300, legend=False)
    first, second = label_colors(names)["a"], label_colors(names)["b"]
    assert (first, second) == tuple(map(tuple, plot.category_colors(2).tolist()))
    assert drawn.shape[1] > bare.shape[1] and all((bare == color).all(-1).sum() > 20 for color in (first, second))
    marked = plot.scatter(points[:1], images(RED), labels=["a"], arrange="free", size=100, tile=32, legend=False)
    assert (marked == RED).all(-1).sum() == 28 * 28 and (marked == first).all(-1).sum() == 32 * 32 - 28 * 28
    many = [str(i) for i in range(40)]
    assert plot.scatter(points, labels=many, size=300).shape[0] > drawn.shape[0], "30 classes and how many more"
    assert (plot.scatter(points, labels=[""] * 40, size=300, dark=True)[0, 0] == [23, 24, 27]).all()


def test_a_class_keeps_its_color_whichever_others_are_there() -> None:
    ten = [f"class {i}" for i in (3, 1, 4, 0, 5, 9, 2, 6, 8, 7)]
    whole = label_colors(ten, ten)
    assert list(whole) == ten and list(whole.values()) == list(map(tuple, plot.category_colors(10).tolist()))
    assert label_colors(["class 9", "class 4", ""], ten) == {name: whole[name] for name in ("class 4", "class 9")}
    many = [str(i) for i in range(1000)]
    assert list(label_colors(["900", "7"], many).values()) == list(map(tuple, plot.category_colors(2).tolist()))
    assert list(label_colors(["x", "b"], ["b", "a"])) == ["b", "x"], "a class that is not among them comes last"


@pytest.mark.parametrize("arrange", ["grid", "free", "dots"])
def test_any_points(arrange) -> None:
    for points in (np.zeros((1, 2)), np.zeros((5, 2)), np.stack([np.arange(5.0), np.zeros(5)], -1)):
        made = plot.scatter(points, np.zeros((len(points), 8, 12, 1)), arrange=arrange, size=200, title="a title")
        assert made.dtype == np.uint8 and made.shape[-1] == 3 and (made != 255).any()


@pytest.mark.parametrize(
    ("points", "options", "words"),
    [
        (np.zeros((3, 3)), {}, r"\(N, 2\)"),
        (np.full((3, 2), np.inf), {}, "finite"),
        (np.zeros((3, 2)), {"labels": ["a"]}, "3 labels"),
        (np.zeros((3, 2)), {"images": np.zeros((2, 8, 8, 3))}, "3 images"),
        (np.zeros((3, 2)), {"arrange": "cloud"}, "grid, free, dots"),
        (np.zeros((3, 2)), {"size": 100, "tile": 60}, "tiles"),
    ],
)
def test_wrong_arguments_are_told(points: np.ndarray, options: dict, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        plot.scatter(points, **options)
