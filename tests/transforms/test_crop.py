"""Crops against slices, resized boxes against Pillow, and where they are drawn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxviz import ArgumentError
from jaxviz import transforms as T
from tests.contracts import check_all
from tests.transforms.common import APPLY, KEYS, call, image, images

MANY = jax.random.split(KEYS[0], 600)
EACH = jax.jit(jax.vmap(lambda transform, key, image: transform(key, image), (None, 0, None)))


def test_every_place_is_as_likely():
    x = np.arange(9 * 12, dtype=np.float32).reshape(9, 12, 1)
    out = np.asarray(EACH(T.crop(6, 11), MANY, x))
    rows, columns = np.divmod(out[:, 0, 0, 0].astype(int), 12)
    for i in range(20):
        np.testing.assert_array_equal(out[i], x[rows[i] : rows[i] + 6, columns[i] : columns[i] + 11])
    for start, places in ((rows, 4), (columns, 2)):
        values, counts = np.unique(start, return_counts=True)
        np.testing.assert_array_equal(values, np.arange(places))
        assert counts.min() > 0.7 * len(MANY) / places
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.15


@pytest.mark.parametrize("at", ["center", "random"])
def test_centre_and_padding(at):
    x = image(9, 12)
    if at == "center":
        np.testing.assert_array_equal(APPLY(T.crop(4, 7, at=at), KEYS[0], x), x[2:6, 2:9])
    padded = np.pad(x, ((2, 3), (1, 1), (0, 0)), constant_values=0.25)
    np.testing.assert_array_equal(APPLY(T.crop(14, at=at, fill=0.25), KEYS[0], x), padded)
    np.testing.assert_array_equal(APPLY(T.crop(9, 12, at=at), KEYS[0], x), x)
    narrow = APPLY(T.crop(12, 5, at="center", fill=0.25), KEYS[0], x)
    np.testing.assert_array_equal(narrow, np.pad(x, ((1, 2), (0, 0), (0, 0)), constant_values=0.25)[:, 3:8])


def test_crop_joins_the_motions_before_it_and_is_final():
    x = image(9, 12)
    turned = APPLY(T.compose(T.rotate([90]), T.crop(4, 5, at="center")), KEYS[0], image(9, 9))
    np.testing.assert_allclose(turned, np.rot90(image(9, 9))[2:6, 2:7], atol=1e-5)
    joined = APPLY(T.compose(T.pad(2), T.scale(1.7), T.crop(6, 7, at="center")), KEYS[0], x)
    apart = APPLY(T.crop(6, 7, at="center"), KEYS[0], APPLY(T.scale(1.7), KEYS[0], APPLY(T.pad(2), KEYS[0], x)))
    np.testing.assert_allclose(joined, apart, atol=1e-5)
    # Brought into view again by other motions, but not after a crop.
    framed = APPLY(T.compose(T.crop(5, 6, at="center"), T.pad(1), T.jitter(0)), KEYS[0], x)
    np.testing.assert_array_equal(framed, np.pad(x[2:7, 3:9], ((1, 1), (1, 1), (0, 0)), constant_values=0.5))
    # A crop by d after padding by d / 2 is Lucid's jitter, and ours.
    lucid = EACH(T.compose(T.pad(3), T.crop(9, 12)), MANY[:100], x)
    assert len(np.unique(np.asarray(lucid), axis=0)) > 30 and np.isin(lucid, [*x.ravel(), 0.5]).all()


def ramps(h, w):
    """Two channels, the row and the column of each pixel: resized, they say which box was cut out."""
    return np.stack(np.meshgrid(np.arange(h), np.arange(w), indexing="ij"), -1).astype(np.float32)


def box(out):
    """Where the box started and how large it was, (row, column) in pixels of the image, from the resized ramps."""
    n, m = out.shape[:2]
    r, c = n // 2, m // 2
    size = np.array([(out[r, c, 0] - out[r - 1, c, 0]) * n, (out[r, c, 1] - out[r, c - 1, 1]) * m])
    return np.array([out[r, c, 0], out[r, c, 1]]) + 0.5 - size * (np.array([r, c]) + 0.5) / (n, m), size


def pillows(x, size, bounds):
    """Pillow's resizing of the box (left, top, right, bottom), also of one that is larger than the result (antialiased)."""
    channels = [
        Image.fromarray(x[..., k]).resize(size[::-1], Image.Resampling.BILINEAR, box=bounds) for k in range(x.shape[-1])
    ]
    return np.stack([np.asarray(channel) for channel in channels], -1)


