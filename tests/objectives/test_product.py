"""All combinations of units, and the strings that write sums."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz as jv
from jaxviz.objectives import near, parse, product
from jaxviz.objectives._algebra import combine, count_units, partition
from jaxviz.objectives._basic import work_ids
from jaxviz.objectives._parse import as_objective
from tests.tiny import random_images, tiny_model

MODEL = tiny_model()
SIZE = (16, 20)
IMAGES = random_images(2, 16, 20, 3)
ACTS = {name: jnp.asarray(value) for name, value in MODEL.activations(IMAGES, ["relu", "conv2", "fc"]).items()} | {
    "output": jnp.asarray(MODEL(IMAGES))
}


def bound(objective):
    return as_objective(objective).bind(MODEL, SIZE)


def scores(objective) -> np.ndarray:
    """Every unit's score of the two images, (K, 2), by the engine's own split."""
    each, rest = partition(objective)
    rows = [jax.tree.map(lambda leaf, i=i: leaf[i], each) for i in range(count_units(objective))]
    return np.stack([combine(row, rest)(ACTS, IMAGES) for row in rows])


def test_every_combination_is_the_sum_of_its_terms():
    combined = bound(product(jv.channel("relu", [1, 2, 3]), -0.5 * jv.channel("conv2", [4, 5]), jv.layer("relu", "square")))
    assert count_units(combined) == 6
    relu, conv2 = np.asarray(ACTS["relu"]), np.asarray(ACTS["conv2"])
    by_hand = [
        relu[..., i].mean((1, 2)) - 0.5 * conv2[..., j].mean((1, 2)) + (relu**2).mean((1, 2, 3))
        for i, j in itertools.product([1, 2, 3], [4, 5])
    ]
    np.testing.assert_allclose(scores(combined), by_hand, rtol=1e-5)
    assert combined.labels(MODEL)[:3] == tuple(f"relu:{i} + conv2:{j} + relu square" for i, j in [(1, 4), (1, 5), (2, 4)])
    np.testing.assert_allclose(scores(2.0 * combined + jv.layer("fc")), 2 * np.array(by_hand) + ACTS["fc"].mean(1), rtol=1e-5)


def test_all_channels_and_classes_are_counted_when_bound():
    combined = bound(product(jv.channel("relu"), jv.logit(["church", "golf ball"])))
    assert count_units(combined) == 16
    assert combined.labels(MODEL)[-1] == "relu:7 + logit:golf ball"
    with pytest.raises(jv.ArgumentError, match="bind"):
        product(jv.channel("relu"))(ACTS, IMAGES)
    for wrong in ((), ("relu:1", jv.channel("relu"))):
        with pytest.raises(jv.ArgumentError, match="objectives to combine"):
            product(*wrong)


def test_combinations_never_share_keys_and_keep_theirs_in_another_batch():
    one, two = [jv.channel("relu", [1, 2, 3]), jv.channel("relu", [3, 1])]
    vectors = np.eye(8, dtype=np.float32)
    for left, right in [
        (one, two),
        (one, jv.direction("relu", vectors[:3])),
        (two, near(IMAGES)),
        (one, jv.neuron("relu", [1, 1], y=[0, 1])),
    ]:
        ids = work_ids(bound(product(left, right)), MODEL)
        assert len(np.unique(ids, axis=0)) == len(ids) == count_units(bound(product(left, right)))
    whole = work_ids(bound(product(one, jv.direction("relu", vectors[:3]))), MODEL)
    part = work_ids(bound(product(jv.channel("relu", [3, 1]), jv.direction("relu", vectors[[2, 0]]))), MODEL)
    np.testing.assert_array_equal(part, whole[[8, 6, 2, 0]])
    np.testing.assert_array_equal(
        work_ids(bound(product(one, jv.channel("relu", 3))), MODEL), work_ids(bound(product(one, two)), MODEL)[::2]
    )


def test_a_direction_keeps_its_number_in_the_labels():
    combined = bound(product(jv.channel("relu", [5, 6]), jv.direction("conv2", np.eye(12)[:2])))
    want = [f"relu:{i} + conv2 direction:{j}" for i in (5, 6) for j in (0, 1)]
    assert list(combined.labels(MODEL)) == want


def test_combinations_run():
    result = jv.visualize(
        MODEL, product(jv.channel("relu", [1, 2]), jv.channel("conv2", [4, 5])), size=SIZE, steps=2, transforms=()
    )
    assert result.labels == ("relu:1 + conv2:4", "relu:1 + conv2:5", "relu:2 + conv2:4", "relu:2 + conv2:5")
    assert np.unique(result.images[:, 0, 0, 0], axis=0).shape[0] == 4


@pytest.mark.parametrize(
    ("text", "objective"),
    [
        ("relu:7 - 0.5*conv2:9", jv.channel("relu", 7) - 0.5 * jv.channel("conv2", 9)),
        ("relu:1-3 + 2 * relu:5", jv.channel("relu", [1, 2, 3]) + 2 * jv.channel("relu", 5)),
        ("-relu:1,3", -jv.channel("relu", [1, 3])),
        ("- 2*relu:1 + .5*fc:2", -2 * jv.channel("relu", [1]) + 0.5 * jv.channel("fc", 2)),
        ("logit:golf ball - 1e-1*logit:church", jv.logit("golf ball") - 0.1 * jv.logit("church")),
        ("logit:golf ball,tench + logit:3", jv.logit([1, 0]) + jv.logit(3)),
        ("relu - deepdream:conv2", jv.channel("relu") - jv.layer("conv2", "square")),
        ("deepdream:relu", jv.layer("relu", "square")),
        ("relu:3 - diversity:conv2", jv.channel("relu", 3) - jv.diversity("conv2")),
    ],
)
def test_strings_write_sums(text, objective):
    np.testing.assert_allclose(scores(bound(text)), scores(bound(objective)), rtol=1e-5)


def test_hyphens_and_spaces_within_names_are_no_operators():
    objective = parse("logit:golf ball,hen-of-the-woods - logit:black-and-tan coonhound")
    assert objective.terms[0].names == ("golf ball", "hen-of-the-woods")
    assert objective.terms[1].term.names == ("black-and-tan coonhound",)
    assert parse("relu:1-3").index.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("relu:20 - 31", "A range has no spaces"),
        ("relu:1 + ", "relu:1 \\+"),
        ("relu:1 + + relu:2", "NUMBER"),
        ("x*relu:1", "NUMBER"),
        ("0.5*", "LAYER"),
        ("relu:1 - 2*3*relu:2", "NUMBER"),
        ("diversity:", "LAYER"),
    ],
)
def test_strings_that_are_no_sums_are_refused(text, message):
    with pytest.raises(jv.ArgumentError, match=message):
        parse(text)
