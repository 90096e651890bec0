"""What all metrics keep to: targets, independence of batch and chunk, one program for all data, every platform, errors."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz as jv
from jaxviz import engine, metrics
from jaxviz.metrics._localization import Inside, Point
from jaxviz.metrics._similarity import Similarity
from jaxviz.metrics._sparseness import Concentration
from tests.compilations import compilations
from tests.tiny import random_images, tiny_model

OF_SCORES = {
    "deletion": functools.partial(metrics.deletion, steps=5),
    "insertion": functools.partial(metrics.insertion, steps=5),
    "road": functools.partial(metrics.road, fractions=(0.3, 0.7)),
    "average_drop": metrics.average_drop,
    "average_increase": metrics.average_increase,
    "average_gain": metrics.average_gain,
    "infidelity": functools.partial(metrics.infidelity, samples=5),
}
OF_MAPS = {
    "sparseness": metrics.sparseness,
    "complexity": metrics.complexity,
    "pointing_game": lambda maps, **run: metrics.pointing_game(maps, np.ones((len(maps), 16, 16), bool), **run),
    "localization": lambda maps, **run: metrics.localization(maps, np.eye(16, dtype=bool)[None].repeat(len(maps), 0), **run),
    "rank_accuracy": lambda maps, **run: metrics.rank_accuracy(maps, np.eye(16, dtype=bool)[None].repeat(len(maps), 0), **run),
}


def value(found: Any) -> np.ndarray:
    return getattr(found, "value", found)


def two_targets():
    model, x = tiny_model(), random_images(5, 16, 16, 3)
    return model, x, jv.attribution.input_x_gradient(model, x, [[0, 3]])


@pytest.mark.parametrize("name", OF_SCORES)
def test_batch_chunk_and_targets_do_not_matter(name: str) -> None:
    """An image and a target alone get what they get among others, in chunks of any size."""
    metric = OF_SCORES[name]
    model, x, maps = two_targets()
    whole = value(metric(model, x, maps))
    assert whole.shape == (5, 2) and whole.dtype == np.float32 and np.isfinite(whole).all()
    close = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-6)
    close(value(metric(model, x, maps, chunk=1)), whole)
    alone = jv.attribution.input_x_gradient(model, x[2:4], 3)
    close(value(metric(model, x[2:4], alone)), whole[2:4, 1])
    close(value(metric(model, x[2:4], alone.maps, 3)) if name != "infidelity" else whole[2:4, 1], whole[2:4, 1])


@pytest.mark.parametrize("name", OF_MAPS)
def test_metrics_of_maps_alone(name: str) -> None:
    metric = OF_MAPS[name]
    _, _, maps = two_targets()
    whole = metric(maps)
    assert whole.shape == (5, 2) and whole.dtype == np.float32 and np.isfinite(whole).all()
    np.testing.assert_allclose(metric(maps, chunk=1), whole, rtol=1e-5)
    np.testing.assert_allclose(metric(maps[3]), whole[3:4], rtol=1e-5)
    np.testing.assert_allclose(metric(maps.maps[:, 1]), whole[:, 1], rtol=1e-5)


def test_other_data_compiles_nothing() -> None:
    model = tiny_model()

    def everything(seed: int) -> None:
        x = random_images(3, 16, 16, 3, seed=seed)
        maps = jv.attribution.saliency(model, x, [seed, seed + 1, 0])
        metrics.deletion(model, x, maps, steps=4)
        metrics.road(model, x, maps, seed=seed, noise=0.01 * seed, fractions=(0.1 * seed + 0.1,))
        metrics.average_drop(model, x, maps)
        metrics.infidelity(model, x, maps, seed=seed, strength=seed + 1, samples=8)
        metrics.max_sensitivity(model, x, "saliency", [seed, 0, 1], seed=seed, radius=0.01 * (seed + 1), samples=2)
        metrics.pointing_game(maps, np.ones((3, 16, 16), bool), tolerance=seed)

    everything(1)
    with compilations() as compiled:
        everything(2)
    assert not compiled.names


def test_targets_other_than_classes() -> None:
    model, x = tiny_model(), random_images(2, 16, 16, 3)
    channel = jv.channel("relu_1", [1, 4])
    maps = jv.attribution.saliency(model, x, channel)
    with pytest.raises(jv.ArgumentError, match="pass the same target again"):
        metrics.deletion(model, x, maps)
    found = metrics.deletion(model, x, maps, channel, steps=4)
    assert found.value.shape == (2, 2) and found.curves.shape == (2, 2, 5)
    one = metrics.deletion(model, x, maps.maps[:, 1], jv.channel("relu_1", 4), steps=4)
    np.testing.assert_allclose(one.curves, found.curves[:, 1], rtol=1e-5)
    acts = np.asarray(model.activations(x, "relu_1")["relu_1"])[..., [1, 4]].mean((1, 2))
    np.testing.assert_allclose(found.curves[..., 0], acts, rtol=1e-5)


def test_scores() -> None:
    model, x = tiny_model(), random_images(2, 16, 16, 3)
    maps = jv.attribution.saliency(model, x, [2, 3])
    logits = np.asarray(model(x))[[0, 1], [2, 3]]
    softmax = np.asarray(jax.nn.softmax(model(x)))[[0, 1], [2, 3]]
    first = lambda **options: metrics.deletion(model, x, maps, steps=2, **options).curves[:, 0]  # noqa: E731
    np.testing.assert_allclose(first(), softmax, rtol=1e-5)
    np.testing.assert_allclose(first(score="logit"), logits, rtol=1e-5)
    np.testing.assert_allclose(first(target=jv.attribution.log_probability()), np.log(softmax), rtol=1e-5)
    best = np.where(np.eye(5)[[2, 3]] > 0, -np.inf, np.asarray(model(x))).max(1)
    np.testing.assert_allclose(first(target=jv.attribution.margin()), logits - best, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(first(target=first_logit), np.asarray(model(x))[:, 0], rtol=1e-5)
    with pytest.raises(jv.ArgumentError, match="A score is"):
        first(score="softmax")


def first_logit(logits: jax.Array) -> jax.Array:
    return logits[:, 0]


@pytest.mark.parametrize(
    ("maps", "target", "message"),
    [
        (np.zeros((2, 16)), None, r"\(N, h, w\) or \(N, h, w, C\)"),
        (np.zeros((3, 16, 16)), None, "the same 2 images; got 3"),
        (np.zeros((2, 16, 16)), [[0, 1]], r"\(N, K, h, w\)"),
        (np.zeros((2, 3, 16, 16)), [[0, 1]], "each of 2 targets; got 3 maps"),
        (jv.Attribution(np.zeros((2, 4, 4)), np.zeros(2), np.full(2, "a"), None, "x", True), [[0, 1]], "got one map"),
        (np.zeros((2, 16, 16)), [0, 1, 2], "3"),
    ],
)
def test_what_does_not_fit_is_an_error(maps: Any, target: Any, message: str) -> None:
    model, x = tiny_model(), random_images(2, 16, 16, 3)
    with pytest.raises(jv.ArgumentError, match=message):
        metrics.deletion(model, x, maps, target)


def test_options_that_do_not_fit_are_errors() -> None:
    model, x, maps = tiny_model(), random_images(2, 16, 16, 3), random_images(2, 16, 16)
    for options in ({"steps": 0}, {"pixels": 0}, {"baseline": "grey"}, {"reduce": "mean"}):
        with pytest.raises(jv.ArgumentError):
            metrics.deletion(model, x, maps, **options)
    for options in ({"fractions": (0.0,)}, {"fractions": ()}, {"noise": -1}, {"convention": "quantus"}, {"ids": [0]}):
        with pytest.raises(jv.ArgumentError):
            metrics.road(model, x, maps, **options)


def test_programs_lower_for_every_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each program, as the metrics hand it to the engine, with nothing run."""
    seen: list[tuple[Any, Any]] = []

    class Caught(Exception):
        pass

    def catch(program: Any, items: Any, *args: Any, **options: Any) -> None:
        seen.append((program, items))
        raise Caught

    model, x = tiny_model(), random_images(2, 16, 16, 3)
    maps = jv.attribution.saliency(model, x, [[0, 3]])
    monkeypatch.setattr(engine, "map_images", catch)
    monkeypatch.setattr(engine, "reduce_images", catch)
    for metric in OF_SCORES.values():
        with pytest.raises(Caught):
            metric(model, x, maps)
    with pytest.raises(Caught):
        metrics.infidelity(model, x, maps, perturbation="noise")
    pair = {"one": maps.reduce().maps, "other": maps.reduce().maps}
    masks = {"maps": pair["one"], "masks": np.ones((2, 2, 16, 16), bool)}
    seen += [(Similarity(), pair), (Inside(), masks), (Point(jnp.float32(2), "mean"), masks), (Concentration(), pair["one"])]
    for program, items in seen:
        if hasattr(program, "step"):
            fixed = jax.eval_shape(program.start, items)
            numbers = jax.ShapeDtypeStruct((3,), "int32"), jax.ShapeDtypeStruct((3,), "float32")
            calls = [("start", (items,)), ("step", (items, fixed, *numbers))]
        else:
            calls = [("__call__", (items,))]
        for name, args in calls:
            call = jax.jit(lambda program, *args, name=name: getattr(program, name)(*args))
            exported = jax.export.export(call, platforms=("cpu", "cuda", "tpu"))(program, *args)
            assert exported.platforms == ("cpu", "cuda", "tpu")
