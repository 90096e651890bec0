"""The table of weights is torchvision's own, field by field."""

from __future__ import annotations

import math

import pytest

from jaxviz._errors import ArgumentError
from jaxviz.models._zoo import registry as _registry
from tests.torch_reference import import_torchvision

FAMILIES = ("vgg", "resnet", "resnext", "wide_resnet")


@pytest.fixture(scope="module")
def tv():
    return import_torchvision().models


def test_architectures_are_all_of_torchvision(tv):
    theirs = {n for n in tv.list_models(module=tv) if n.startswith(FAMILIES)}
    assert set(_registry.ARCHITECTURES) == theirs
    assert len(theirs) == 18


@pytest.mark.parametrize("name", _registry.ARCHITECTURES)
def test_weights_equal_torchvision(tv, name):
    enum = tv.get_model_weights(name)
    ours = {w.name: w for w in _registry.ARCHITECTURES[name].weights}
    assert set(ours) == {w.name for w in enum}
    assert _registry.weights(name).name == enum.DEFAULT.name
    assert _registry.weights(name, "DEFAULT").name == enum.DEFAULT.name
    for theirs in enum:
        mine, transform = ours[theirs.name], theirs.transforms()
        assert mine.architecture == name
        assert mine.url == theirs.url
        assert mine.hash_prefix == theirs.url.rpartition("-")[2].removesuffix(".pth")
        assert mine.mean == tuple(transform.mean)
        assert mine.std == tuple(transform.std)
        assert [mine.resize] == transform.resize_size
        assert [mine.crop] == transform.crop_size
        assert mine.interpolation == transform.interpolation.value
        top1 = theirs.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert mine.top1 == (None if math.isnan(top1) else top1)
        categories = theirs.meta["categories"]
        assert mine.classes == (len(categories) if categories else None)
        if categories:
            assert _registry.imagenet_classes() == tuple(categories)


def test_unknown_names_suggest_near_ones():
    with pytest.raises(ArgumentError, match="Did you mean 'resnet50'"):
        _registry.architecture("ResNet-50")
    with pytest.raises(ArgumentError, match=r"IMAGENET1K_V2, IMAGENET1K_V1.*Did you mean 'IMAGENET1K_V2'"):
        _registry.weights("resnet50", "imagenet1k_v2")


def test_weights_of_file():
    found = _registry.weights_of_file("resnet50-11ad3fa6.pth")
    assert found is not None and (found.architecture, found.name) == ("resnet50", "IMAGENET1K_V2")
    assert _registry.weights_of_file("mine.pth") is None
