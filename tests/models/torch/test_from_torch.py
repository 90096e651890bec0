"""Networks in memory: what comes across, what is refused, and the way back into torchvision."""

from __future__ import annotations

import numpy as np
import pytest
from flax import nnx

from jaxviz import ArgumentError, CheckpointError, UnsupportedError
from jaxviz.models import from_torch
from jaxviz.models._torch import from_torch as module_under_test
from tests.models import reference
from tests.models.reference import RESNETS, VGGS, assert_close, others_in_full, randomise
from tests.torch_reference import import_torchvision

torch = pytest.importorskip("torch")
nn = torch.nn


def small_resnet(block="BasicBlock", layers=(1, 1, 1, 1), **options):
    resnet = import_torchvision().models.resnet
    return randomise(resnet.ResNet(getattr(resnet, block), list(layers), num_classes=10, **options))


def small_vgg(*extra):
    vgg = import_torchvision().models.vgg
    features = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(True), nn.MaxPool2d(2, 2), nn.Conv2d(8, 512, 3), *extra
    )
    module = vgg.VGG(features, init_weights=False)
    module.classifier = nn.Sequential(nn.Linear(25088, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 10))
    return randomise(module)


def logits(module, x):
    with torch.no_grad():
        mean, std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in (reference.MEAN, reference.STD))
        return module((torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) - mean) / std).numpy()


@pytest.mark.parametrize("name", others_in_full([*VGGS, *RESNETS], "vgg13_bn", "resnet18", "resnet50", "wide_resnet50_2"))
def test_every_network_is_read_as_the_one_we_build(name):
    """Strides, padding, dilation, groups, epsilons and shapes read from torchvision equal those of our constructor."""
    torchvision = import_torchvision()
    with torch.device("meta"):
        module = getattr(torchvision.models, name)(num_classes=7)
    problems = []
    read = nnx.eval_shape(lambda: module_under_test._Reader(problems).build(module, "vgg" if "vgg" in name else "resnet"))
    assert not problems and read.architecture == name
    assert module_under_test._plan(read, "") == module_under_test._plan(nnx.eval_shape(lambda: reference.network(name, 7)), "")


def frozen(channels):
    from torchvision.ops.misc import FrozenBatchNorm2d

    return FrozenBatchNorm2d(channels, eps=1e-3)


def small_stem():
    module = small_resnet()
    module.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=True)
    module.maxpool = nn.Identity()
    return randomise(module)


def feature_extractor():
    module = small_resnet()
    module.fc = nn.Identity()
    return module


