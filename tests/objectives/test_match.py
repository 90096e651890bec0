"""Targets: features, images seen through the same transforms, styles; against NumPy and PyTorch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz as jv
from jaxviz.objectives import gram, match, match_image, near, style
from jaxviz.objectives._algebra import reference_name
from jaxviz.objectives._basic import work_ids
from tests.contracts import check_all
from tests.tiny import random_images, tiny_model

torch = pytest.importorskip("torch")

MODEL = tiny_model()
SIZE = (16, 20)
RNG = np.random.default_rng(0)
ACT = RNG.normal(size=(2, 4, 5, 8)).astype(np.float32)
TARGET = RNG.normal(size=(4, 5, 8)).astype(np.float32)
IMAGES = random_images(2, 16, 20, 3)


def by_hand(act, target, distance, power):
    x, t = torch.tensor(act).flatten(), torch.tensor(target).flatten()
    if distance == "l2":
        return float(-torch.nn.functional.mse_loss(x, t, reduction="sum") / torch.sum(t**2))
    cosine = torch.nn.functional.cosine_similarity(x, t, dim=0)
    return float(cosine if distance == "cosine" else torch.dot(x, t) * torch.clamp(cosine, min=0.1) ** power)


@pytest.mark.parametrize(("distance", "power"), [("l2", 1.0), ("cosine", 1.0), ("dot", 0.0), ("dot", 1.0), ("dot", 2.5)])
def test_a_match_is_its_formula_given_features_or_a_reference(distance, power):
    target = TARGET + ACT[0]  # so that the cosine is above 0.1 for one of the two
    want = [by_hand(act, target, distance, power) for act in ACT]
    acts = {"relu": jnp.asarray(ACT), reference_name("relu"): jnp.asarray([target, target])}
    objective = match("relu", target, distance=distance, cossim_power=power)
    np.testing.assert_allclose(objective(acts, IMAGES), want, rtol=1e-5)
    objective = match_image("relu", IMAGES[0], distance=distance, cossim_power=power)
    np.testing.assert_allclose(objective(acts, IMAGES), want, rtol=1e-5)


def test_a_layer_without_positions_has_vectors_to_match():
    act, target = RNG.normal(size=(2, 5)).astype(np.float32), RNG.normal(size=5).astype(np.float32)
    objective = match("fc", target).bind(MODEL, SIZE)
    want = [by_hand(a, target, "l2", 1) for a in act]
    np.testing.assert_allclose(objective({"fc": jnp.asarray(act)}, IMAGES), want, rtol=1e-5)
    assert match("fc", np.stack([target] * 3)).bind(MODEL, SIZE).labels(MODEL) == ("fc match:0", "fc match:1", "fc match:2")


def test_the_nearest_image_is_the_image_itself():
    acts = {reference_name(): jnp.asarray(IMAGES)}
    np.testing.assert_array_equal(near(IMAGES[0])(acts, IMAGES), [0, 0])
    want = -np.square(IMAGES - IMAGES[::-1]).mean((1, 2, 3))
    np.testing.assert_allclose(near(IMAGES[0])({reference_name(): IMAGES[::-1]}, IMAGES), want, rtol=1e-6)


def test_a_style_is_the_distance_of_gatys_over_a_constant():
    flat, wanted = torch.tensor(ACT).reshape(2, 20, 8).mT, torch.tensor(TARGET).reshape(20, 8).T  # (C, positions), as in Gatys
    gatys = ((flat @ flat.mT - wanted @ wanted.T) ** 2).sum((1, 2)) / (4 * 8**2 * 20**2)
    constant = 4 * 8**2 / torch.sum((wanted @ wanted.T / 20) ** 2)
    objective = style("relu", grams=gram(jnp.asarray(TARGET)))
    np.testing.assert_allclose(objective({"relu": jnp.asarray(ACT)}, IMAGES), -gatys * constant, rtol=1e-5)


def test_the_style_of_an_image_is_zero_for_it_and_does_not_move():
    acts = MODEL.activations(IMAGES, "relu")
    objective = style("relu", IMAGES[0]).bind(MODEL, SIZE)
    rolled = {"relu": jnp.roll(acts["relu"], (2, 3), (1, 2))}
    np.testing.assert_allclose(objective(rolled, IMAGES)[0], 0, atol=1e-6)
    assert objective(rolled, IMAGES)[1] < -1e-3
    assert style("relu", IMAGES).bind(MODEL, SIZE).labels(MODEL) == ("relu style:0", "relu style:1")


@pytest.mark.parametrize(
    "make",
    [
        lambda scale: match("relu", TARGET * scale),
        lambda scale: match("relu", TARGET * scale, distance="cosine"),
        lambda scale: match_image("relu", IMAGES[int(scale) - 1], distance="dot", cossim_power=scale),
        lambda scale: style("relu", grams=gram(jnp.asarray(TARGET * scale))) + scale * near(IMAGES[0]),
    ],
)
def test_the_contract(make):
    groups = RNG.normal(size=(3, 2, 4, 5, 8)).astype(np.float32)

    def call(objective, act):
        others = {reference_name("relu"): jnp.asarray(TARGET)[None], reference_name(): jnp.zeros((1, 16, 20, 3))}
        return objective({"relu": act} | others, jnp.ones((2, 16, 20, 3)))

    check_all(call, [lambda: make(1.0), lambda: make(2.0)], [groups])


@pytest.mark.parametrize("distance", ["cosine", "dot"])
def test_a_silent_layer_has_a_finite_gradient(distance):
    objective = match("relu", TARGET, distance=distance)
    gradient = jax.grad(lambda act: objective({"relu": act}, IMAGES).sum())(jnp.zeros_like(ACT))
    assert np.isfinite(gradient).all() and np.any(gradient)


def test_the_reference_is_seen_as_each_sample_is():
    """An image that starts as its own reference is at distance 0, whatever the transforms do; another is not."""
    options = {"size": SIZE, "steps": 1, "samples": 2, "learning_rate": 0.0, "param": jv.param.pixel}
    options["transforms"] = [jv.transforms.jitter(6), jv.transforms.pad(2)]
    for objective in (match_image("relu", IMAGES), near(IMAGES), match_image("relu", IMAGES) + near(IMAGES)):
        result = jv.visualize(MODEL, objective, start=IMAGES, **options)
        np.testing.assert_allclose(result.history, 0, atol=1e-6)
        np.testing.assert_allclose(result.scores, 0, atol=1e-6)
        np.testing.assert_allclose(result.images, np.stack([IMAGES, IMAGES], 1), atol=1e-6)
    other = jv.visualize(MODEL, near(IMAGES), start=IMAGES[::-1], **options)
    assert (other.history < -1e-3).all() and np.ptp(other.history, axis=1).min() > 0  # each sample by its own keys


def test_scores_are_of_the_untransformed_reference():
    result = jv.visualize(MODEL, match_image("relu", IMAGES), size=SIZE, steps=1, samples=2, transforms=jv.transforms.jitter(6))
    acts = MODEL.activations(result.images.reshape(-1, *SIZE, 3), "relu")["relu"].reshape(2, 2, 8, 10, 8)
    target = MODEL.activations(IMAGES, "relu")["relu"]
    want = [[by_hand(np.asarray(a), np.asarray(t), "l2", 1) for a in row] for row, t in zip(acts, target, strict=True)]
    np.testing.assert_allclose(result.scores, want, rtol=1e-4)


def test_the_gradient_does_not_go_through_the_reference():
    """`match_image` without transforms is `match` with the image's features: the same steps."""
    options = {"size": SIZE, "steps": 3, "transforms": (), "learning_rate": 0.05}
    features = np.asarray(MODEL.activations(IMAGES, "relu")["relu"])
    one = jv.visualize(MODEL, match("relu", features), **options)
    two = jv.visualize(MODEL, match_image("relu", IMAGES), **options)
    np.testing.assert_allclose(one.images, two.images, atol=1e-4)
    np.testing.assert_allclose(one.history, two.history, rtol=1e-4)
    np.testing.assert_array_equal(one.labels, ("relu match:0", "relu match:1"))


