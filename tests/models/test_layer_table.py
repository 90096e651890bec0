"""The table of layers: names, kinds, shapes and receptive fields."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxviz import LayerError
from jaxviz.models import VGG, Layer, LayerTable, ReceptiveField, ResNet, forward, from_module, no_tap
from jaxviz.models._zoo.layers import AvgPool, Conv, MaxPool
from jaxviz.ops import EXACT
from jaxviz.ops._pooling import adaptive_windows
from tests.models.reference import RESNETS, VGGS, network


def table(module, size=224):
    return from_module(module, mean=(0,) * 3, std=(1,) * 3).layers(size)


# Araujo et al., "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019, gives VGG-16's 212; their
# ResNets have the stride elsewhere, so those are computed by the same recurrence with torchvision's strides.
@pytest.mark.parametrize(
    "name, layer, size, stride, shape",
    [
        ("resnet18", "layer4", 435, 32, (7, 7, 512)),
        ("resnet18", "layer1", 43, 4, (56, 56, 64)),
        ("resnet50", "layer4", 427, 32, (7, 7, 2048)),
        ("resnet50", "layer3", 267, 16, (14, 14, 1024)),
        ("vgg16", "features.30", 212, 32, (7, 7, 512)),
        ("vgg16", "features", 212, 32, (7, 7, 512)),
        ("vgg16", "flatten", 212, 32, (25088,)),
        ("resnext50_32x4d", "maxpool", 11, 4, (56, 56, 64)),
    ],
)
def test_known_receptive_fields(name, layer, size, stride, shape):
    found = table(network(name))[layer]
    assert found.receptive_field[:3] == ReceptiveField((size, size), (stride, stride))[:3]
    assert (found.shape, found.channels) == (shape, shape[-1])


class Small(nnx.Module):
    """Uneven windows, strides, dilation and a residual sum, so that nothing is right by symmetry."""

    def __init__(self):
        self.a = Conv(1, 1, (3, 5), stride=(2, 1), padding=((1, 1), (2, 2)))
        self.pool = MaxPool((2, 3), (2, 3))
        self.b = Conv(1, 1, (3, 1), padding=((2, 2), (0, 0)), dilation=(2, 1))
        self.c = Conv(1, 1, (1, 3), padding=((0, 0), (1, 1)))
        self.bins = AvgPool((3, 3))

    def __call__(self, x, *, tap=no_tap, ops=EXACT):
        x = tap("a", self.a(x, ops))
        x = tap("pool", self.pool(x, ops))
        y = tap("b", self.b(x, ops))
        z = tap("c", self.c(y, ops))
        x = tap("add", ops.add(z, x))
        return tap("bins", self.bins(x, ops))


def test_receptive_field_is_the_support_of_the_gradient():
    size = (48, 54)
    module = Small()
    for conv in (module.a, module.b, module.c):
        conv.kernel[...] = np.ones(conv.kernel.shape, np.float32)
    model = from_module(module, mean=(0,), std=(1,), input_size=size)
    x = np.random.default_rng(0).uniform(size=(64, *size, 1)).astype(np.float32)
    for layer in model.layers():
        h, w, _ = layer.shape

        def unit(x, row, column, name=layer.name):
            seen = {}
            forward(model.network, x, tap=lambda n, v: seen.setdefault(n, v))
            return seen[name][:, row, column].sum()

        gradient = jax.jit(jax.grad(unit))
        centre, beside = (gradient(x, h // 2, w // 2), gradient(x, h // 2 + 1, w // 2 + 1))
        extent, start = [], []
        for axes in ((0, 2, 3), (0, 1, 3)):
            # Many images, because a max pooling passes the gradient to one pixel of each of its windows only.
            seen, other = (np.flatnonzero(np.abs(g).sum(axes)) for g in (centre, beside))
            extent.append(int(seen[-1] - seen[0] + 1))
            start.append(int(other[0] - seen[0]))
        assert layer.receptive_field[:3] == ReceptiveField(tuple(extent), tuple(start))[:3], layer.name


def test_kinds():
    resnet, vgg = table(network("resnet50")), table(network("vgg11_bn"))
    kinds = {"conv1": "conv", "bn1": "batch_norm", "relu": "relu", "maxpool": "max_pool", "layer1.0.add": "add"}
    kinds |= {"layer2.0.downsample.0": "conv", "avgpool": "avg_pool", "flatten": "flatten", "fc": "linear"}
    assert {name: resnet[name].kind for name in kinds} == kinds
    kinds = {"features.0": "conv", "features.1": "batch_norm", "features.2": "relu", "features.3": "max_pool"}
    kinds |= {"avgpool": "avg_pool", "flatten": "flatten", "classifier.0": "linear", "classifier.2": "dropout"}
    assert {name: vgg[name].kind for name in kinds} == kinds
    assert all(resnet[name].receptive_field.whole for name in ("avgpool", "flatten", "fc"))
    assert resnet["layer2.0.downsample.0"].module == "layer2.0.downsample.0" and resnet["layer2.0.add"].module == "layer2.0"
    assert resnet["relu"].module == ""


@pytest.mark.parametrize("size, shape", [((64, 48), (2, 2, 512)), (97, (4, 4, 512)), ((225, 300), (8, 10, 512))])
def test_shapes_follow_the_size_of_the_images(size, shape):
    assert table(network("resnet18"), size)["layer4"].shape == shape


def test_uneven_average_pooling_sees_its_largest_bin():
    pooled = table(network("vgg16"), 256)["avgpool"]  # 8 x 8 to 7 x 7
    assert pooled.receptive_field.size == (244, 244) and not pooled.receptive_field.whole


def test_it_prints_as_an_aligned_table():
    model = from_module(ResNet("basic", (1, 1, 1, 1)), mean=(0,) * 3, std=(1,) * 3)
    layers = model.layers((64, 32))
    lines = repr(layers).splitlines()
    assert len(lines) == len(layers) + 1 and lines[0].split()[:4] == ["layer", "kind", "shape", "channels"]
    assert lines[1].split() == ["conv1", "conv", "32", "x", "16", "x", "64", "64", "7", "/", "2"]
    assert lines[-1].split()[-1] == "image"
    kind = lines[0].index("kind")
    assert all(line[kind:].startswith(layer.kind) for layer, line in zip(layers, lines[1:], strict=True))
    assert isinstance(layers[:3], LayerTable) and isinstance(layers[0], Layer) and layers["layer1"].name == "layer1.0.relu_1"
    with pytest.raises(LayerError, match="layer1"):
        layers["lair1"]


def test_every_network_has_its_own_name_and_torchvisions_nodes():
    for name in VGGS + RESNETS:
        assert nnx.eval_shape(lambda name=name: network(name)).architecture == name


def test_dilated_stages_keep_the_resolution():
    dilated = ResNet("bottleneck", (1, 1, 1, 1), replace_stride_with_dilation=(False, True, True))
    found = table(dilated, 64)
    assert [found[f"layer{i}"].shape[0] for i in (1, 2, 3, 4)] == [16, 8, 8, 8]
    assert dilated.architecture == "" and dataclasses.is_dataclass(EXACT)
    assert VGG("A").architecture == "vgg11"


def support(model, x, layer, row, column):
    """Return what the unit's gradient, of many images, says that it sees: (top, left, bottom, right)."""

    def unit(x, row, column):
        seen = {}
        forward(model.network, x, tap=lambda n, v: seen.setdefault(n, v))
        return jnp.abs(seen[layer.name][:, row, column]).sum()

    gradient = np.abs(GRADIENTS.setdefault((model.name, layer.name), jax.jit(jax.grad(unit)))(x, row, column)).sum((0, 3))
    rows, columns = np.flatnonzero(gradient.sum(1)), np.flatnonzero(gradient.sum(0))
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


