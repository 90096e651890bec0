"""Grids and what they share with every picture: shapes, captions that fit, tiles."""

from __future__ import annotations

import numpy as np
import pytest

from jaxviz._errors import ArgumentError
from jaxviz.plot import grid
from jaxviz.plot._canvas import fit, font, tiles
from tests.tiny import random_images


def test_every_image_is_in_its_place_unchanged() -> None:
    images = (random_images(5, 8, 6, 3) * 255).astype(np.uint8)
    picture = grid(images, columns=3, pad=2)
    assert picture.dtype == np.uint8 and picture.shape == (2 + 2 * 10, 2 + 3 * 8, 3)
    for i, image in enumerate(images):
        y, x = 2 + i // 3 * 10, 2 + i % 3 * 8
        np.testing.assert_array_equal(picture[y : y + 8, x : x + 6], image)
        picture = picture.copy()
        picture[y : y + 8, x : x + 6] = 255
    assert (picture == 255).all(), "something is drawn outside the images"


@pytest.mark.parametrize("shape", [(4, 8, 8, 3), (4, 8, 8, 1), (4, 8, 8)])
def test_gray_and_color(shape: tuple[int, ...]) -> None:
    picture = grid(np.full(shape, 0.2), pad=0)
    assert picture.shape == (16, 16, 3) and (picture == 51).all()


@pytest.mark.parametrize("shape", [(4, 8, 8, 2), (4, 8, 8, 5), (0, 8, 8, 3), (8, 8), (4, 0, 8, 3), (8,)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ArgumentError, match=r"Expected images|channels"):
        grid(np.zeros(shape))


def test_scale_title_and_captions() -> None:
    images = random_images(4, 16, 20, 3)
    plain = grid(images, pad=1)
    assert grid(images, pad=1, scale=3).shape == (2 * 49 + 1, 2 * 61 + 1, 3)
    captioned = grid(images, pad=1, captions=list("abcd"))
    titled = grid(images, pad=1, captions=list("abcd"), title="A title that is far too long for this grid")
    assert plain.shape[0] < captioned.shape[0] < titled.shape[0]
    assert plain.shape[1] == captioned.shape[1] == titled.shape[1]
    assert not np.array_equal(captioned, grid(images, pad=1, captions=["a", "b", "c", "x"]))
    dark = grid(images, pad=1, dark=True)
    assert dark[0, 0].max() < 50 and dark.shape == plain.shape


@pytest.mark.parametrize(
    "arguments", [{"captions": ["one"]}, {"columns": 0}, {"scale": 0}, {"scale": float("nan")}, {"pad": -1}]
)
def test_wrong_arguments(arguments: dict) -> None:
    with pytest.raises(ArgumentError):
        grid(np.zeros((3, 8, 8, 3)), **arguments)


def test_captions_are_shortened_to_their_width() -> None:
    face = font(12)
    assert fit("short", face, 100) == "short"
    assert fit("two\nlines", face, 100) == "two lines"
    long = fit("a caption that is much too long" * 50, face, 100)
    assert long.startswith("a caption") and long.endswith("…") and face.getlength(long) <= 100
    assert fit("anything", face, 1) == ""


def test_large_images_shrink_with_a_smooth_filter() -> None:
    checks = np.indices((64, 64)).sum(0) % 2
    assert np.abs(tiles(checks[None, ..., None].astype(np.float32), 16).astype(int) - 127.5).max() < 40
