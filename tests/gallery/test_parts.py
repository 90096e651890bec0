"""What a site is put together from: likeness, the network's way, classes of photos, charts, names of folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jaxviz.gallery._chart import HEIGHT, LETTERS, WIDTH, chart, number
from jaxviz.gallery._photos import classes_of, examples_of, histogram_of
from jaxviz.gallery._plan import describe_field, layers_and_gaps, plan, read_layers
from jaxviz.gallery._similarity import likeness_of_examples, likeness_of_responses, most_similar, side_by_side
from jaxviz.gallery._site import NO_CLASS, Example, Histogram, Passed, Unit, slugs
from jaxviz.inspection import TopExamples, top_examples
from jaxviz.models import ReceptiveField
from tests.tiny import random_images, tiny_model


def brute_profiles(top: TopExamples, scores: np.ndarray, k: int) -> np.ndarray:
    """Return (U, N): each unit's scores in its k strongest images, less its smallest, and 0 elsewhere."""
    profiles = np.zeros(scores.T.shape)
    for unit, values in enumerate(scores.T.astype(np.float64)):
        best = np.argsort(-values, kind="stable")[:k]
        profiles[unit, best] = values[best] - values.min()
    return profiles


def test_likeness_over_photos_is_the_cosine_of_the_profiles() -> None:
    model, images = tiny_model(), random_images(40, 16, 16, 3)
    top = top_examples(model, images, "conv2", k=10)["conv2"]
    scores = np.asarray(model.activations(images, "conv2")["conv2"]).max((1, 2))
    profiles = brute_profiles(top, scores, 10)
    lengths = np.linalg.norm(profiles, axis=1)
    expected = profiles @ profiles.T / np.outer(lengths, lengths)
    np.testing.assert_allclose(likeness_of_examples(top, np.arange(12)), expected, atol=1e-5)
    some = np.array([7, 2, 3])
    np.testing.assert_allclose(likeness_of_examples(top, some), expected[np.ix_(some, some)], atol=1e-5)
    near = most_similar(expected, 4)
    for unit in range(12):
        others = sorted((i for i in range(12) if i != unit), key=lambda i: -expected[unit, i])
        assert near[unit].tolist() == others[:4]


def test_units_that_nothing_excites_are_like_none() -> None:
    peaks = np.random.default_rng(0).uniform(size=(5, 2, 4)).astype(np.float32)
    peaks[..., 1] = 3  # the same in every picture
    likeness = likeness_of_responses(peaks)
    assert np.isfinite(likeness).all() and (likeness[1] == 0).all() and likeness[0, 0] == pytest.approx(1)
    assert likeness_of_responses(peaks[:1, :1, :1]).shape == (1, 1)
    assert most_similar(likeness[:1, :1], 3).shape == (1, 0)


def test_alike_units_stand_side_by_side() -> None:
    angles = np.random.default_rng(1).permutation(np.linspace(0, np.pi / 2, 9))
    places = side_by_side(np.cos(angles[:, None] - angles))
    order = angles[np.argsort(places)]
    assert sorted(places) == list(range(9))
    assert (np.diff(order) > 0).all() or (np.diff(order) < 0).all()
    assert side_by_side(np.ones((1, 1))).tolist() == [0]


def test_layers_in_a_line() -> None:
    assert read_layers("layer3, layer4:0-31,40,7,logit") == ["layer3", "layer4:0-31,40,7", "logit"]
    assert read_layers(["layer3:1,2", "layer4"]) == ["layer3:1,2", "layer4"]


def test_the_way_names_the_largest_modules_that_hold_nothing_that_is_shown() -> None:
    model = tiny_model()
    table = model.layers()
    way = layers_and_gaps(table, plan(model, "logit,relu", (16, 16), table))
    assert [part.names if isinstance(part, Passed) else part.name for part in way] == [
        ("conv1",),
        "relu",
        ("conv2", "relu_1", "avgpool"),
        "fc",
    ]


def test_the_way_through_a_resnet(bundled) -> None:
    table = bundled.layers()
    names = lambda asked: [  # noqa: E731
        part.names if isinstance(part, Passed) else part.name
        for part in layers_and_gaps(table, plan(bundled, asked, bundled.input_size, table))
    ]
    start = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2")
    assert names("layer4,layer3") == [start, "layer3", "layer4", ("avgpool", "flatten", "fc")]
    inside = names("layer3.0.conv1")
    assert inside[:2] == [start, "layer3.0.conv1"] and inside[2][-5:] == ("layer3.1", "layer4", "avgpool", "flatten", "fc")


@pytest.fixture(scope="module")
def bundled():
    from jaxviz.models import load
    from jaxviz.models._files.load import bundled_file

    if not bundled_file().is_file():
        pytest.skip("the bundled network is absent")
    return load()


def test_fields_in_words() -> None:
    assert describe_field(None, (32, 32)) == ("", None)
    assert describe_field(ReceptiveField((8, 16), (2, 2)), (32, 32)) == ("8 \N{MULTIPLICATION SIGN} 16 pixels", (0.25, 0.5))
    assert describe_field(ReceptiveField((99, 40), (2, 2)), (32, 32)) == ("the whole image", (1.0, 1.0))
    assert describe_field(ReceptiveField((1, 1), (1, 1)), (10, 10)) == ("one pixel", (0.1, 0.1))


