"""Pyramid, low resolution, CPPN and MACO against the published formulas, in NumPy, SciPy or torch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz import ArgumentError
from jaxviz.param import cppn, fourier, laplacian, low_resolution, maco, spectrum
from jaxviz.param._color import decorrelate
from tests.param.test_param import DECODE, ENCODE, INIT, KEYS, LUCID_MATRIX, sigmoid

torch = pytest.importorskip("torch")


def scaled_up(grid, shape, mode="bilinear"):
    """torch's interpolation, whose pixels are equal squares too."""
    batch = torch.tensor(np.asarray(grid)).permute(2, 0, 1)[None]
    out = torch.nn.functional.interpolate(batch, shape[:2], mode=mode, align_corners=False)
    return out[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("shape", [(8, 12, 3), (9, 5, 2)], ids=str)
def test_laplacian_is_a_sum_of_scaled_up_levels(shape):
    param = laplacian(shape, levels=3, sd=0.5)
    params = INIT(param, KEYS[0])
    h, w, c = shape
    assert [level.shape for level in params] == [(h, w, c), (h // 2, w // 2, c), (h // 4, w // 4, c)]
    signal = sum(scaled_up(level, shape) for level in params)
    expected = sigmoid(signal @ LUCID_MATRIX if c == 3 else signal)
    np.testing.assert_allclose(DECODE(param, params), expected, atol=1e-5)
    assert [float(level.std()) for level in INIT(laplacian((64, 64, 3), sd=0.5), KEYS[0])] == pytest.approx([0.5] * 4, rel=0.15)


def test_laplacian_stops_at_one_pixel():
    assert [level.shape for level in INIT(laplacian((3, 5, 1), levels=4), KEYS[0])] == [
        (3, 5, 1),
        (1, 2, 1),
        (1, 1, 1),
        (1, 1, 1),
    ]


def test_low_resolution_is_torchs_interpolation_and_its_least_squares():
    param = low_resolution((9, 14, 3), size=(3, 5), sd=1.0)
    params = INIT(param, KEYS[0])
    assert params.shape == (3, 5, 3)
    image = DECODE(param, params)
    np.testing.assert_allclose(image, sigmoid(scaled_up(params, (9, 14)) @ LUCID_MATRIX), atol=1e-5)
    np.testing.assert_allclose(ENCODE(param, image), params, atol=1e-3)
    # Of an image with finer detail, no other grid is nearer: what is left over stands upright on what the grid can move.
    photo = np.random.default_rng(0).uniform(0.1, 0.9, (9, 14, 3)).astype(np.float32)
    nearest = np.asarray(ENCODE(param, photo))
    rest = np.log(photo / (1 - photo)) @ np.linalg.inv(LUCID_MATRIX) - scaled_up(nearest, (9, 14))
    assert abs((rest * scaled_up(np.asarray(params), (9, 14))).sum()) < 1e-3 < np.abs(rest).max()


def test_low_resolution_grid():
    assert INIT(low_resolution((9, 14, 3), factor=4), KEYS[0]).shape == (3, 4, 3)
    assert INIT(low_resolution((9, 14, 1), size=32), KEYS[0]).shape == (9, 14, 1)
    bicubic = low_resolution((9, 14, 2), factor=3, method="bicubic", sd=1.0)
    params = INIT(bicubic, KEYS[0])
    image = np.asarray(DECODE(bicubic, params))
    np.testing.assert_allclose(DECODE(bicubic, ENCODE(bicubic, image)), image, atol=1e-5)
    assert np.abs(image - DECODE(low_resolution((9, 14, 2), factor=3), params)).max() > 0.01


def test_cppn_is_the_published_network():
    param = cppn((6, 9, 3), hidden=5, layers=3, radius=True)
    key = jax.random.key(3)
    params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(key, p.shape), INIT(param, KEYS[0]))
    image = np.asarray(DECODE(param, params))
    for i, j in [(0, 0), (5, 8), (2, 7)]:
        x, y = [np.sqrt(3) * (2 * (at + 0.5) - n) / 9 for at, n in ((j, 9), (i, 6))]
        values = np.array([x, y, np.hypot(x, y)])
        for w, b in params[:-1]:
            a = np.arctan(values @ np.asarray(w) + b)
            values = np.concatenate([a / 0.67, a**2 / 0.6])
        np.testing.assert_allclose(image[i, j], sigmoid(values @ np.asarray(params[-1][0]) + params[-1][1]), atol=1e-5)


def test_cppn_start():
    param = cppn((8, 8, 2))
    params = INIT(param, KEYS[0])
    assert [w.shape for w, _ in params] == [(2, 24), *[(48, 24)] * 7, (48, 2)]
    np.testing.assert_array_equal(DECODE(param, params), 0.5)
    middle = np.stack([w for w, _ in params[1:-1]])
    assert float(middle.std()) == pytest.approx(48**-0.5, rel=0.05)
    # The constants of the activation make both of its halves of mean square 1.
    a = np.arctan(np.random.default_rng(0).normal(size=10**5))
    assert (a / 0.67).std() == pytest.approx(1, abs=0.01) and ((a**2 / 0.6) ** 2).mean() == pytest.approx(1, abs=0.02)
    with pytest.raises(ArgumentError, match="CPPN cannot start from an image"):
        param.encode(jnp.zeros((8, 8, 2)))


def maco_image(phase, magnitude, spread, contrast):
    """The formula of Fel et al. with NumPy's transforms; the parameters are as they are drawn."""
    phase = spread * (phase - phase.mean()) / phase.std()
    signal = np.fft.irfft2(magnitude * np.exp(1j * phase), s=(magnitude.shape[0], 9), axes=(0, 1))
    signal = (signal - signal.mean()) / signal.std()
    return sigmoid(contrast * (signal @ LUCID_MATRIX))


def test_maco_is_the_published_formula():
    magnitude = np.random.default_rng(0).uniform(0.5, 2, (6, 5, 3))
    param = maco((6, 9, 3), magnitude=magnitude, spread=1.0, contrast=1.5)
    params = INIT(param, KEYS[0])
    expected = maco_image(np.asarray(params["phase"], np.float64), magnitude, 1.0, 1.5)
    np.testing.assert_allclose(DECODE(param, params), expected, atol=2e-5)
    gradient = jax.jit(jax.grad(lambda p: param.decode(p)[0, 0].sum()))(params)
    assert np.isfinite(gradient["phase"]).all() and np.any(gradient["phase"])
    assert gradient["mean"] == gradient["spread"] == 0


def test_maco_power_law():
    """The slope and the spreads are those asked for: of the signal before the sigmoid, standardised as a whole."""
    param = maco((64, 63, 3), contrast=0.5, slopes=[1.0, 2.0, 3.0])
    image = np.asarray(DECODE(param, INIT(param, KEYS[0])), np.float64)
    signal = np.log(image / (1 - image)) / 0.5 @ np.linalg.inv(LUCID_MATRIX)
    assert signal.std() == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(signal.std((0, 1)) / signal[..., 0].std(), np.array([0.395, 0.354, 0.341]) / 0.395, rtol=0.1)
    size = np.abs(np.fft.rfft2(signal, axes=(0, 1)))[:, 1:]  # the first column has to be symmetric, whatever the phases
    f = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(63)[None, 1:])
    slopes = [np.polyfit(np.log(f[f < 0.3]), np.log(size[..., i][f < 0.3]), 1)[0] for i in range(3)]
    np.testing.assert_allclose(slopes, [-1, -2, -3], atol=0.05)


@pytest.mark.parametrize("shape", [(8, 9, 3), (7, 6, 1)], ids=str)
def test_maco_keeps_the_phase_of_an_image(shape):
    image = np.random.default_rng(1).uniform(0.1, 0.9, shape).astype(np.float32)
    param = maco(shape)
    again = np.asarray(DECODE(param, ENCODE(param, image)))

    def phases(image):
        angles = np.fft.rfft2(np.asarray(decorrelate(jnp.asarray(np.log(image / (1 - image))))), axes=(0, 1))
        return (angles / np.abs(angles)).reshape(-1, shape[-1])[1:]  # all but the mean

    np.testing.assert_allclose(phases(again), phases(image), atol=2e-2)
    flat = ENCODE(param, np.full(shape, 0.5, np.float32))
    gradient = jax.jit(jax.grad(lambda p: param.decode(p).sum()))(flat)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


def test_spectrum_is_the_mean_magnitude():
    images = np.random.default_rng(2).uniform(size=(4, 6, 7, 3)).astype(np.float32)
    colours = (images - 0.5) @ np.linalg.inv(LUCID_MATRIX)
    np.testing.assert_allclose(spectrum(images), np.abs(np.fft.rfft2(colours, axes=(1, 2))).mean(0), rtol=1e-4)
    with pytest.raises(ArgumentError, match=r"\(N, H, W, C\)"):
        spectrum(images[0])


def test_maco_reads_a_spectrum_of_another_size():
    """A magnitude that is a straight line in the frequency is the same line at any size."""

    def line(h, w):
        return np.abs(np.fft.fftfreq(h))[:, None, None] + 2 * np.fft.rfftfreq(w)[None, :, None] * np.ones(3)

    big = maco((12, 13, 3), magnitude=line(12, 13))
    params = INIT(big, KEYS[0])
    other = maco(magnitude=line(8, 16)).with_shape((12, 13, 3))
    np.testing.assert_allclose(DECODE(other, params), DECODE(big, params), atol=1e-4)


def test_desaturation_divides_the_colours():
    param, pale = fourier((5, 6, 3), sd=0.3), fourier((5, 6, 3), sd=0.3, desaturation=4)
    params = INIT(param, KEYS[0])
    signals = [
        np.log(x / (1 - x)) @ np.linalg.inv(LUCID_MATRIX) for x in (np.asarray(DECODE(p, params)) for p in (param, pale))
    ]
    np.testing.assert_allclose(signals[1], signals[0] / [1, 4, 4], atol=1e-3)
    for other in (fourier((5, 6, 3), decorrelate=False), fourier((5, 6, 2))):
        params = INIT(other, KEYS[0])
        same = fourier(other.shape, decorrelate=other.decorrelate, desaturation=4)
        np.testing.assert_array_equal(DECODE(same, params), DECODE(other, params))


def test_wrong_arguments():
    for make, match in [
        (lambda: laplacian(levels=0), "levels must be"),
        (lambda: low_resolution(factor=0.5), "factor must be"),
        (lambda: low_resolution(size=(4, 0)), "size is the rows and columns"),
        (lambda: low_resolution(method="lanczos"), "method must be"),
        (lambda: cppn(hidden=0), "hidden must be"),
        (lambda: cppn(layers=1.5), "layers must be"),
        (lambda: fourier(desaturation=0), "desaturation must be"),
        (lambda: maco(magnitude=np.ones((4, 3))), r"of shape \(h, w // 2 \+ 1, C\)"),
        (lambda: maco(magnitude=-np.ones((4, 3, 3))), "negative"),
        (lambda: maco(slopes=[1, "x"]), "slopes must be numbers"),
        (lambda: maco(slopes=1, magnitude=np.ones((4, 3, 3))), "not both"),
        (lambda: maco(slopes=[1, 2, 3]).with_shape((4, 4, 1)), "slopes has 3 channels, and the image 1"),
    ]:
        with pytest.raises(ArgumentError, match=match):
            make()
