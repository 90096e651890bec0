"""Published lists of transforms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz import transforms as T
from tests.contracts import check_all
from tests.transforms.common import KEYS, call, image, images


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


def test_all_stops_and_caricature_are_lucids():
    for preset, padding, jitters, factors, angles in (
        (T.all_stops(), 16, (8, 2), np.arange(80, 120) / 100, [*range(-10, 10), *range(-5, 5)] + 10 * [*range(-2, 2)]),
        (T.caricature(), 8, (8, 2), [0.9, 0.95, 1, 1, 1, 1, 1.05, 1.1], [*range(-5, 5)] + 5 * [0]),
    ):
        pad, first, scale, rotate, last = preset.parts
        assert 2 * pad.grow == 2 * padding - sum(jitters)
        assert (int(first.distance), int(last.distance)) == jitters
        np.testing.assert_allclose(np.sort(scale.amount.values), factors, atol=1e-6)
        assert sorted(rotate.amount.values.tolist()) == sorted(angles)
        assert len({part.fill for part in preset.parts}) == 1  # one motion


def everything():
    return T.compose(
        T.composite("random"),  # the FFTs of "noise" talk where XLA shards them; the engine maps over shards
        T.flip(),
        T.roll(2),
        T.compose(T.pad(2), T.jitter(2), T.scale(0.9, 1.1), T.rotate(5), T.crop(8, 10)),
        T.color_jitter(0.1, 0.1, 0.1, 0.1),
        T.color_shift(0.1, 0.1),
        T.blur(0.5, 1),
        T.random_resized_crop(6),
        T.noise(0.1, 0.1),
    )


@pytest.mark.parametrize("make, channels", [(T.standard, 3), (everything, 4)])
def test_no_scatter_and_no_talk_between_devices(make, channels):
    """The gradient of a sharded batch gathers only, and no device waits for what another one drew."""
    mesh = jax.make_mesh((2,), ("image",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    batched = jax.NamedSharding(mesh, jax.P("image"))

    def step(transform, keys, images):
        return jax.grad(lambda images: jnp.sum(jax.vmap(transform)(keys, images) ** 2 / 2))(images)

    keys = jax.device_put(jax.random.split(KEYS[0], 4), batched)
    images = jax.device_put(jnp.stack([jnp.asarray(image(9, 12, channels)) for _ in range(4)]), batched)
    text = jax.jit(step, out_shardings=batched).lower(make(), keys, images).compile().as_text()
    for word in ("all-reduce", "all-gather", "collective-permute", "all-to-all", "scatter"):
        assert f"{word}(" not in text and f"{word}-start(" not in text
    assert "gather(" in text


def test_contract():
    check_all(call, [T.standard, T.standard], [KEYS, images()])


def test_each_image_has_its_own_draws():
    out = np.asarray(jax.jit(jax.vmap(everything(), (0, None)))(KEYS, image(9, 12, 4)))
    assert out.shape == (3, 6, 6, 3) and np.abs(out[0] - out[1]).max() > 0.05 and np.abs(out[1] - out[2]).max() > 0.05