VARIANTS = {
    "plain": small_resnet,
    "dilated": lambda: small_resnet("Bottleneck", replace_stride_with_dilation=[False, True, True]),
    "groups": lambda: small_resnet("Bottleneck", groups=4, width_per_group=8),
    "frozen batch norm": lambda: small_resnet(norm_layer=frozen),
    "small stem": small_stem,
    "no head": feature_extractor,
    "vgg of one's own": small_vgg,
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_come_across(variant):
    module = VARIANTS[variant]()
    was = {key: value.clone() for key, value in module.state_dict().items()}
    module.train()
    model = from_torch(module, input_size=(64, 64))
    assert module.training and all(torch.equal(was[key], value) for key, value in module.state_dict().items())
    x = reference.images(1, 65, 48, 3)
    assert_close(model(x), logits(module.eval(), x), variant)
    other = VARIANTS[variant]()  # the way back, weights put somewhere else first
    for parameter in other.parameters():
        parameter.data.zero_()
    other.load_state_dict(model.state_dict("torch"), strict=True)
    np.testing.assert_array_equal(logits(other.eval(), x), logits(module, x))


def test_resnet18_has_its_name_and_goes_back():
    module = reference.torch_network("resnet18", num_classes=10)
    model = from_torch(module)
    assert model.name == "resnet18" and model.module().architecture == "resnet18"
    theirs, ours = module.state_dict(), model.state_dict()
    assert set(theirs) == set(ours)
    for key, value in theirs.items():
        if "num_batches" not in key:
            np.testing.assert_array_equal(ours[key], value.numpy())
            assert ours[key].flags.c_contiguous
    import_torchvision().models.resnet18(num_classes=10).load_state_dict(model.state_dict(tensors="torch"), strict=True)


def replaced(path, part):
    module = small_resnet()
    owner, _, name = path.rpartition(".")
    setattr(module.get_submodule(owner), name, part)
    return module


def hooked():
    module = small_resnet()
    module.layer1.register_forward_hook(lambda *args: None)
    return module


def own_forward():
    resnet = import_torchvision().models.resnet

    class Mine(resnet.ResNet):
        def forward(self, x):
            return super().forward(x) * 2

    return Mine(resnet.BasicBlock, [1, 1, 1, 1])


def weight_normed():
    module = small_resnet()
    nn.utils.parametrizations.weight_norm(module.conv1)
    return module


REFUSED = {
    "group norm": (lambda: small_resnet(norm_layer=lambda c: nn.GroupNorm(2, c)), r"bn1: expected .*got GroupNorm"),
    "instance norm": (lambda: small_resnet(norm_layer=nn.InstanceNorm2d), r"layer4\.0\.downsample\.1: .*InstanceNorm"),
    "untracked": (lambda: replaced("bn1", nn.BatchNorm2d(64, track_running_stats=False)), "running statistics"),
    "another activation": (lambda: replaced("layer2.0.relu", nn.GELU()), r"layer2\.0\.relu: expected ReLU; got GELU"),
    "head of two layers": (
        lambda: replaced("fc", nn.Sequential(nn.Dropout(), nn.Linear(512, 3))),
        r"fc: expected Linear or Identity; got Sequential",
    ),
    "reflected border": (
        lambda: replaced("conv1", nn.Conv2d(3, 64, 7, stride=2, padding=3, padding_mode="reflect")),
        "conv1: .*of zeros",
    ),
    "ceil mode": (lambda: replaced("maxpool", nn.MaxPool2d(3, 2, 1, ceil_mode=True)), "maxpool: .*ceil_mode"),
    "extra layer": (lambda: replaced("extra", nn.Linear(2, 2)), "extra: is not in torchvision's network"),
    "extra in a block": (lambda: replaced("layer1.0.se", nn.Identity()), r"layer1\.0\.se: expected nothing"),
    "hook": (hooked, "layer1: has forward hooks"),
    "forward of its own": (own_forward, "has its own forward"),
    "parametrised": (weight_normed, "conv1: expected Conv2d"),
    "average pooling in vgg": (lambda: small_vgg(nn.AvgPool2d(2)), r"features\.5: .*AvgPool2d"),
    "another class": (lambda: nn.Linear(3, 3), r"got torch\.nn\.modules\.linear\.Linear"),
    "not a module": (lambda: "resnet18", "got builtins.str"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_come_across_is_refused(case):
    make, said = REFUSED[case]
    with pytest.raises(UnsupportedError, match=f"(?s){said}"):
        from_torch(make())


def test_one_error_lists_everything():
    module = replaced("relu", nn.SiLU())
    module.avgpool = nn.AdaptiveMaxPool2d(1)
    module.layer3[0].bn2 = nn.LocalResponseNorm(2)
    with pytest.raises(UnsupportedError) as error:
        from_torch(module)
    assert all(path in str(error.value) for path in ("\n  relu: ", "\n  avgpool: ", "\n  layer3.0.bn2: "))


def test_a_difference_is_reported_node_by_node(monkeypatch):
    module = small_resnet()
    read = module_under_test._Reader._batchnorm2d

    def wrong(self, path, part):
        layer = read(self, path, part)
        layer.epsilon = 1e-2 if path == "layer2.0.bn2" else layer.epsilon
        return layer

    monkeypatch.setattr(module_under_test._Reader, "_batchnorm2d", wrong)
    with pytest.raises(UnsupportedError, match="does not compute what the torch module computes") as error:
        from_torch(module)
    marked = [line.split()[0] for line in str(error.value).splitlines() if line.endswith("<--")]
    assert marked[0] == "layer2.0.bn2" and "layer2.0.conv2" not in marked and marked[-1] == "fc"


def test_nan_and_wrong_preprocessing():
    module = small_resnet()
    with pytest.raises(ArgumentError, match=r"3 channels.*got 1"):
        from_torch(module, mean=(0.5,), std=(0.5,))
    with pytest.raises(ArgumentError, match=r"10 class names.*got 2"):
        from_torch(module, class_names=("a", "b"))
    with torch.no_grad():
        module.layer1[0].conv1.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(CheckpointError, match=r"layer1\.0\.conv1\.weight"):
        from_torch(module)