def test_a_start_per_unit_is_the_parameterisation_of_its_image():
    images = np.clip(IMAGES, 0.05, 0.95)
    result = jv.visualize(MODEL, "relu:1,2", size=SIZE, steps=0, start=images)
    np.testing.assert_allclose(result.images[:, 0], images, atol=1e-4)
    result = jv.visualize(MODEL, "relu:1,2", size=(8, 10), steps=0, start=images[0])
    np.testing.assert_allclose(result.images[:, 0], [jv.image.resize(images[0], (8, 10))] * 2, atol=1e-4)
    with pytest.raises(jv.ArgumentError, match="3 units; got 2"):
        jv.visualize(MODEL, "relu:1-3", size=SIZE, start=images)


def test_keys_of_targets_come_from_the_seed_and_the_sample():
    objective = match("relu", np.ones((3, 8, 10, 8))).bind(MODEL, SIZE)
    assert work_ids(objective, MODEL).shape == (3, 0)
    mixed = (jv.channel("relu", 5) + near(IMAGES[0])).bind(MODEL, SIZE)
    np.testing.assert_array_equal(work_ids(mixed, MODEL), work_ids(jv.channel("relu", 5).bind(MODEL, SIZE), MODEL))


def test_an_image_is_resized_to_the_run():
    bound = near(IMAGES).bind(MODEL, (8, 10))
    np.testing.assert_allclose(bound.reference(), jv.image.resize(IMAGES, (8, 10)), atol=1e-6)


