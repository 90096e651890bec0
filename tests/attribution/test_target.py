"""Targets: classes, functions of the logits, objectives; every wrong one is an error that says what was expected."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import jaxviz as jv
from jaxviz import attribution
from jaxviz.attribution._target import as_target, target_values
from tests.compilations import compilations
from tests.contracts import convolutions
from tests.tiny import random_images, tiny_model

MODEL, IMAGES = tiny_model(), random_images(4, 16, 16, 3)


def values(target) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the scores (N, K) of a user's target, and the classes (N, K)."""
    made, index = as_target(MODEL, target, IMAGES)
    with jax.default_matmul_precision("highest"):
        scores, chosen = target_values(MODEL.network, made, np.asarray(IMAGES), index)
    return np.asarray(scores).T, None if chosen is None else np.asarray(chosen)


def logits() -> np.ndarray:
    return np.asarray(MODEL(IMAGES))


def softmax() -> np.ndarray:
    e = np.exp(logits() - logits().max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        (2, [[2]] * 4),
        (np.int64(2), [[2]] * 4),
        ("church", [[2]] * 4),
        ([0, 1, 2, 3], [[0], [1], [2], [3]]),
        (np.array([3, 2, 1, 0]), [[3], [2], [1], [0]]),
        (["church", "tench", "golf ball", "church"], [[2], [0], [1], [2]]),
        ([[1, 4]], [[1, 4]] * 4),
        ([["church", "tench"]], [[2, 0]] * 4),
        ([[0, 1], [1, 2], [2, 3], [3, 4]], [[0, 1], [1, 2], [2, 3], [3, 4]]),
    ],
)
def test_classes(target, classes) -> None:
    scores, chosen = values(target)
    np.testing.assert_array_equal(chosen, classes)
    np.testing.assert_allclose(scores, np.take_along_axis(logits(), np.asarray(classes), 1), rtol=1e-5)


def test_none_is_the_top_class_of_each_image() -> None:
    scores, chosen = values(None)
    np.testing.assert_array_equal(chosen[:, 0], logits().argmax(1))
    np.testing.assert_allclose(scores[:, 0], logits().max(1), rtol=1e-5)


def test_functions_of_class_scores() -> None:
    np.testing.assert_allclose(values(attribution.probability([[1, 4]]))[0], softmax()[:, [1, 4]], rtol=1e-5)
    np.testing.assert_allclose(values(attribution.log_probability(3))[0], np.log(softmax()[:, [3]]), rtol=1e-5)
    others = np.delete(logits(), 2, axis=1).max(1)
    np.testing.assert_allclose(values(attribution.margin("church"))[0][:, 0], logits()[:, 2] - others, rtol=1e-5, atol=1e-6)
    top = attribution.saliency(MODEL, IMAGES, attribution.probability())
    np.testing.assert_array_equal(top.classes, logits().argmax(1))
    assert top.targets[0].startswith("probability ")


def difference(scores):
    return scores[:, 2] - scores[:, 0]


def test_a_function_of_the_logits() -> None:
    scores, chosen = values(difference)
    np.testing.assert_allclose(scores[:, 0], logits()[:, 2] - logits()[:, 0], rtol=1e-4)
    assert chosen is None
    by_hand = attribution.saliency(MODEL, IMAGES, 2).maps - attribution.saliency(MODEL, IMAGES, 0).maps
    np.testing.assert_allclose(attribution.saliency(MODEL, IMAGES, difference).maps, by_hand, atol=1e-6)