def test_classes_are_folders_and_wordnet_folders_are_the_networks_classes() -> None:
    top = Path("photos")
    files = ["photos/a/1.png", "photos/a/deep/2.png", "photos/3.png", "photos/b/4.png"]
    assert classes_of(files, [top]) == ["a", "deep", NO_CLASS, "b"]
    assert classes_of(files, [top], folder_names={"b": "bee"}) == ["a", "deep", NO_CLASS, "bee"]
    wordnet = ["photos/n02000001/1.png", "photos/n01000001/2.png"]
    assert classes_of(wordnet, [top], ["tench", "church"]) == ["church", "tench"]
    assert classes_of(wordnet, [top], ["one", "two", "three"]) == ["n02000001", "n01000001"], "not as many as classes"
    assert classes_of(files[:1], [top], ["one"]) == ["a"], "not WordNet"


def test_what_a_unit_sees_is_framed_where_it_is_a_part() -> None:
    model, images = tiny_model(), random_images(6, 40, 40, 3)
    top = top_examples(model, images, ["conv2", "fc"], k=2, size=40)
    found = examples_of(_named(top["conv2"]), 5, 2, ["k"] * 6, [])
    acts = np.asarray(model.activations(images, "conv2")["conv2"])[..., 5]
    best = np.argsort(-acts.max((1, 2)), kind="stable")[:2]
    for example, image in zip(found, best, strict=True):
        y, x = np.unravel_index(acts[image].argmax(), acts[image].shape)
        box = top["conv2"].receptive_field.box(int(y), int(x))  # type: ignore[union-attr]
        assert example.photo == image and example.score == pytest.approx(acts[image].max(), rel=1e-5)
        assert example.box == tuple(min(max(side / 40, 0), 1) for side in box)
    (first, *_) = examples_of(_named(top["fc"]), 0, 2, ["k"] * 6, [])
    assert first.box is None and first.place is None


def _named(top: TopExamples) -> TopExamples:
    import dataclasses

    return dataclasses.replace(top, files=tuple(f"{i}.png" for i in range(6)))


def test_the_chart_shows_all_photos_and_reaches_to_the_picture() -> None:
    best = Example(0, "a.png", "", 4.0)
    unit = Unit(0, "", (1.0,), (8.0,), ("ok",), (best,), Histogram((9, 0, 4, 1), 0.0, 4.0))
    found = chart(unit)
    assert found is not None
    assert [bar[3] for bar in found.bars] == [HEIGHT, round(HEIGHT * 2 / 3, 2), round(HEIGHT / 3, 2)]
    assert max(bar[0] + bar[2] for bar in found.bars) <= WIDTH / 2
    assert [(mark.x, mark.text, mark.kind) for mark in found.marks] == [
        (0, "0", "zero"),
        (WIDTH / 2, "4.00", "photo"),
        (WIDTH, "8.00", "picture"),
    ]
    for score, peak in ((4.0, 4.1), (4.1, 4.0), (4.0, 0.01), (4.0, 4.0), (0.02, 0.01)):
        near = Unit(0, "", (1.0,), (peak,), ("ok",), (Example(0, "a.png", "", score),), Histogram((9, 1), 0.0, score))
        places = [mark.at for mark in chart(near).marks]  # type: ignore[union-attr]
        assert (np.diff(places) >= LETTERS).all() and -1 <= places[0] and places[-1] <= WIDTH - LETTERS / 2
    assert "14 photos" in found.words
    flat = Unit(0, "", (0.0,), (0.0,), ("ok",), (), Histogram((3,), 0.0, 0.0))
    assert chart(flat) is not None and chart(Unit(0, "", (0.0,), (0.0,), ("ok",))) is None


def test_numbers_and_names_of_folders() -> None:
    assert [number(x) for x in (0, 1.7, -1.7, 0.0123, 1234.5, 5e-5, float("nan"), float("inf"))] == [
        *("0", "1.70", "\N{MINUS SIGN}1.70", "0.0123", "1234", "5.00e-05", "nan", "inf"),
    ]
    found = slugs(["layer1.0", "a/../b", "A-..-B", "日本", "x" * 200])
    assert found[:4] == ["layer1.0", "a-..-b", "A-..-B_2", "layer"] and len(found[4]) <= 80


def test_units_like_none_stand_last() -> None:
    likeness = np.eye(5)
    likeness[2, 2] = 0
    likeness[0, 4] = likeness[4, 0] = likeness[4, 3] = likeness[3, 4] = 0.5
    assert side_by_side(likeness)[2] == 4 and sorted(side_by_side(np.zeros((3, 3)))) == [0, 1, 2]


def test_bins_of_a_histogram_stand_where_their_scores_are() -> None:
    top = top_examples(tiny_model(), random_images(40, 16, 16, 3), "relu_1", k=3)["relu_1"]
    for unit in range(len(top.scores)):
        found = histogram_of(top, unit)
        assert found is not None and sum(found.counts) == 40
        width = (found.high - found.low) / len(found.counts)
        assert found.low <= top.low[unit] < found.low + width and found.high - width <= top.high[unit] <= found.high
