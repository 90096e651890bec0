"""Score-CAM: equal to pytorch-grad-cam, one program for any number of channels, memory that does not grow with them."""

from __future__ import annotations

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz import attribution as at
from jaxviz.attribution._cam.per_channel import placed
from jaxviz.attribution._cam.score_cam import ScoreCam, channel_masks
from jaxviz.attribution._target import as_target
from jaxviz.engine import make_mesh
from tests.attribution.pgc import last_steps, pgc_map, quiet
from tests.attribution.reference import assert_close, full, images, pair
from tests.compilations import compilations
from tests.contracts import PLATFORMS
from tests.tiny import random_images, tiny_model


@pytest.mark.parametrize(
    "name, head, layer, path",
    [
        ("small_bottleneck", None, "maxpool", "maxpool"),
        ("small_vgg", None, "features.4", "features.4"),
        full("resnet50", None, "maxpool", "maxpool"),
        full("vgg16", 64, "features.4", "features.4"),
    ],
)
def test_equal_to_pgc(name: str, head: int | None, layer: str, path: str) -> None:
    module, model = pair(name, head)
    x = images(2, 32, 32, 3)
    classes = np.asarray(model(x)).argsort(-1)[:, -1]
    quiet()
    expected = pgc_map("ScoreCAM", module, path, x, classes)
    assert_close(last_steps(at.score_cam(model, x, classes, layer=layer, resize=False).maps, 32), expected)


def test_masks_are_enlarged_with_aligned_corners() -> None:
    torch = pytest.importorskip("torch")
    values = random_images(2, 3, 4, 5)
    theirs = torch.nn.UpsamplingBilinear2d((10, 13))(torch.from_numpy(values.transpose(0, 3, 1, 2)))
    low, high = theirs.amin((2, 3), keepdim=True), theirs.amax((2, 3), keepdim=True)
    assert_close(np.asarray(channel_masks(jnp.asarray(values), (10, 13))), ((theirs - low) / (high - low)).permute(0, 2, 3, 1))
    assert not channel_masks(jnp.full((1, 2, 2, 1), 0.3), (4, 4)).any()


def by_loop(model, image: np.ndarray, classes: list[int], layer: str) -> np.ndarray:
    """Return Score-CAM's weights (K, C) of one image by its definition, one channel after the other."""
    values = np.asarray(model.activations(image[None], layer)[layer])
    masks = np.asarray(channel_masks(jnp.asarray(values), image.shape[:2]))[0]
    mean = np.asarray(model.mean)
    scores = [
        np.asarray(model((mean + (image - mean) * masks[..., c, None])[None]))[0, classes] for c in range(masks.shape[-1])
    ]
    return np.asarray(jax.nn.softmax(np.stack(scores), axis=0)).T


@pytest.mark.parametrize("options", [{}, {"chunk": 1}, {"chunk": 10}, {"chunk": 2, "mesh": make_mesh(2)}])
def test_weights_by_definition_whatever_the_chunk(options: dict) -> None:
    model, x = tiny_model(), random_images(3, 16, 16, 3)
    found = at.score_cam(model, x, [[4, 1]], layer="relu", **options)
    for i in range(3):
        np.testing.assert_allclose(found.extra["weights"][i], by_loop(model, x[i], [4, 1], "relu"), atol=1e-6)
    values = np.asarray(model.activations(x, "relu")["relu"])
    raw = at.score_cam(model, x, [[4, 1]], layer="relu", resize=False, relu=False).maps
    np.testing.assert_allclose(raw, np.einsum("nkc,nhwc->nkhw", found.extra["weights"], values), atol=1e-5)


def test_one_program_for_any_number_of_channels_images_and_classes() -> None:
    model, x = tiny_model(), random_images(2, 16, 16, 3)
    at.score_cam(model, x, 1, layer="relu_1")
    with compilations() as compiled:
        at.score_cam(tiny_model(seed=2), 1 - x, [3, 0], layer="relu_1")
    assert not compiled.names


def test_memory_of_a_step_does_not_grow_by_masks() -> None:
    model, x = tiny_model(), jnp.asarray(random_images(1, 64, 64, 3))
    target, index = as_target(model, 1, x)
    items = {"images": x, "index": jnp.asarray(index), "baseline": jnp.zeros_like(x)}

    def temporary(channels: int) -> int:
        program = ScoreCam(model.network, target, "relu", channels, True, True)
        fixed = {"values": jnp.zeros((1, 32, 32, channels)), "scores": jnp.zeros((1, 1)), "index": items["index"]}
        step = jax.jit(lambda p, *rest: p.step(*rest))
        compiled = step.lower(program, items, fixed, jnp.arange(4), jnp.ones(4)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # A few numbers for each channel, not a mask: 4 x 64 x 64 numbers.
    assert temporary(4096) - temporary(64) <= 8 * 4 * 4096


def test_lowers_for_every_platform() -> None:
    model, x = tiny_model(), jnp.asarray(random_images(2, 16, 16, 3))
    target, index = as_target(model, [[0, 1]], x)
    program = ScoreCam(model.network, target, "relu", 8, True, True)
    items = {"images": x, "index": jnp.asarray(index), "baseline": jnp.zeros_like(x)}

    def run(program, items):
        fixed = program.start(items)
        return program.finish(items, fixed, program.step(items, fixed, jnp.arange(8), jnp.ones(8)))

    assert jax.export.export(jax.jit(run), platforms=PLATFORMS)(program, items).platforms == PLATFORMS


def test_steps_that_only_fill_a_chunk_add_nothing() -> None:
    scores = jnp.asarray([[[1.0, 2.0, jnp.nan]]])
    found = placed(scores, jnp.asarray([0, 3, 3]), jnp.asarray([1.0, 1.0, 0.0]), 4)
    np.testing.assert_array_equal(found, [[[1, 0, 0, 2]]])


def test_baseline_and_other_scores() -> None:
    model, x = tiny_model(), random_images(1, 16, 16, 3)
    mean = at.score_cam(model, x, 1)
    np.testing.assert_allclose(at.score_cam(model, x, 1, baseline=0.5).maps, mean.maps, atol=1e-6)  # the mean colour
    assert np.abs(at.score_cam(model, x, 1, baseline="black").maps - mean.maps).max() > 1e-4
    assert at.score_cam(model, x, lambda logits: logits[:, 1]).maps == pytest.approx(mean.maps, abs=1e-6)
    even = at.score_cam(model, x, at.probability(1)).extra["weights"]
    assert np.ptp(even) < np.ptp(mean.extra["weights"])
