"""Occlusion and feature ablation against Captum's, and what they cost."""

from __future__ import annotations

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz import attribution
from jaxviz._errors import ArgumentError
from jaxviz.attribution import feature_ablation, occlusion
from jaxviz.attribution._methods import occlusion_program as _covered
from jaxviz.attribution._methods.occlusion_program import Covered, Groups, Windows, covered
from jaxviz.attribution._target import ClassTarget, as_target
from jaxviz.models import from_function
from jaxviz.objectives import channel
from tests.attribution.reference import NETWORKS, RESNET, assert_close, full, images, nhwc, normalised, pair
from tests.compilations import compilations
from tests.tiny import random_images, tiny_model

TINY, X = tiny_model(), random_images(3, 16, 16, 3)
MASK = (np.arange(16)[:, None] // 5 * 10 + np.arange(16) // 6) - 7  # 4 x 3 parts, numbered with gaps


@pytest.mark.parametrize(("name", "head"), NETWORKS)
def test_occlusion_equals_captum(name: str, head: int | None) -> None:
    attr = pytest.importorskip("captum.attr")
    import torch

    module, model = pair(name, head)
    x = images(2, 64, 64, 3)
    ours = occlusion(model, x, [3, 7], window=(30, 26), stride=(20, 24))
    theirs = attr.Occlusion(module).attribute(normalised(x), (3, 30, 26), (3, 20, 24), target=torch.tensor([3, 7]))
    assert ours.extra["window_scores"].shape == (2, 3, 3)
    assert_close(np.stack([ours.maps] * 3, -1), nhwc(theirs), name)


@pytest.mark.parametrize("name", RESNET)
def test_windows_over_some_channels_equal_captum(name: str) -> None:
    attr = pytest.importorskip("captum.attr")
    import torch

    module, model = pair(name)
    x = images(2, 64, 64, 3)
    base = images(2, 64, 64, 3, seed=1)
    ours = occlusion(model, x, [3, 7], window=(40, 34, 2), stride=(30, 30, 1), baseline=base)
    theirs = attr.Occlusion(module).attribute(
        normalised(x), (2, 40, 34), (1, 30, 30), target=torch.tensor([3, 7]), baselines=normalised(base)
    )
    assert_close(ours.maps, nhwc(theirs))


def _numbered(x: jax.Array) -> jax.Array:
    weights = jnp.arange(x.shape[1] * x.shape[2], dtype=jnp.float32).reshape(x.shape[1:3])
    return (x[..., 0] * weights).sum((1, 2))[:, None]


def test_the_last_windows_are_cut_at_the_edge() -> None:
    """Of the sum of i x_i over 5 x 5 pixels: windows of 2 x 2, the last of 1; as Captum gives it."""
    model = from_function(_numbered, channels=1)
    found = occlusion(model, np.ones((1, 5, 5, 1), np.float32), 0, window=2, stride=2, baseline="black")
    sums = np.array([[12, 20, 13], [52, 60, 33], [41, 45, 24]])
    np.testing.assert_allclose(found.maps[0], np.repeat(np.repeat(sums, 2, 0), 2, 1)[:5, :5], rtol=1e-6)
    np.testing.assert_allclose(found.extra["window_scores"][0], 300 - sums, rtol=1e-6)


def test_overlapping_windows_are_averaged() -> None:
    """A loop over windows with a sum of masks, in NumPy."""
    found = occlusion(TINY, X, 2, window=(6, 5), stride=(3, 2), baseline="white")
    base, total, covered = np.asarray(TINY(X))[:, 2], np.zeros((3, 16, 16)), np.zeros((16, 16))
    for i in range(5):
        for j in range(7):
            mask = np.zeros((16, 16))
            mask[3 * i : 3 * i + 6, 2 * j : 2 * j + 5] = 1
            logits = np.asarray(TINY(np.where(mask[None, :, :, None], 1, X).astype(np.float32)))
            total += (base - logits[:, 2])[:, None, None] * mask
            covered += mask
            np.testing.assert_allclose(found.extra["window_scores"][:, i, j], logits[:, 2], atol=1e-6)
            np.testing.assert_array_equal(found.extra["window_classes"][:, i, j], logits.argmax(-1))
    assert_close(found.maps, total / covered, tolerance=1e-5)
    assert found.extra["window_classes"].shape == (3, 5, 7)


def test_usual_windows() -> None:
    found = occlusion(TINY, random_images(1, 28, 21, 3), 0)
    assert found.settings["window"] == [4, 3] and found.settings["stride"] == [2, 2]
    assert occlusion(TINY, X, 0, window=7).settings["stride"] == [4, 4]


@pytest.mark.parametrize(
    ("shape", "name", "head"),
    [
        ("NHW", "small_resnet", None),
        ("HWC", "small_vgg_bn", None),
        full("NHW", "resnet18", None),
        full("HWC", "vgg16_bn", 64),
    ],
)
def test_feature_ablation_equals_captum(shape: str, name: str, head: int | None) -> None:
    attr = pytest.importorskip("captum.attr")
    import torch

    module, model = pair(name, head)
    x, place = images(2, 64, 64, 3), np.arange(64) // 22
    mask = np.stack([place[:, None] * 3 + place[None] + 2, place[:, None] + place[None] ** 2])  # not of the same parts
    if "C" in shape:
        mask = mask[..., None] + 5 * np.array([0, 1, 1])
    mask = mask if "N" in shape else mask[0]
    theirs = mask if "N" in shape else mask[None]
    theirs = theirs.transpose(0, 3, 1, 2) if "C" in shape else theirs[:, None]
    ours = feature_ablation(model, x, [3, 7], mask=mask, baseline="mean")
    theirs = nhwc(
        attr.FeatureAblation(module).attribute(
            normalised(x), target=torch.tensor([3, 7]), feature_mask=torch.from_numpy(np.ascontiguousarray(theirs))
        )
    )
    assert ours.spatial == ("C" not in shape)
    assert_close(ours.maps if "C" in shape else np.stack([ours.maps] * 3, -1), theirs, shape)


def test_parts_in_the_order_of_their_numbers() -> None:
    found = feature_ablation(TINY, X, 1, mask=MASK, baseline="black")
    base = np.asarray(TINY(X))[:, 1]
    assert found.extra["part_scores"].shape == found.extra["part_classes"].shape == (3, 12)
    for part, number in enumerate(np.unique(MASK)):
        logits = np.asarray(TINY(np.where((number == MASK)[None, :, :, None], 0, X).astype(np.float32)))
        np.testing.assert_allclose(found.extra["part_scores"][:, part], logits[:, 1], atol=1e-6)
        np.testing.assert_array_equal(found.extra["part_classes"][:, part], logits.argmax(-1))
        here = found.maps[:, number == MASK]
        np.testing.assert_allclose(here, np.broadcast_to((base - logits[:, 1])[:, None], here.shape), atol=1e-6)


def test_a_mask_for_all_is_one_for_each() -> None:
    plain = feature_ablation(TINY, X, 1, mask=MASK, chunk=24)
    each = feature_ablation(TINY, X, 1, mask=np.stack([MASK] * 3), chunk=24)
    coloured = feature_ablation(TINY, X, 1, mask=np.stack([np.stack([MASK] * 3, -1)] * 3), chunk=24)
    np.testing.assert_array_equal(plain.maps, each.maps)
    np.testing.assert_allclose(coloured.maps, np.stack([plain.maps] * 3, -1), atol=1e-6)


METHODS = [(occlusion, {"window": 5, "stride": 3}), (feature_ablation, {"mask": MASK})]


@pytest.mark.parametrize(("method", "options"), METHODS)
def test_chunks_and_company_change_nothing(method, options) -> None:
    whole = method(TINY, X, [[0, 4]], chunk=96, **options)
    for chunk in (7, 24):
        found = method(TINY, X, [[0, 4]], chunk=chunk, **options)
        assert np.abs(found.maps - whole.maps).max() <= 1e-6 * np.abs(whole.scores).max()
        for name, value in found.extra.items():
            np.testing.assert_allclose(value, whole.extra[name], atol=1e-6 * np.abs(whole.scores).max())
    alone = method(TINY, X[1:2], [[0, 4]], **options)
    assert np.abs(alone.maps - whole.maps[1:2]).max() <= 1e-6 * np.abs(whole.scores).max()
    for k, one in enumerate((0, 4)):
        single = method(TINY, X, one, **options)
        np.testing.assert_allclose(whole.maps[:, k], single.maps, atol=1e-6)


@pytest.mark.parametrize(("method", "options"), METHODS)
def test_a_unit_in_the_middle_has_scores_and_no_classes(method, options) -> None:
    found = method(TINY, X, channel("relu_1", [2, 5]), **options)
    assert found.maps.shape == (3, 2, 16, 16) and found.classes is None
    assert [name.split("_")[1] for name in found.extra] == ["scores"]
    values = np.asarray(TINY.activations(X, "relu_1")["relu_1"]).mean((1, 2))[:, [2, 5]]
    np.testing.assert_allclose(found.scores, values, atol=1e-6)


def test_other_windows_images_and_classes_compile_nothing() -> None:
    """Where the windows fit the same patch; there are at most 14 along a side."""
    occlusion(TINY, X, 1, window=(5, 6), stride=2, chunk=24)
    other = tiny_model(1)
    with compilations() as compiled:
        for window, stride in (((5, 6), 3), ((5, 6), (3, 1)), ((5, 6, 1), (2, 2, 1))):
            occlusion(other, X[::-1], 2, window=window, stride=stride, baseline="white", chunk=24)
    assert not compiled.names
    patches = {covered(TINY, ClassTarget(False), Groups(), (side, side), (224, 224)).patch for side in range(1, 225)}
    assert len(patches) <= 14


@pytest.mark.parametrize(("method", "options"), [(occlusion, {"window": (5, 7, 2)}), (feature_ablation, {"mask": MASK})])
def test_patches_change_nothing(method, options, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is computed around the covered part alone is what whole images give."""
    by_patches = method(TINY, X, [[0, 4]], **options)
    monkeypatch.setattr(_covered, "maps_around_patches", lambda *arguments: None)
    whole = method(TINY, X, [[0, 4]], **options)
    for one, other in ((by_patches.maps, whole.maps), *zip(by_patches.extra.values(), whole.extra.values(), strict=True)):
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(whole.scores).max())


def test_parts_that_an_image_does_not_have_cost_it_nothing() -> None:
    masks = np.stack([MASK, np.where(MASK > 0, MASK, MASK.max())])
    found = feature_ablation(TINY, X[:2], 1, mask=masks)
    missing = ~np.isin(np.unique(MASK), masks[1])
    assert missing.any()
    np.testing.assert_allclose(found.extra["part_scores"][1, missing], found.scores[1], atol=1e-6)


def stepped(window: int, stride: int, s: int = 4, whole: bool = False):
    target, index = as_target(TINY, [[1, 2]], X)
    grid = -(-(16 - window) // stride) + 1
    values = ((window, window, 3), (stride, stride, 3), (grid, grid, 1))
    windows = Windows(*(jnp.asarray(v, jnp.int32) for v in values))
    program = (
        Covered(TINY.network, target, windows, None, ())
        if whole
        else covered(TINY, target, windows, (window, window), (16, 16))
    )
    items = {"images": X, "baseline": 0 * X, "index": index}
    return jax.jit(program.step), (items, program.start(items)[1], np.arange(s, dtype=np.int32))


def test_a_step_is_one_forward_pass_for_all_targets() -> None:
    step, args = stepped(4, 1, whole=True)
    assert str(jax.make_jaxpr(step)(*args)).count("conv_general_dilated[") == 2
    forward = jax.jit(forward_of).lower(np.zeros((12, 16, 16, 3), np.float32)).cost_analysis()
    flops = step.lower(*args).cost_analysis()["flops"]
    assert flops < 1.2 * forward["flops"], (flops, forward["flops"])


def forward_of(x):
    from jaxviz.models import forward

    return forward(TINY.network, x)


def test_memory_and_work_of_a_step_do_not_depend_on_the_windows() -> None:
    few, many = (step.lower(*args).compile().memory_analysis() for step, args in (stepped(6, 6), stepped(6, 1)))
    assert few.temp_size_in_bytes == many.temp_size_in_bytes
    assert few.argument_size_in_bytes == many.argument_size_in_bytes
    assert few.output_size_in_bytes == many.output_size_in_bytes < 1000


def test_lowers_everywhere() -> None:
    step, args = stepped(4, 2)
    assert jax.export.export(step, platforms=("cpu", "cuda", "tpu"))(*args).platforms == ("cpu", "cuda", "tpu")


@pytest.mark.parametrize(
    ("method", "options", "says"),
    [
        ("occlusion", {"window": 17}, "at most the image"),
        ("occlusion", {"window": 4, "stride": 5}, "stride of at most the window"),
        ("occlusion", {"window": 0}, "above 0"),
        ("occlusion", {"window": (4, 4, 1), "stride": (4, 4, 1, 1)}, "height, width, channels"),
        ("occlusion", {"window": 2.5}, "whole numbers"),
        ("feature_ablation", {"mask": MASK[:8]}, "mask of whole numbers"),
        ("feature_ablation", {"mask": MASK.astype(float)}, "whole numbers"),
    ],
)
def test_what_does_not_fit_is_refused(method: str, options: dict, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        attribution.attribute(TINY, X, method, 1, **options)
