"""Infidelity and maximum sensitivity against Captum, fed the same perturbations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz as jv
from jaxviz import metrics
from jaxviz._pytree import leaf
from jaxviz.metrics._sensitivity import nearby
from tests.attribution.reference import assert_close, full, images, normalised, pair
from tests.models.reference import STD
from tests.tiny import random_images, tiny_model
from tests.torch_reference import import_torchvision


@pytest.mark.parametrize(
    ("name", "head", "normalize", "multiplied"),
    [
        ("small_vgg_bn", None, True, True),
        ("small_bottleneck", None, False, False),
        full("vgg11", 64, False, False),
        full("vgg11", 64, True, True),
        full("resnet50", None, False, False),
    ],
)
def test_infidelity_is_captums(name: str, head: int | None, normalize: bool, multiplied: bool) -> None:
    torch = pytest.importorskip("torch")
    import_torchvision()
    pytest.importorskip("captum")
    from captum.attr import InputXGradient, Saliency
    from captum.metrics import infidelity, infidelity_perturb_func_decorator

    module, model = pair(name, head)
    x, classes = images(2, 40, 40, 3), [3, 7]
    # Large enough that the differences of scores are more than what rounding leaves of them.
    taken = np.random.default_rng(3).normal(size=(6, 2, 40, 40, 3)).astype(np.float32) * 0.2
    # Captum asks for all samples of the first image, then of the second.
    theirs = torch.from_numpy((taken / np.asarray(STD, np.float32)).transpose(1, 0, 4, 2, 3).reshape(12, 3, 40, 40).copy())
    inputs, index = normalised(x), torch.tensor(classes)
    if multiplied:
        maps = InputXGradient(module).attribute(inputs.clone().requires_grad_(), target=index).detach()
        perturb = infidelity_perturb_func_decorator(True)(lambda inputs, baselines=None: inputs - theirs)
        ours = jv.attribution.input_x_gradient(model, x, classes)
    else:
        maps = Saliency(module).attribute(inputs.clone().requires_grad_(), target=index, abs=False).detach()
        perturb = lambda inputs: (theirs, inputs - theirs)  # noqa: E731
        ours = jv.attribution.saliency(model, x, classes)
    options = {"baselines": torch.zeros(1, 3, 40, 40)} if multiplied else {}
    expected = infidelity(module, perturb, inputs, maps, target=index, n_perturb_samples=6, normalize=normalize, **options)
    found = metrics.infidelity(model, x, ours, perturbation=taken, normalize=normalize)
    assert_close(found, expected.numpy(), tolerance=1e-4)


@pytest.mark.parametrize(("name", "head"), [("small_bottleneck", None), full("vgg16_bn", 64), full("resnet50", None)])
def test_max_sensitivity_is_captums(name: str, head: int | None) -> None:
    torch = pytest.importorskip("torch")
    import_torchvision()
    pytest.importorskip("captum")
    from captum.attr import Saliency
    from captum.metrics import sensitivity_max

    module, model = pair(name, head)
    x, classes = images(2, 40, 40, 3), [3, 7]
    std = torch.tensor(STD)[None, :, None, None]
    # With the noise of seed 5, an input of a ReLU of VGG-16-BN is zero but for rounding; seeds 6 to 8 have no such input.
    near = np.asarray(nearby(jnp.asarray(x), np.zeros(2, np.int32), leaf(0.02, "radius"), leaf(6, "seed", dtype=np.int32), 4))
    assert near.min() >= 0 and near.max() <= 1 and np.abs(near.reshape(2, 4, 40, 40, 3) - x[:, None]).max() <= 0.02 + 1e-6

    def explain(inputs, target):
        if isinstance(inputs, tuple):  # the images themselves come, and their maps go, in a tuple
            return (explain(inputs[0], target),)
        return Saliency(module).attribute(inputs, target, abs=False) / std

    expected = sensitivity_max(
        explain,
        normalised(x),
        perturb_func=lambda inputs: normalised(near),
        n_perturb_samples=4,
        target=torch.tensor(classes),
    )
    found = metrics.max_sensitivity(model, x, "saliency", classes, samples=4, seed=6)
    assert_close(found, expected.detach().numpy())


def test_draws_are_seeded() -> None:
    model, x = tiny_model(), random_images(2, 16, 16, 3)
    maps = jv.attribution.input_x_gradient(model, x)
    for kind in ("square", "noise"):
        one = metrics.infidelity(model, x, maps, perturbation=kind, samples=5, seed=1)
        np.testing.assert_array_equal(one, metrics.infidelity(model, x, maps, perturbation=kind, samples=5, seed=1))
        assert (one != metrics.infidelity(model, x, maps, perturbation=kind, samples=5, seed=2)).all()
    one = metrics.max_sensitivity(model, x, samples=3, seed=1)
    assert (one != metrics.max_sensitivity(model, x, samples=3, seed=2)).all()
    same = metrics.max_sensitivity(model, x[[0, 0]], samples=3)
    np.testing.assert_allclose(same[0], same[1], rtol=1e-5)
    assert np.diff(metrics.max_sensitivity(model, x[[0, 0]], samples=3, ids=[1, 2])) != 0


def test_squares_lie_inside_everywhere() -> None:
    """The share of the image that squares take away, and that every pixel's turn comes."""
    x = np.ones((1, 8, 8, 1), np.float32)
    model = jv.from_function(lambda x: jnp.stack([x.sum((1, 2, 3)), 0 * x.sum((1, 2, 3))], -1), channels=1, input_size=(8, 8))
    found = metrics.infidelity(model, x, np.zeros((1, 8, 8), np.float32), 0, baseline="black", strength=3, samples=20)
    np.testing.assert_allclose(found, [81.0])  # (3 x 3)^2 whatever the place
    exact = metrics.infidelity(model, x, np.ones((1, 8, 8, 1), np.float32), 0, baseline="black", strength=3, samples=20)
    np.testing.assert_allclose(exact, [0.0], atol=1e-9)


