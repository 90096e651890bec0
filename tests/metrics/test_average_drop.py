"""Drop, increase and gain against pytorch-grad-cam and by hand."""

from __future__ import annotations

import numpy as np
import pytest

import jaxviz as jv
from jaxviz import metrics
from tests.attribution.reference import RESNETS, assert_close, images, normalised, pair
from tests.tiny import random_images, tiny_model
from tests.torch_reference import import_torchvision


@pytest.mark.parametrize("name", RESNETS)
def test_drop_and_increase_are_pgcs(name: str) -> None:
    pytest.importorskip("torch")
    import_torchvision()
    pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence

    module, model = pair(name)
    x, maps = images(4, 48, 48, 3), random_images(4, 48, 48, seed=1)
    order = np.argsort(-np.asarray(model(x)), axis=1)
    classes = order[np.arange(4), [0, 1, 0, 1]]  # those that are likely at all, the first or the second of an image
    maps /= maps.max((1, 2), keepdims=True)
    targets = [lambda out, c=c: out.softmax(-1)[c] for c in classes]
    options = {"normalize": None, "score": "probability"}
    drop = metrics.average_drop(model, x, maps, classes, convention="pytorch-grad-cam", **options)
    assert_close(drop, DropInConfidence()(normalised(x), maps, targets, module), "drop")
    rose = metrics.average_increase(model, x, maps, classes, **options)
    np.testing.assert_array_equal(rose, IncreaseInConfidence()(normalised(x), maps, targets, module))
    assert 0 < rose.mean() < 1, "one value alone: nothing was tested"


def test_definitions_by_hand() -> None:
    before, after = np.array([0.5, 0.8, 0.0, 1.0]), np.array([0.25, 0.9, 0.1, 0.5])
    found = metrics.Confidence(before, after)
    np.testing.assert_allclose(found.drop(), [0.5, 0, np.nan, 0.5])
    np.testing.assert_allclose(found.drop("pytorch-grad-cam"), [0.25, 0, 0, 0.5])
    np.testing.assert_allclose(found.increase(), [0, 1, 1, 0])
    np.testing.assert_allclose(found.gain(), [0, 0.5, 0.1, 0], rtol=1e-6)
    with pytest.raises(jv.ArgumentError, match="None or 'pytorch-grad-cam'"):
        found.drop("pgc")  # type: ignore[arg-type]


def test_masks_are_scaled_by_each_map() -> None:
    model, x = tiny_model(), random_images(2, 16, 16, 3)
    maps = random_images(2, 16, 16, 3, seed=2) - 0.5
    total = maps.sum(-1)
    low, high = total.min((1, 2), keepdims=True), total.max((1, 2), keepdims=True)
    mask = (total - low) / (high - low)
    seen = 0.5 + (x - 0.5) * mask[..., None]
    found = metrics.confidence(model, x, maps, score="logit")
    top = np.asarray(model(x)).argmax(1)
    np.testing.assert_allclose(found.after, np.asarray(model(seen.astype(np.float32)))[[0, 1], top], rtol=1e-4)
    np.testing.assert_allclose(found.before, np.asarray(model(x)).max(1), rtol=1e-5)
    with pytest.raises(jv.ArgumentError, match=r"maps in \[0, 1\]"):
        metrics.confidence(model, x, maps, normalize=None)


def test_maps_that_are_not_finite_are_undefined() -> None:
    model, x, maps = tiny_model(), random_images(2, 16, 16, 3), random_images(2, 16, 16)
    maps[1, 0, 0] = np.nan
    for metric in (metrics.average_drop, metrics.average_increase, metrics.average_gain):
        assert np.isnan(metric(model, x, maps)).tolist() == [False, True]