GRADIENTS: dict = {}


@pytest.mark.parametrize("sign", ["positive", "mixed"])
def test_boxes_are_the_support_of_the_gradient(sign):
    size, module, rng = (48, 54), Small(), np.random.default_rng(1)
    for conv in (module.a, module.b, module.c):
        kernel = rng.normal(size=conv.kernel.shape)
        conv.kernel[...] = (np.abs(kernel) + 0.1 if sign == "positive" else kernel).astype(np.float32)
    model = from_module(module, mean=(0,), std=(1,), input_size=size, name=sign)
    x = (rng.uniform(size=(64, *size, 1)) ** 30).astype(np.float32)  # few bright pixels: windows in the padding win, too
    for layer in model.layers():
        h, w, _ = layer.shape
        for row, column in ((0, 0), (0, w - 1), (h // 2, w // 2), (h - 1, 0), (h - 1, w - 1)):
            top, left, bottom, right = layer.receptive_field.box(row, column)
            clipped = (max(top, 0), max(left, 0), min(bottom, size[0]), min(right, size[1]))
            seen = support(model, x, layer, row, column)
            if sign == "positive":  # nothing cancels
                assert seen == clipped, (layer.name, row, column)
            assert seen[0] >= clipped[0] and seen[1] >= clipped[1] and seen[2] <= clipped[2] and seen[3] <= clipped[3]


@pytest.mark.parametrize("size, bins", [(8, 7), (10, 7), (14, 7), (4, 7), (3, 2), (50, 7)])
def test_boxes_of_uneven_bins_hold_every_bin(size, bins):
    class Bins(nnx.Module):
        def __call__(self, x, *, tap=no_tap, ops=EXACT):
            return tap("bins", ops.avg_pool(x, size=(bins, bins)))

    field = from_module(Bins(), mean=(0,), std=(1,), input_size=(size, size)).layers()[0].receptive_field
    for i, (start, stop) in enumerate(adaptive_windows(size, bins)):
        top, left, bottom, right = field.box(i, i)
        assert top == left <= start and bottom == right >= stop
        assert (top, bottom) == (start, stop) or size % bins


def test_units_of_a_classifier_see_the_whole_image():
    found = table(network("resnet18"), (64, 96))
    assert found["fc"].receptive_field.box(0, 0) == (0, 0, 64, 96)
    assert found["conv1"].receptive_field.box(0, 1) == (-3, -1, 4, 6)