def test_completeness_of_a_linear_network_is_perfect_fidelity() -> None:
    weights = np.random.default_rng(0).normal(size=(12, 12, 3)).astype(np.float32)

    def linear(x):
        return jnp.stack([(x * weights).sum((1, 2, 3)), x.sum((1, 2, 3))], -1)

    model, x = jv.from_function(linear, input_size=(12, 12)), random_images(2, 12, 12, 3)
    scale = float(metrics.infidelity(model, x, np.zeros((2, 12, 12, 3), np.float32), 0).mean())
    for maps in (jv.attribution.saliency(model, x, 0), jv.attribution.input_x_gradient(model, x, 0)):
        assert (metrics.infidelity(model, x, maps) < 1e-6 * scale).all()
    doubled = np.asarray(jv.attribution.saliency(model, x, 0).maps) * 2
    assert (metrics.infidelity(model, x, doubled, 0) > 0.1 * scale).all()
    assert (metrics.infidelity(model, x, doubled, 0, normalize=True) < 1e-5 * scale).all()
    places = jv.attribution.input_x_gradient(model, x, 0).reduce("sum")  # a map without colours, of squares as good
    assert (metrics.infidelity(model, x, places) < 1e-6 * scale).all()


def small_noise(key: jax.Array, image: jax.Array) -> jax.Array:
    return 0.1 * jax.random.normal(key, image.shape)


def test_a_perturbation_of_ones_own() -> None:
    model, x = tiny_model(), random_images(2, 16, 16, 3)
    maps = jv.attribution.saliency(model, x)
    found = metrics.infidelity(model, x, maps, perturbation=small_noise, samples=50)
    noise = metrics.infidelity(model, x, maps, perturbation="noise", strength=0.1, samples=50)
    assert (np.abs(found - noise) < 0.7 * noise).all() and (found > 0).all()


def test_errors() -> None:
    model, x = tiny_model(), random_images(2, 16, 16, 3)
    maps = jv.attribution.saliency(model, x)
    with pytest.raises(jv.ArgumentError, match="'square', 'noise'"):
        metrics.infidelity(model, x, maps, perturbation="blur")  # type: ignore[arg-type]
    with pytest.raises(jv.ArgumentError, match=r"\(samples, 2, 16, 16, 3\)"):
        metrics.infidelity(model, x, maps, perturbation=np.zeros((2, 16, 16, 3)))
    with pytest.raises(jv.ArgumentError, match="from 1 to 16"):
        metrics.infidelity(model, x, maps, strength=17)
    with pytest.raises(jv.ArgumentError, match="Did you mean 'saliency'"):
        metrics.max_sensitivity(model, x, "salience")
    with pytest.raises(jv.ArgumentError, match="no option 'absolut'"):
        metrics.max_sensitivity(model, x, "saliency", options={"absolut": True})