def test_objectives() -> None:
    acts = np.asarray(MODEL.activations(IMAGES, "relu_1")["relu_1"])
    np.testing.assert_allclose(values(jv.channel("relu_1", 7))[0][:, 0], acts[..., 7].mean((1, 2)), rtol=1e-5)
    many = attribution.saliency(MODEL, IMAGES, "relu_1:7,3")
    assert many.maps.shape == (4, 2, 16, 16, 3) and list(many.targets[0]) == ["relu_1:7", "relu_1:3"]
    alone = attribution.saliency(MODEL, IMAGES, jv.channel("relu_1", 3))
    assert alone.maps.shape == (4, 16, 16, 3) and alone.classes is None
    np.testing.assert_allclose(many.maps[:, 1], alone.maps, atol=1e-6)
    in_words = attribution.saliency(MODEL, IMAGES, "relu_1:3")
    np.testing.assert_allclose(in_words.maps, alone.maps, atol=1e-6)
    assert in_words.targets[0] == "relu_1:3"
    weighted = jv.channel("relu_1", 3) - 0.5 * jv.channel("relu", 2)
    np.testing.assert_allclose(
        values(weighted)[0][:, 0], acts[..., 3].mean((1, 2)) - 0.5 * _channel("relu", 2), rtol=1e-4, atol=1e-6
    )


def _channel(layer: str, unit: int) -> np.ndarray:
    return np.asarray(MODEL.activations(IMAGES, layer)[layer])[..., unit].mean((1, 2))


def test_similarity_to_an_embedding() -> None:
    features = np.asarray(MODEL.activations(IMAGES, "avgpool")["avgpool"])
    found, _ = values(jv.match("avgpool", features[2], distance="cosine"))
    norms = np.linalg.norm(features, axis=1)
    np.testing.assert_allclose(found[:, 0], features @ features[2] / norms / norms[2], rtol=1e-4)
    to_photo, _ = values(jv.objectives.match_image("avgpool", IMAGES[2], distance="cosine"))
    np.testing.assert_allclose(to_photo, found, rtol=1e-4)


@pytest.mark.parametrize(
    ("target", "error", "says"),
    [
        ([1, 2], jv.ArgumentError, "shape (2,) for 4 images"),
        ([[1, 2], [3, 4]], jv.ArgumentError, "shape (2, 2) for 4 images"),
        ([[1, 2], [3]], jv.ArgumentError, "different lengths"),
        (np.zeros((4, 1, 1), int), jv.ArgumentError, "shape (4, 1, 1)"),
        ([[]], jv.ArgumentError, "got"),
        (1.5, jv.ArgumentError, "float"),
        (5, jv.UnitError, "0 to 4"),
        (-1, jv.UnitError, "0 to 4"),
        ([0, 1, 2, 9], jv.UnitError, "got 9"),
        ("cathedral", jv.UnitError, "no class"),
        ("relu_1:99", jv.UnitError, "units 0 to 11"),
        ("nowhere:3", jv.LayerError, "no layer 'nowhere'"),
        (lambda scores: scores, jv.ArgumentError, "shape (4,); got (4, 5)"),
        (attribution.probability(difference), jv.ArgumentError, "Expected classes"),
    ],
)
def test_wrong_targets(target, error: type[Exception], says: str) -> None:
    with pytest.raises(error) as caught:
        attribution.saliency(MODEL, IMAGES, target)
    assert says in str(caught.value)


def test_another_target_compiles_nothing_new() -> None:

    attribution.saliency(MODEL, IMAGES, [0, 1, 2, 3])
    attribution.saliency(MODEL, IMAGES, "relu_1:1")
    other = tiny_model(1)
    with compilations() as compiled:
        attribution.saliency(other, random_images(4, 16, 16, 3, seed=1), "church")
        attribution.saliency(MODEL, IMAGES, 3)
        attribution.saliency(MODEL, IMAGES, "relu_1:5")
    assert not compiled.names


def test_k_targets_share_one_forward_pass() -> None:
    def computed(target) -> int:
        made, index = as_target(MODEL, target, IMAGES)
        from jaxviz.attribution._methods.gradient import gradients

        return convolutions(lambda x: gradients(MODEL.network, made, x, index), np.asarray(IMAGES))

    assert computed([[0, 1, 2]]) == computed(0) == 4  # two forward, two backward, of three rows for three targets