@pytest.mark.parametrize("scale", [1.0, 0.8, 0.3])
def test_resized_box_in_the_middle_is_pillows(scale):
    x, size = image(20, 30), (5, 14)
    out = APPLY(T.random_resized_crop(size, scale, center_sd=0), KEYS[0], x)
    top, left = 10 * (1 - scale), 15 * (1 - scale)
    np.testing.assert_allclose(out, pillows(x, size, (left, top, 30 - left, 20 - top)), atol=1e-5)


@pytest.mark.parametrize("scale, size", [((0.2, 0.4), (8, 12)), ((0.3, 0.6), (32, 32))])
def test_resized_box_is_pillows(scale, size):
    x = np.concatenate([image(20, 30), ramps(20, 30)], -1)
    cut = T.random_resized_crop(size, scale)
    for key in KEYS:
        out = np.asarray(APPLY(cut, key, x))
        (top, left), (height, width) = box(out[..., 3:])
        assert height / 20 == pytest.approx(width / 30, rel=1e-3)
        bounds = (max(left, 0), max(top, 0), min(left + width, 30), min(top + height, 20))  # rounding
        np.testing.assert_allclose(out[..., :3], pillows(x[..., :3], size, bounds), atol=2e-3)


def test_where_boxes_are_drawn():
    x = ramps(32, 32)

    def boxes(transform):
        starts, sizes = zip(*(box(out) for out in np.asarray(EACH(transform, MANY, x))), strict=True)
        return np.stack(starts) / 32, np.stack(sizes) / 32

    starts, sizes = boxes(T.random_resized_crop(16, (0.2, 0.5), center_sd=0.05))
    assert 0.199 < sizes.min() < 0.21 and 0.49 < sizes.max() < 0.501 and abs(sizes.mean() - 0.35) < 0.02
    centers = starts + sizes / 2
    np.testing.assert_allclose(centers.mean(0), 0.5, atol=0.01)
    np.testing.assert_allclose(centers.std(0), 0.05, rtol=0.1)
    assert abs(np.corrcoef(centers.T)[0, 1]) < 0.15
    starts, sizes = boxes(T.random_resized_crop(16, 0.5, center_sd=0.5))  # most would stick out
    assert starts.min() > -1e-4 and (starts + sizes).max() < 1 + 1e-4
    assert 0.2 < (starts < 1e-4).mean() < 0.4  # N(0.5, 0.5) is below 0.25 with probability 0.31
    starts, _ = boxes(T.random_resized_crop(16, 0.5, center_sd=None))
    assert abs(starts.mean() - 0.25) < 0.02 and starts.std() == pytest.approx(0.5 / np.sqrt(12), rel=0.1)


def test_every_pixel_of_a_large_box_has_a_gradient():
    shrink = T.random_resized_crop(4, 1.0)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(shrink(KEYS[0], x))))(image(17, 19))
    assert gradient.min() > 0.3 * gradient.max() > 0


VARIANTS = {
    "crop": [lambda: T.crop(7, 6), lambda: T.crop(np.int64(7), 6)],
    "random_resized_crop": [
        lambda: T.random_resized_crop((6, 5)),
        lambda: T.random_resized_crop((6, 5), (0.9, 1), center_sd=1),
        lambda: T.random_resized_crop(np.array([6, 5]), jnp.float32(0.3)),
    ],
}


@pytest.mark.parametrize("name", VARIANTS)
def test_contract(name):
    check_all(call, VARIANTS[name], [KEYS, images()])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: T.crop(0),
        lambda: T.crop(4, 2.5),  # pyright: ignore
        lambda: T.crop(4, at="top"),  # pyright: ignore
        lambda: T.crop(4)(KEYS[0], jnp.zeros((4, 4))),
        lambda: T.random_resized_crop(0),
        lambda: T.random_resized_crop((4, 4, 3)),
        lambda: T.random_resized_crop(4, (0.5, 0.2)),
        lambda: T.random_resized_crop(4, (0.0, 0.2)),
        lambda: T.random_resized_crop(4, (0.5, 1.1)),
        lambda: T.random_resized_crop(4, (0.1, 0.2, 0.3)),  # pyright: ignore
        lambda: T.random_resized_crop(4, center_sd=-0.1),
        lambda: T.random_resized_crop(4)(KEYS[0], jnp.zeros((4, 4))),
    ],
)
def test_wrong_arguments(wrong):
    with pytest.raises(ArgumentError):
        wrong()
