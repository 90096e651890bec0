"""RISE against a loop in NumPy over the same masks, its masks against torch's resizing, and what it should find."""

from __future__ import annotations

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz import attribution
from jaxviz._errors import ArgumentError
from jaxviz.attribution import probability, rise
from jaxviz.attribution._methods.rise import Rise, random_masks
from jaxviz.attribution._sampling import draw_keys
from jaxviz.attribution._target import as_target
from jaxviz.models import from_function
from tests.attribution.reference import RESNET, assert_close, images, pair
from tests.compilations import compilations
from tests.tiny import random_images, tiny_model

TINY, X = tiny_model(), random_images(3, 16, 16, 3)
IDS = np.array([5, 9, 2], np.int32)


def masks_of(samples: int, ids: np.ndarray, size=(16, 16), grid: int = 7, p: float = 0.5) -> np.ndarray:
    keys = draw_keys(jnp.int32(0), jnp.asarray(ids, jnp.int32), jnp.arange(samples, dtype=jnp.int32))
    return np.asarray(jax.jit(lambda keys: random_masks(keys, grid, jnp.float32(p), size))(keys))


def loop(model, x: np.ndarray, target: int, masks: np.ndarray, base: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the two maps, normalized by the masks and by what they are in the mean."""
    total = np.zeros(x.shape[:3])
    for mask in masks:
        seen = mask[..., None] * x + (1 - mask[..., None]) * base
        total += np.asarray(model(seen.astype(np.float32)))[:, target, None, None] * mask
    return total / masks.sum(0, dtype=np.float64), total / (len(masks) * 0.5)


def test_equals_a_loop() -> None:
    masks = masks_of(40, IDS)
    by_masks, by_expectation = loop(TINY, X, 2, masks, 0.0)
    options = {"samples": 40, "baseline": "black", "ids": IDS, "chunk": 24}
    assert_close(rise(TINY, X, 2, **options).maps, by_masks, tolerance=1e-5)
    assert_close(rise(TINY, X, 2, normalize="expectation", **options).maps, by_expectation, tolerance=1e-5)


@pytest.mark.parametrize("name", RESNET)
def test_equals_a_loop_over_a_torch_network(name: str) -> None:
    torch = pytest.importorskip("torch")
    from tests.attribution.reference import normalised

    module, model = pair(name)
    x = images(1, 64, 64, 3)
    masks = masks_of(8, np.zeros(1), (64, 64))

    def torch_model(seen: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(normalised(seen)).numpy()

    assert_close(rise(model, x, 3, samples=8, baseline="black").maps, loop(torch_model, x, 3, masks, 0.0)[0])


def test_masks_are_enlarged_as_torch_does() -> None:
    """Each is a crop of the bilinearly enlarged grid; shifts and grids are found by looking at all crops."""
    torch = pytest.importorskip("torch")
    found, cell = masks_of(6, np.zeros(1), (16, 20), 4)[:, 0], (4, 5)
    for s, mask in enumerate(found):
        key = draw_keys(jnp.int32(0), jnp.zeros(1, jnp.int32), jnp.asarray([s], jnp.int32))[0, 0]
        opened = (np.asarray(jax.random.uniform(key, (18,)))[2:] < 0.5).astype(np.float32).reshape(1, 1, 4, 4)
        large = torch.nn.functional.interpolate(torch.from_numpy(opened), size=(20, 25), mode="bilinear")[0, 0].numpy()
        crops = [large[i : i + 16, j : j + 20] for i in range(cell[0]) for j in range(cell[1])]
        assert min(np.abs(mask - crop).max() for crop in crops) < 1e-5


def test_masks_open_as_often_as_asked_for_and_shift_each_for_itself() -> None:
    masks = masks_of(800, np.array([0, 1]), (21, 21), 7, 0.3)
    assert masks.min() >= 0 and masks.max() <= 1
    assert np.abs(masks.mean((0, 1)) - 0.3).max() < 0.06  # at every pixel, the corners too
    assert np.any(masks[:, 0] != masks[:, 1])
    assert len({mask.tobytes() for mask in masks[:50, 0]}) == 50
    everything = masks_of(2, np.zeros(1), p=1.0)
    np.testing.assert_allclose(everything, 1, atol=1e-6)


def _corner(x: jax.Array) -> jax.Array:
    return x[:, :8, :8].mean((1, 2, 3))[:, None] + 100


def test_finds_the_corner_that_matters() -> None:
    model = from_function(_corner)
    found = rise(model, np.ones((1, 24, 24, 3), np.float32), 0, samples=1000, baseline="black")
    inside = np.zeros((24, 24), bool)
    inside[:8, :8] = True
    assert found.maps[0][inside].mean() > found.maps[0][~inside].mean() + 0.05
    assert found.maps[0][:6, :6].min() > found.maps[0][10:, 10:].max()
    uneven = rise(model, np.ones((1, 24, 24, 3), np.float32), 0, samples=1000, baseline="black", normalize="expectation")
    assert uneven.maps[0].std() > 5 * found.maps[0].std()  # the constant 100 times the unevenness of the masks


def test_probabilities_as_in_the_paper() -> None:
    found = rise(TINY, X, probability(2), samples=30)
    assert found.maps.min() > 0 and found.maps.max() < 1
    np.testing.assert_allclose(found.scores, jax.nn.softmax(TINY(X))[:, 2], atol=1e-6)


def test_chunks_and_company_change_nothing() -> None:
    whole = rise(TINY, X, [[0, 2]], samples=30, chunk=90, ids=IDS)
    largest = np.abs(whole.maps).max()
    parts = rise(TINY, X, [[0, 2]], samples=30, chunk=24, ids=IDS)
    assert np.abs(parts.maps - whole.maps).max() <= 1e-6 * largest
    alone = rise(TINY, X[2:], [[0, 2]], samples=30, ids=IDS[2:])
    assert np.abs(alone.maps - whole.maps[2:]).max() <= 1e-6 * largest
    single = rise(TINY, X, 2, samples=30, ids=IDS, chunk=24)
    assert np.abs(single.maps - whole.maps[:, 1]).max() <= 1e-6 * largest


def test_other_counts_chances_and_seeds_compile_nothing() -> None:
    rise(TINY, X, 1, samples=32, baseline="blur", chunk=24)
    other = tiny_model(1)
    with compilations() as compiled:
        rise(other, X[::-1], 2, samples=60, probability=0.2, baseline="blur", seed=3, normalize="expectation", chunk=24)
    assert not compiled.names


def stepped(samples: int):
    target, index = as_target(TINY, [[1, 2]], X)
    program = Rise(TINY.network, target, jnp.float32(0.5), jnp.int32(0), jnp.float32(samples), jnp.asarray(False), 7)
    items = {"images": X, "baseline": 0 * X, "index": index, "ids": IDS}
    return jax.jit(program.step), (items, program.start(items), np.arange(4, dtype=np.int32), np.ones(4, np.float32))


def test_a_step_is_one_forward_pass_and_lowers_everywhere() -> None:
    step, args = stepped(4000)
    assert str(jax.make_jaxpr(step)(*args)).count("conv_general_dilated[") == 2
    assert jax.export.export(step, platforms=("cpu", "cuda", "tpu"))(*args).platforms == ("cpu", "cuda", "tpu")
    sums = jax.eval_shape(step, *args)
    assert {name: leaf.shape for name, leaf in sums.items()} == {"products": (3, 2, 16, 16), "masks": (3, 16, 16)}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"samples": 0}, "samples"),
        ({"grid": 1}, "grid"),
        ({"probability": 0}, "probability"),
        ({"probability": 1.5}, "probability"),
        ({"normalize": "max"}, "expectation"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        attribution.attribute(TINY, X, "rise", 1, **options)
