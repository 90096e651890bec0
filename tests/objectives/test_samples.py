"""Objectives on the samples of a unit together, against the double loops that their formulas are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz as jv
from tests.contracts import check_all
from tests.tiny import tiny_model

MODEL = tiny_model()
SIZE = (16, 20)
RNG = np.random.default_rng(0)


def gram_cosines(act):
    """The matrix of <G_i, G_j>, one pair at a time."""
    grams = [flat.T @ flat for flat in act.reshape(len(act), -1, act.shape[-1]).astype(np.float64)]
    grams = [gram / np.linalg.norm(gram) for gram in grams]
    return np.array([[np.sum(a * b) for b in grams] for a in grams])


@pytest.mark.parametrize("shape", [(4, 4, 5, 8), (3, 1, 2, 40), (2, 6, 7, 3)])  # the second takes the way by positions
def test_diversity_is_the_double_loop(shape):
    act = RNG.normal(size=shape).astype(np.float32) + 0.3
    cosines = gram_cosines(act)
    got = jv.diversity("relu")({"relu": jnp.asarray(act)}, None)
    np.testing.assert_allclose(got, cosines.sum(1) - 1, rtol=1e-4)
    lucid = sum(cosines[i, j] for i in range(len(act)) for j in range(len(act)) if i != j) / len(act)
    np.testing.assert_allclose(np.mean(got), lucid, rtol=1e-4)


def test_alignment_is_the_double_loop():
    act, decay, total = RNG.normal(size=(6, 2, 3, 4)).astype(np.float32), 3.0, 0.0
    for distance in (1, 2, 3, 4):
        for i in range(6 - distance):
            total += np.mean((act[i] - act[i + distance]) ** 2) / decay**distance
    got = jv.alignment("relu", decay)({"relu": jnp.asarray(act)}, None)
    assert got.shape == (6,)
    np.testing.assert_allclose(got.sum(), -total, rtol=1e-5)


def test_interpolation_goes_from_one_to_the_other():
    act = RNG.normal(size=(3, 2, 2, 8)).astype(np.float32)
    mean = act.mean((1, 2))
    got = jv.interpolate(jv.channel("relu", 1), 2 * jv.channel("relu", 5))({"relu": jnp.asarray(act)}, None)
    np.testing.assert_allclose(got, [mean[0, 1], (mean[1, 1] + 2 * mean[1, 5]) / 2, 2 * mean[2, 5]], rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda amount: jv.channel("relu", 1) - amount * jv.diversity("relu"),
        lambda amount: jv.alignment("relu", 1 + amount),
        lambda amount: jv.interpolate(amount * jv.channel("relu", 1), jv.channel("relu", 2)),
    ],
)
def test_the_contract(make):
    groups = RNG.normal(size=(2, 3, 4, 5, 8)).astype(np.float32)

    def call(objective, act):
        return objective({"relu": act}, jnp.zeros((3, 16, 20, 3)))

    check_all(call, [lambda: make(1.0), lambda: make(2.0)], [groups])


def test_a_silent_layer_gives_no_nan():
    got = jv.diversity("relu")({"relu": jnp.zeros((2, 4, 5, 8))}, None)
    assert np.isfinite(got).all()


def test_diversity_makes_samples_differ_and_couples_no_units():
    plain = jv.channel("relu_1", [1, 2])
    apart = jv.visualize(MODEL, plain - 5.0 * jv.diversity("relu"), size=SIZE, steps=40, samples=3)
    alike = jv.visualize(MODEL, plain, size=SIZE, steps=40, samples=3)
    for unit in range(2):
        pairs = [gram_cosines(np.asarray(MODEL.activations(r.images[unit], ["relu"])["relu"])) for r in (apart, alike)]
        assert pairs[0].sum() < pairs[1].sum()
    alone = jv.visualize(MODEL, jv.channel("relu_1", [2]) - 5.0 * jv.diversity("relu"), size=SIZE, steps=40, samples=3)
    np.testing.assert_allclose(alone.images[0], apart.images[1], atol=1e-4)


def test_one_sample_is_refused():
    for objective in (jv.diversity("relu"), jv.alignment("relu"), jv.interpolate(jv.channel("relu", 1), jv.channel("relu", 2))):
        with pytest.raises(jv.ArgumentError, match="samples=2"):
            jv.visualize(MODEL, objective, size=SIZE, steps=1)
    with pytest.raises(jv.ArgumentError, match="two objectives"):
        jv.interpolate("relu:1", "relu:2")  # type: ignore[arg-type]
    with pytest.raises(jv.ArgumentError, match="positive"):
        jv.alignment("relu", 0.0)


def test_diverse_is_the_formula():
    rng = np.random.default_rng(3)
    act = rng.uniform(0.1, 1, (4, 3, 2, 5)).astype(np.float32)
    score = np.array([2.0, 1.9, 1.66, 1.0], np.float32)  # of the best: 1, 0.95, 0.83, 0.5
    objective = jv.diverse(
        jv.objectives.from_function(lambda acts, images: acts["score"]), "a", weight=0.5, floor=0.78, enough=0.6
    )
    found = objective({"a": act, "score": score}, np.zeros((4, 8, 8, 3), np.float32))
    likeness = jv.diversity("a")({"a": act}, np.zeros((4, 8, 8, 3), np.float32)) / 3
    push = np.array([1, 1, 0.5, 0])
    np.testing.assert_allclose(found, score - 0.5 * score * push * np.maximum(likeness - 0.6, 0), rtol=1e-5)
    assert (np.asarray(likeness) > 0.6).any()
    with pytest.raises(jv.ArgumentError, match="objective"):
        jv.diverse("layer3:7", "layer3")  # type: ignore[arg-type]
    with pytest.raises(jv.ArgumentError, match="floor"):
        jv.diverse(jv.channel("a", 0), "a", floor=2)


@pytest.mark.parametrize("shape", [(3, 4, 5, 8), (3, 1, 2, 40)])  # the second takes the way by positions
def test_diverse_pushes_a_sample_by_its_own_term_alone(shape):
    act = RNG.uniform(0.1, 1, shape).astype(np.float32)
    act[1, ..., 0] = 0  # silent: its score is 0, and the other two must not move it
    objective = jv.diverse(jv.channel("relu", 0), "relu", weight=0.7, floor=0, enough=0)
    got = np.asarray(jax.grad(lambda a: objective({"relu": a}, jnp.zeros((3, 8, 8, 3))).sum())(act))
    np.testing.assert_array_equal(got[1, ..., 1:], 0)

    def alone(a, i):
        likeness = jv.diversity("relu")({"relu": jnp.asarray(act).at[i].set(a)}, None)[i] / 2
        return a[..., 0].mean() - 0.7 * act[i, ..., 0].mean() * likeness * min(1, act[i, ..., 0].mean() / max(heights) / 0.1)

    heights = act[..., 0].mean((1, 2))
    for i in (0, 2):
        np.testing.assert_allclose(got[i], jax.grad(alone)(jnp.asarray(act[i]), i), rtol=1e-4, atol=1e-6)


def test_diverse_samples_differ_more_and_keep_their_scores():
    options = {"samples": 4, "size": 16, "steps": 60, "transforms": (), "learning_rate": 0.05}
    plain = jv.visualize(tiny_model(), jv.channel("relu_1", [1, 4, 7]), **options)
    made = jv.visualize(tiny_model(), jv.diverse(jv.channel("relu_1", [1, 4, 7]), "relu_1"), **options)

    def look(result):
        alike, height = [], []
        for unit, group in zip((1, 4, 7), result.images, strict=True):
            act = tiny_model().activations(group, ["relu_1"])["relu_1"]
            alike.append(np.asarray(jv.diversity("relu_1")({"relu_1": act}, group)).mean() / 3)
            height.append(np.asarray(act)[..., unit].mean((1, 2)))
        return np.array(alike), np.array(height)

    (same, top), (less, kept) = look(plain), look(made)
    assert (less < same - 0.02).all()
    assert (kept > 0.6 * top.mean(1, keepdims=True)).all() and kept.mean() > 0.8 * top.mean()
    assert made.labels == ("relu_1:1", "relu_1:4", "relu_1:7")


@pytest.mark.full
def test_diverse_on_the_bundled_network():
    """The mean pairwise Gram cosine of four samples falls by a quarter; each keeps 80 % of what it scores alone."""
    model, units = jv.load(), [19, 128]
    options = {"samples": 4, "size": 64, "steps": 128, "mesh": jv.make_mesh(2)}
    plain = jv.channel("layer3", units)
    alike, kept = [], []
    for objective in (plain, jv.diverse(plain, "layer3")):
        groups = jv.visualize(model, objective, **options).images
        acts = [np.asarray(model.activations(group, "layer3")["layer3"]) for group in groups]
        alike.append(np.mean([(gram_cosines(act).sum() - 4) / 12 for act in acts]))
        kept.append(np.stack([act[..., unit].mean((1, 2)) for act, unit in zip(acts, units, strict=True)]))
    assert alike[1] < 0.75 * alike[0]
    assert (kept[1] > 0.8 * kept[0]).all()
