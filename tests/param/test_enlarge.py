"""Going to a larger image keeps the picture."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from jaxviz import ArgumentError, image
from jaxviz.param import alpha, cppn, fourier, grayscale, laplacian, low_resolution, maco, pixel, shared
from jaxviz.param._base import enlarge
from tests.param.test_param import DECODE, ENCODE, INIT, KEYS

ENLARGE = jax.jit(enlarge)


def smooth(h, w, c):
    """A picture without fine detail, periodic, so that every way of resizing agrees about it."""
    y, x = [2 * np.pi * (np.arange(n) + 0.5) / n for n in (h, w)]
    phases = np.arange(c)
    return (0.5 + 0.2 * np.sin(y)[:, None, None] + 0.15 * np.cos(x[None, :, None] + phases)).astype(np.float32)


@pytest.mark.parametrize("squash", ["sigmoid", "clip"])
@pytest.mark.parametrize("sizes", [((8, 9), (13, 18)), ((9, 8), (9, 15))], ids=str)
def test_fourier_is_a_longer_spectrum(sizes, squash):
    """SciPy's Fourier resampling says what padding the spectrum with zeros gives, its grid fitted to centres of pixels."""
    (h, w), (height, width) = sizes
    old = fourier((h, w, 3), sd=0.05, decay=1.0, desaturation=2.0, squash=squash)
    new = old.with_shape((height, width, 3))
    params = INIT(old, KEYS[0])
    before, after = (np.asarray(DECODE(p, q), np.float64) for p, q in ((old, params), (new, ENLARGE(old, new, params))))
    signals = [np.log(x / (1 - x)) if squash == "sigmoid" else x - 0.5 for x in (before, after)]
    expected = signals[0]
    for axis, few, many in ((0, h, height), (1, w, width)):
        # 2 * few * many positions hold both grids; pick the centres of the larger pixels among those of the smaller.
        fine = scipy.signal.resample(expected, 2 * few * many, axis=axis)
        at = (few * (2 * np.arange(many) + 1) - many) % (2 * few * many)
        expected = np.take(fine, at, axis=axis)
    np.testing.assert_allclose(signals[1], expected, atol=2e-4)
    assert np.ptp(expected) > 0.1
    # The same picture at the same size: nothing changes.
    np.testing.assert_allclose(DECODE(old, ENLARGE(old, old, params)), before, atol=1e-5)


ALL = {
    "fourier": fourier(),
    "fourier clip": fourier(squash="clip"),
    "pixel": pixel(),
    "laplacian": laplacian(),
    "low resolution": low_resolution(factor=2),
    "alpha": alpha(),
    "grayscale": grayscale(),
    "shared": shared(),
}


@pytest.mark.parametrize("name", ALL)
def test_the_picture_stays(name):
    old = ALL[name].with_shape((12, 16, 3))
    new = old.with_shape((24, 28, 3))
    channels = 4 if name == "alpha" else 3
    picture = smooth(12, 16, channels)
    if name == "grayscale":
        picture = np.repeat(picture[..., :1], 3, -1)
    params = ENCODE(old, picture)
    resized = np.asarray(image.resize(DECODE(old, params), (24, 28), "bicubic"))
    params = ENLARGE(old, new, params)
    # Where borders are not periodic, resizing repeats them and a spectrum wraps around.
    np.testing.assert_allclose(DECODE(new, params)[3:-3, 3:-3], resized[3:-3, 3:-3], atol=0.03)


def test_a_cppn_paints_the_same_picture():
    old = cppn((9, 12, 3), hidden=6, layers=2)
    params = jax.tree.map(lambda p: p + 0.5 * jnp.cos(jnp.arange(p.size)).reshape(p.shape), INIT(old, KEYS[0]))
    new = old.with_shape((27, 36, 3))
    picture = np.asarray(DECODE(old, params))
    # Three pixels for one: every second of them, from the second on, has the old pixel's centre.
    np.testing.assert_allclose(DECODE(new, enlarge(old, new, params))[1::3, 1::3], picture, atol=1e-5)
    assert picture.std() > 0.05


def test_shared_keeps_its_common_part_in_the_picture():
    old = shared(fourier(decay=1.0), amount=0.5).with_shape((8, 8, 3))
    new = old.with_shape((16, 16, 3))
    own, common = (fourier((8, 8, 3), sd=0.1, decay=1.0).init(key) for key in KEYS)
    base = fourier((8, 8, 3), decay=1.0)
    whole = ENLARGE(base, base.with_shape((16, 16, 3)), own + 0.5 * common)
    expected = DECODE(base.with_shape((16, 16, 3)), whole)
    np.testing.assert_allclose(DECODE(new, ENLARGE(old, new, {"own": own, "common": common})), expected, atol=1e-5)


def test_maco_keeps_the_coarse_of_a_picture():
    old = maco((16, 16, 3))
    new = old.with_shape((24, 24, 3))
    params = INIT(old, KEYS[0])
    before = np.asarray(image.resize(DECODE(old, params), (24, 24), "bicubic"))
    after = np.asarray(DECODE(new, ENLARGE(old, new, params)))
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.9


def test_channels_stay():
    with pytest.raises(ArgumentError, match="keeps the channels"):
        enlarge(pixel((4, 4, 3)), pixel((8, 8, 1)), np.zeros((4, 4, 3), np.float32))