def test_terms_compare_with_one_image():
    (match_image("relu", IMAGES[0]) + near(IMAGES[0])).bind(MODEL, SIZE)
    with pytest.raises(jv.ArgumentError, match="different images"):
        (match_image("relu", IMAGES[0]) - 2.0 * near(IMAGES[1])).bind(MODEL, SIZE)


def test_targets_that_do_not_fit_are_refused():
    with pytest.raises(jv.ArgumentError, match=r"shape \(8, 10, 8\) for images of 16 x 20 pixels"):
        match("relu", np.ones((8, 8, 8))).bind(MODEL, SIZE)
    with pytest.raises(jv.ArgumentError, match=r"shape \(5,\)"):
        match("fc", np.ones((2, 6))).bind(MODEL, SIZE)
    with pytest.raises(jv.ArgumentError, match=r"features of shape \(1, 1, 8\)"):
        match("relu", np.ones(8)).bind(MODEL, SIZE)
    for wrong in (np.nan, 0.0):
        with pytest.raises(jv.ArgumentError):
            match("relu", np.full((8, 10, 8), wrong))
    with pytest.raises(jv.ArgumentError, match="cosine"):
        match("relu", TARGET, distance="l1")
    for wrong in (np.zeros((16, 20, 3), np.uint8), np.zeros((16, 20))):
        with pytest.raises(jv.ArgumentError, match="float images"):
            near(wrong)
    for wrong in (np.full((16, 20, 3), np.nan), np.full((16, 20, 3), 2.0), np.ones((16, 20, 4))):
        with pytest.raises(jv.ArgumentError, match=r"\[0, 1\]"):
            match_image("relu", wrong).bind(MODEL, SIZE)
    with pytest.raises(jv.ArgumentError, match="no positions"):
        style("fc", IMAGES).bind(MODEL, SIZE)
    with pytest.raises(jv.ArgumentError, match="8 channels"):
        style("relu", grams=np.eye(7)).bind(MODEL, SIZE)
    with pytest.raises(jv.ArgumentError, match="not both"):
        style("relu")
