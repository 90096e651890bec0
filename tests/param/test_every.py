"""What every parameterization keeps to: the contract, ranges, any shape and number of channels; and those that wrap others."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxviz import ArgumentError, visualize
from jaxviz.param import Param, alpha, cppn, fourier, grayscale, laplacian, low_resolution, maco, pixel, shared
from jaxviz.param._base import decode_group, project_group
from tests.contracts import check_all
from tests.param.test_param import DECODE, ENCODE, INIT, KEYS, PROJECT
from tests.tiny import random_images, tiny_model

SIZE = (6, 5)
SMALL = random_images(6, 5, 3)

# Name -> the parameterization with the amounts that may vary without another program.
ALL = {
    "fourier": lambda sd=1.0: fourier(sd=sd, desaturation=1 + sd),
    "laplacian": lambda sd=1.0: laplacian(sd=sd, levels=3),
    "laplacian clip": lambda sd=1.0: laplacian(sd=sd, levels=2, squash="clip"),
    "low resolution": lambda sd=1.0: low_resolution(sd=sd, factor=2),
    "low resolution clip": lambda sd=1.0: low_resolution(sd=sd, size=3, squash="clip"),
    "cppn": lambda sd=1.0: cppn(sd=sd, hidden=4, layers=2),
    "maco": lambda sd=1.0: maco(contrast=sd, spread=2 * sd, slopes=1.5 * sd),
    "alpha": lambda sd=1.0: alpha(laplacian(sd=sd, levels=2)),
    "grayscale": lambda sd=1.0: grayscale(pixel(sd=sd)),
    "shared": lambda sd=1.0: shared(fourier(sd=sd), amount=sd),
    "shared clip": lambda sd=1.0: shared(pixel(sd=sd), amount=sd),
}
EXACT = ["fourier", "laplacian", "laplacian clip", "alpha", "shared", "shared clip", "from image"]  # any image comes back


@pytest.mark.parametrize("name", ALL)
def test_contract(name):
    make = ALL[name]
    variants = [lambda sd=sd: make(sd).with_shape((*SIZE, 3)) for sd in (1.0, np.float64(0.5))]
    variants.append(lambda: make(1).with_shape(np.array([*SIZE, 3])))
    start = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(INIT(variants[0](), key) for key in KEYS))
    # Away from the start, where a layer of zeros keeps the gradient of what is below it at 0.
    leaves, structure = jax.tree.flatten(start)
    params = jax.tree.unflatten(structure, [leaf + 0.1 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape) for leaf in leaves])
    if name == "maco":  # two of its parameters are constants, whose gradient is 0
        constant = {key: params[key][0] for key in ("mean", "spread")}
        phase = params["phase"]
        check_all(lambda param, p: param.decode({**constant, "phase": p}), variants, [phase])
    else:
        check_all(lambda param, p: param.decode(param.project(p)), variants, [params])
    check_all(lambda param, key: param.init(key), variants, [KEYS], gradient=False)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(4, 7, 1), (5, 4, 4)], ids=str)
def test_any_shape_and_channels(name, shape):
    param = ALL[name]().with_shape(shape)
    assert isinstance(param, Param) and param.shape == shape
    expected = (*shape[:2], shape[2] + 1) if name == "alpha" else shape
    params = PROJECT(param, INIT(param, KEYS[0]))
    image = np.asarray(DECODE(param, params))
    assert image.shape == expected and image.dtype == np.float32
    assert image.min() >= -1e-6 and image.max() <= 1 + 1e-6
    np.testing.assert_allclose(DECODE(param, PROJECT(param, params)), image, atol=1e-5)
    if name in EXACT:
        target = random_images(*expected, seed=1) * 0.98 + 0.01
        np.testing.assert_allclose(DECODE(param, ENCODE(param, target)), target, atol=2e-5)
    gradient = jax.jit(jax.grad(lambda p: jnp.cos(7 * param.decode(p)).sum()))(INIT(param, KEYS[0]))
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", [name for name in ALL if name != "from image"])
def test_shape_has_to_be_set(name):
    assert ALL[name]().shape is None
    with pytest.raises(ArgumentError, match="with_shape"):
        ALL[name]().init(KEYS[0])
    with pytest.raises(ArgumentError, match="three positive integers"):
        ALL[name]().with_shape((4, 4))


def test_alpha():
    param = alpha(fourier(sd=0.3)).with_shape((6, 5, 3))
    image = DECODE(param, INIT(param, KEYS[0]))
    # Its colours are those of the base, and its opacity is drawn apart from them.
    keys = jax.random.split(KEYS[0])
    base = fourier((6, 5, 3), sd=0.3)
    np.testing.assert_allclose(image[..., :3], DECODE(base, INIT(base, keys[0])), atol=1e-6)
    assert 0.01 < float(image[..., 3].std()) and not np.allclose(image[..., 3], image[..., :3].mean(-1), atol=1e-3)
    opaque = np.asarray(DECODE(param, ENCODE(param, SMALL)))
    np.testing.assert_allclose(opaque[..., :3], SMALL, atol=2e-3)
    assert opaque[..., 3].min() > 0.999
    with pytest.raises(ArgumentError, match=r"of shape \(6, 5, 4\), got \(6, 5, 5\)"):
        param.encode(np.zeros((6, 5, 5)))
    assert alpha(pixel((4, 5, 3))).opacity.shape == (4, 5, 1)


def test_grayscale():
    param = grayscale(fourier(sd=0.5)).with_shape((6, 5, 3))
    image = np.asarray(DECODE(param, INIT(param, KEYS[0])))
    one = fourier((6, 5, 1), sd=0.5)
    np.testing.assert_array_equal(image, np.repeat(DECODE(one, INIT(one, KEYS[0])), 3, -1))
    np.testing.assert_allclose(DECODE(param, ENCODE(param, SMALL))[..., 1], SMALL.mean(-1), atol=1e-5)


def test_wrong_bases():
    for make in (alpha, grayscale, shared):
        with pytest.raises(ArgumentError, match="base must be a parameterization"):
            make("pixel")
        with pytest.raises(ArgumentError, match="outermost"):
            make(shared())
    with pytest.raises(ArgumentError, match="points must be"):
        shared(points=0)
    with pytest.raises(ArgumentError, match="amount must be"):
        shared(amount=-1)


def ascend(param, targets, steps=3):
    """Adam, as the engine does it: the gradient of the group, the optimiser sample by sample."""
    optimizer = optax.adam(0.1)
    params = jax.vmap(param.init)(jax.random.split(KEYS[0], len(targets)))
    state = jax.vmap(optimizer.init)(params)

    @jax.jit
    def step(params, state):
        gradient = jax.grad(lambda p: ((decode_group(param, p) - targets) ** 2).sum())(params)
        updates, state = jax.vmap(optimizer.update)(gradient, state, params)
        return project_group(param, optax.apply_updates(params, updates)), state

    for _ in range(steps):
        params, state = step(params, state)
    return params


def test_shared_part_is_one_array_in_effect():
    """The copies of all samples move as one array does that the same optimiser holds once."""
    targets = random_images(3, 4, 4, 3)
    params = ascend(shared(pixel((4, 4, 3), squash="sigmoid"), amount=2.0), targets)
    common = params["common"]
    np.testing.assert_allclose(common, np.broadcast_to(common[0], common.shape), atol=1e-6)

    optimizer = optax.adam(0.1)
    base = pixel((4, 4, 3), squash="sigmoid")
    own = jax.vmap(base.init)(jax.random.split(KEYS[0], 3))
    once = {"own": own, "common": jnp.zeros((4, 4, 3))}
    state = optimizer.init(once)
    for _ in range(3):
        loss = lambda p: ((jax.nn.sigmoid(p["own"] + 2 * p["common"]) - targets) ** 2).sum()  # noqa: E731
        updates, state = optimizer.update(jax.grad(loss)(once), state)
        once = optax.apply_updates(once, updates)
    np.testing.assert_allclose(common[0], once["common"], atol=1e-4)
    np.testing.assert_allclose(params["own"], once["own"], atol=1e-4)


def test_shared_points():
    """Two points: common parts lie on a line from the first sample to the last. As many as samples: nothing in common."""
    targets = random_images(4, 3, 3, 3)
    base = pixel((3, 3, 3), squash="sigmoid")
    common = np.asarray(ascend(shared(base, points=2), targets)["common"])
    np.testing.assert_allclose(np.diff(common, n=2, axis=0), 0, atol=1e-5)
    assert np.abs(common[3] - common[0]).max() > 0.05
    apart = shared(base, points=9)
    params = {"own": jnp.zeros((4, 3, 3, 3)), "common": jnp.asarray(random_images(4, 3, 3, 3))}
    np.testing.assert_allclose(decode_group(apart, params), jax.nn.sigmoid(params["common"]), atol=1e-5)


def test_a_group_without_anything_shared_is_a_loop():
    param = laplacian((4, 5, 3), squash="clip", sd=1.0)
    params = jax.vmap(param.init)(KEYS)
    images = decode_group(param, project_group(param, params))
    for i in range(2):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], params)
        np.testing.assert_allclose(images[i], DECODE(param, PROJECT(param, one)), atol=1e-6)


def test_samples_of_a_unit_share_and_units_do_not():
    """In the engine: the samples of one unit agree more than without, and no unit sees the others of its chunk."""
    model = tiny_model()
    run = partial(visualize, model, "conv2:1,7", steps=5, samples=3, size=8, learning_rate=0.1)
    together = run(param=shared(pixel(squash="sigmoid", sd=0.5), amount=5.0), chunk=2).images
    alone = run(param=shared(pixel(squash="sigmoid", sd=0.5), amount=5.0), chunk=1).images
    np.testing.assert_allclose(together, alone, atol=1e-4)
    without = run(param=shared(pixel(squash="sigmoid", sd=0.5), amount=0.0), chunk=2).images
    assert together.std(1).mean() < 0.8 * without.std(1).mean()
