"""Transforms: positions against NumPy and SciPy, gradients against the transposed matrix, draws, fusing, static shapes."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz import ArgumentError, _warp
from jaxviz import transforms as T
from tests.contracts import check_all

KEYS = jax.random.split(jax.random.key(0), 3)
RNG = np.random.default_rng(0)
APPLY = jax.jit(lambda transform, key, image: transform(key, image))  # compiled once for a kind and shape


def image(h=9, w=12, c=3):
    return RNG.uniform(size=(h, w, c)).astype(np.float32)


def similarity(factor, degrees):
    angle = np.deg2rad(degrees)
    return np.float32(factor) * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)


def spread(factor, degrees):
    return jnp.float32(1.001 * np.abs(similarity(factor, degrees)).sum(1).max())


WARP = jax.jit(_warp.warp, static_argnames=("size", "fill"))
MOTIONS = [
    (1.0, 0, (0, 0)),
    (1.1, 10, (3, -2)),
    (0.9, -7, (0.5, 0.25)),
    (1.6, 40, (0, 1)),
    (0.3, 100, (1, 0)),
    (3.0, -170, (0, -1)),
]


@pytest.mark.parametrize("factor, degrees, offset", MOTIONS)
def test_warp_is_scipys_bilinear_interpolation(factor, degrees, offset):
    ndimage = pytest.importorskip("scipy.ndimage")
    x, size = image(), (11, 15)
    out = WARP(x, similarity(factor, degrees), np.array(offset, np.float32), size=size, fill=0.5, reach=spread(factor, degrees))
    # Where each pixel of the window comes from, in float64 and by a general inverse.
    window = np.stack(np.meshgrid(np.arange(11) - 5.0, np.arange(15) - 7.0, indexing="ij"))
    places = np.einsum("ij,jrc->irc", np.linalg.inv(similarity(factor, degrees)), window - np.reshape(offset, (2, 1, 1)))
    places += np.array([4.0, 5.5]).reshape(2, 1, 1)
    expected = [ndimage.map_coordinates(x[..., k], places, order=1, mode="grid-constant", cval=0.5) for k in range(3)]
    np.testing.assert_allclose(out, np.stack(expected, -1), atol=1e-5)


@pytest.mark.parametrize("factor, degrees, offset", MOTIONS)
def test_gradient_of_warp_is_its_exact_adjoint(factor, degrees, offset):
    """The warp is linear up to its fill: its matrix, column by column, is what the gradient must apply transposed."""
    source, size = (6, 5), (8, 7)
    matrix, offset = similarity(factor, degrees), np.array(offset, np.float32)

    @jax.jit
    def both(x, cotangent, reach):
        move = partial(_warp.warp, matrix=matrix, offset=offset, size=size, fill=0.0, reach=reach)
        columns = jax.vmap(move)(jnp.eye(30).reshape(30, *source, 1)).reshape(30, 56)
        return columns, jax.vjp(move, x)[1](cotangent)[0]

    x, cotangent = image(*source, 2), image(*size, 2)
    for slack in (1, 2.5):  # the bound of the reach may be loose
        columns, gradient = both(x, cotangent, slack * spread(factor, degrees))
        np.testing.assert_allclose(gradient.reshape(30, 2), columns @ cotangent.reshape(56, 2), atol=2e-5)


def test_second_derivative():
    """Gradients go through the gradient: d/dx of |g(x)|^2, g the gradient of a sum of cubes of the warped image."""
    x = image(6, 5, 1)
    move = partial(
        _warp.warp, matrix=similarity(1.1, 20), offset=np.zeros(2, np.float32), size=(6, 5), fill=0.0, reach=spread(1.1, 20)
    )

    def penalty(x):
        return jnp.sum(jax.grad(lambda x: jnp.sum(move(x) ** 3))(x) ** 2)

    direction = image(6, 5, 1)
    value, slope = jax.jit(jax.value_and_grad(penalty))(x)
    ahead = jax.jit(penalty)(x + 1e-3 * direction)
    assert float((ahead - value) / 1e-3) == pytest.approx(float(jnp.sum(slope * direction)), rel=0.02)


def test_directions_and_centre():
    x = image(8, 8)
    np.testing.assert_allclose(APPLY(T.rotate([90]), KEYS[0], x), np.rot90(x), atol=1e-5)  # counter-clockwise as seen
    np.testing.assert_allclose(APPLY(T.rotate([-90]), KEYS[0], x), np.rot90(x, -1), atol=1e-5)
    odd = image(5, 8)
    np.testing.assert_allclose(APPLY(T.rotate([180]), KEYS[0], odd), odd[::-1, ::-1], atol=1e-5)
    # Twice the size about the centre: the middle of the image of a ramp grows half as fast.
    ramp = np.tile(np.arange(9, dtype=np.float32)[:, None, None] / 8, (1, 9, 1))
    np.testing.assert_allclose(APPLY(T.scale(2.0), KEYS[0], ramp)[:, 4, 0], (np.arange(9) - 4) / 16 + 0.5, atol=1e-6)


def test_motions_cancel_in_one_resample():
    """Turned and turned back, nothing is blurred or cut off, since both are one motion on an endless canvas."""
    x = image()
    there_and_back = T.compose(T.rotate([35]), T.scale(1.7), T.scale(1 / 1.7), T.rotate([-35]))
    np.testing.assert_allclose(APPLY(there_and_back, KEYS[0], x), x, atol=2e-5)
    apart = T.compose(T.rotate([35]), lambda key, image: image, T.rotate([-35]))
    assert np.abs(APPLY(apart, KEYS[0], x) - x).max() > 0.1


def test_order_of_motions():
    """Rotation by 90 degrees after a shift moves the shift too: right becomes up."""
    x = np.zeros((9, 9, 1), np.float32)
    x[4, 4] = 1
    key = next(k for k in jax.random.split(jax.random.key(1), 99) if _drawn(k, 0)[1] != 0)
    down, right = _drawn(key, 0)
    out = APPLY(T.compose(T.jitter(4, fill=0), T.rotate([90], fill=0)), key, x)[..., 0]
    assert np.unravel_index(np.argmax(out), (9, 9)) == (4 - right, 4 + down)


def _drawn(key, position):
    """The shift that a jitter(4) at this position draws, found from what it does to a single bright pixel."""
    x = np.zeros((9, 9, 1), np.float32)
    x[4, 4] = 1
    out = APPLY(T.jitter(4, fill=0), jax.random.fold_in(key, position), x)[..., 0]
    return tuple(int(i) - 4 for i in np.unravel_index(np.argmax(out), (9, 9)))


@pytest.mark.parametrize("distance", [0, 1, 4, 5])
def test_jitter_is_uniform_and_centred(distance):
    x = np.arange(1, 122, dtype=np.float32).reshape(11, 11, 1)
    out = jax.jit(jax.vmap(T.jitter(distance, fill=0), (0, None)))(jax.random.split(KEYS[0], 600), x)
    rows, columns = np.divmod(np.asarray(out[:, 5, 5, 0]).astype(int) - 1, 11)
    for moved in (5 - rows, 5 - columns):
        values, counts = np.unique(moved, return_counts=True)
        np.testing.assert_array_equal(values, np.arange(distance + 1) - distance // 2)
        assert counts.min() > 0.7 * 600 / (distance + 1)
    assert distance == 0 or abs(np.corrcoef(rows, columns)[0, 1]) < 0.15


def test_whole_pixels_are_not_interpolated():
    x = image()
    moved = T.compose(T.pad(3, 0.25), T.jitter(4, fill=0.25), T.jitter(2, fill=0.25))
    for out in (APPLY(moved, key, x) for key in KEYS):
        assert out.shape == (15, 18, 3)
        inside = np.isin(np.asarray(out), x)
        assert inside.sum() == x.size and np.all(np.asarray(out)[~inside] == 0.25)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(T.jitter(6)(KEYS[0], x) ** 2 / 2)))(x)
    assert np.all((gradient == 0) | (gradient == x)) and np.any(gradient == 0)


def test_pad():
    x = image()
    np.testing.assert_allclose(T.pad(2, 0.1)(KEYS[0], x), np.pad(x, ((2, 2), (2, 2), (0, 0)), constant_values=0.1), atol=1e-7)
    np.testing.assert_array_equal(T.pad(0)(KEYS[0], x), x)
    # Joined to a motion of the same colour it is the same; another colour is seen as what it is.
    joined = APPLY(T.compose(T.pad(4, 0.5), T.rotate([25])), KEYS[0], x)
    padded = APPLY(T.rotate([25]), KEYS[0], APPLY(T.pad(4, 0.5), KEYS[0], x))
    np.testing.assert_allclose(joined, padded, atol=1e-5)
    corners = APPLY(T.compose(T.pad(4, 0.0), T.rotate([45], fill=1.0)), KEYS[0], 0 * x)
    assert corners[0, 0, 0] == 1 and corners[5, 5, 0] == 0


def test_ranges_of_draws():
    keys = jax.random.split(KEYS[0], 400)
    scales = np.asarray(jax.vmap(T.scale(0.5, 2.0).amount.draw)(keys))
    assert 0.5 <= scales.min() < 0.52 and 1.95 < scales.max() <= 2 and abs(scales.mean() - 1.25) < 0.06
    angles = np.asarray(jax.vmap(T.rotate(30).amount.draw)(keys))
    assert -30 <= angles.min() < -28 and 28 < angles.max() <= 30
    chosen, counts = np.unique(jax.vmap(T.rotate([-3, 1, 1, 8]).amount.draw)(keys), return_counts=True)
    assert chosen.tolist() == [-3, 1, 8] and 150 < counts[1] < 250


def test_standard_is_lucids():
    standard = T.standard()
    assert [type(part).__name__ for part in standard.parts] == ["Pad", "Jitter", "Scale", "Rotate", "Jitter"]
    pad, first, scale, rotate, last = standard.parts
    # Lucid pads by 12 on each side and then crops by 8 and by 4.
    assert 2 * pad.grow == 2 * 12 - 8 - 4
    assert (int(first.distance), int(last.distance)) == (8, 4)
    np.testing.assert_allclose(scale.amount.values, np.linspace(0.9, 1.1, 11), atol=1e-6)
    assert sorted(rotate.amount.values.tolist()) == sorted([*range(-10, 11)] + 5 * [0])
    x = image(20, 30)
    outs = np.asarray(jax.jit(jax.vmap(standard, (0, None)))(KEYS, x))
    assert outs.shape == (3, 32, 42, 3) and outs.dtype == np.float32
    assert outs.min() >= -1e-6 and outs.max() <= 1 + 1e-6
    assert np.abs(outs[0] - outs[1]).max() > 0.1 and np.abs(outs[1] - outs[2]).max() > 0.1


def test_every_part_has_its_own_key():
    seen = []

    def spy(key, image):
        seen.append(jax.random.key_data(key))
        return image

    T.compose(spy, T.jitter(2), T.compose(spy, spy))(KEYS[0], image())
    expected = [jax.random.key_data(jax.random.fold_in(KEYS[0], position)) for position in (0, 2, 3)]
    np.testing.assert_array_equal(seen, expected)


def test_identity():
    x = image()
    assert T.identity()(KEYS[0], x) is x
    assert len(T.compose(T.identity(), T.pad(1), T.identity()).parts) == 1


def brighten(key, image):
    return image * jax.random.uniform(key, minval=0.8, maxval=1.2)


VARIANTS = {
    "jitter": [lambda: T.jitter(8), lambda: T.jitter(np.int64(4)), lambda: T.jitter(0)],
    "scale": [lambda: T.scale(0.9, 1.1), lambda: T.scale(2), lambda: T.scale(jnp.float32(0.3), np.float64(3))],
    "standard": [T.standard, T.standard],
    "mixed": [
        lambda: T.compose(T.pad(2), T.rotate(10), brighten, T.jitter(3)),
        lambda: T.compose(T.pad(2), T.rotate(80.5), brighten, T.jitter(8)),
    ],
}


@pytest.mark.parametrize("name", VARIANTS)
def test_contract(name):
    images = jnp.stack([jnp.asarray(image()) for _ in KEYS])
    check_all(lambda transform, key, x: transform(key, x), VARIANTS[name], [KEYS, images])


def test_no_scatter_and_no_talk_between_devices():
    """The gradient of a sharded batch gathers only, and no device waits for what another one drew."""
    mesh = jax.make_mesh((2,), ("image",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    batched = jax.NamedSharding(mesh, jax.P("image"))

    def step(transform, keys, images):
        return jax.grad(lambda images: jnp.sum(jax.vmap(transform)(keys, images) ** 2 / 2))(images)

    keys = jax.device_put(jax.random.split(KEYS[0], 4), batched)
    images = jax.device_put(jnp.stack([jnp.asarray(image()) for _ in range(4)]), batched)
    text = jax.jit(step, out_shardings=batched).lower(T.standard(), keys, images).compile().as_text()
    for word in ("all-reduce", "all-gather", "collective-permute", "all-to-all", "scatter"):
        assert f"{word}(" not in text and f"{word}-start(" not in text
    assert "gather(" in text


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: T.pad(-1),
        lambda: T.pad(1.5),  # pyright: ignore
        lambda: T.pad(1, value=float("nan")),
        lambda: T.jitter(-1),
        lambda: T.jitter(2.5),  # pyright: ignore
        lambda: T.scale(0.0, 1.0),
        lambda: T.scale(1.2, 0.8),
        lambda: T.scale([]),
        lambda: T.scale([0.9, -1]),
        lambda: T.scale([0.9, 1.1], 2.0),
        lambda: T.rotate(-5),
        lambda: T.rotate("far"),  # pyright: ignore
        lambda: T.rotate([float("inf")]),
        lambda: T.compose(T.pad(1), 3),  # pyright: ignore
        lambda: T.jitter(1)(KEYS[0], jnp.zeros((2, 4, 4, 3))),
        lambda: T.standard()(KEYS[0], jnp.zeros((4, 4))),
    ],
)
def test_wrong_arguments(wrong):
    with pytest.raises(ArgumentError):
        wrong()
