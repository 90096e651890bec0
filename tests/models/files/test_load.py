"""load() by name, by weights and by file; list_models(); verify()."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json

import numpy as np
import pytest

import jaxviz as jv
from jaxviz._errors import ArgumentError, CheckpointError, DownloadError
from jaxviz.models._files import checkpoint as _checkpoint
from jaxviz.models._files import download as _download
from jaxviz.models._files import load as _load
from jaxviz.models._torch import verify as _verify
from jaxviz.models._zoo import registry as _registry
from jaxviz.models._zoo.registry import ARCHITECTURES, BUNDLED
from tests.torch_reference import import_torchvision

CLASSES = ["tench", "English springer", "cassette player", "chain saw", "church"]
CLASSES += ["French horn", "garbage truck", "gas pump", "golf ball", "parachute"]
METADATA = {
    "architecture": "resnet18",
    "class_names": json.dumps(CLASSES),
    "mean": json.dumps([0.4, 0.5, 0.6]),
    "std": json.dumps([0.2, 0.3, 0.25]),
    "size": json.dumps([128, 96]),
}


@functools.cache
def imagenet_tensors() -> dict[str, np.ndarray]:
    """Random weights of a ResNet-18 with torchvision's names, as float16, so that float32 of them is exact."""
    torchvision = import_torchvision()
    state = torchvision.models.resnet18().state_dict()
    return {k: v.half().numpy() if v.is_floating_point() else v.numpy() for k, v in state.items()}


def random_tensors(classes: int = 10, channels: int = 3) -> dict[str, np.ndarray]:
    """The same with other ends."""
    found = dict(imagenet_tensors())
    found["fc.weight"], found["fc.bias"] = found["fc.weight"][:classes], found["fc.bias"][:classes]
    found["conv1.weight"] = found["conv1.weight"][:, :channels]
    return found


def assert_weights(model, tensors) -> None:
    ours = model.state_dict()
    assert ours.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(ours[name], array, name)


@pytest.fixture(scope="module")
def tensors():
    return random_tensors()


@pytest.fixture(scope="module")
def bundle(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / f"{BUNDLED}.safetensors"
    _checkpoint.write(path, tensors, METADATA)
    return path


def test_bundled_network(bundle, tensors, monkeypatch):
    monkeypatch.setattr(_load, "bundled_file", lambda: bundle)
    model = jv.load()
    assert (model.name, model.class_names, model.input_size) == (BUNDLED, tuple(CLASSES), (128, 96))
    np.testing.assert_allclose(model.mean, [0.4, 0.5, 0.6], rtol=1e-6)
    np.testing.assert_allclose(model.std, [0.2, 0.3, 0.25], rtol=1e-6)
    assert model.num_classes == 10
    assert {array.dtype.name for array in model.state_dict().values()} == {"float32", "int64"}
    assert_weights(model, tensors)
    assert jv.load(BUNDLED).class_index("golf ball") == 8


def test_bundled_file_is_looked_for_in_the_checkout_and_in_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(_load.importlib.resources, "files", lambda package: tmp_path / "site" / package)
    with pytest.raises(CheckpointError, match="missing from this installation"):
        _load.bundled_file()
    for folder in ("site/jaxviz/_data", "site/weights"):
        path = tmp_path / folder / f"{BUNDLED}.safetensors"
        path.parent.mkdir(parents=True)
        path.touch()
        assert _load.bundled_file() == path


def test_the_real_bundled_network():
    try:
        _load.bundled_file()
    except CheckpointError:
        pytest.skip("the bundled weights are not in this checkout")
    model = jv.load()
    assert len(model.class_names) == 10 and "church" in model.class_names
    assert model.in_channels == 3
    logits = model(np.random.default_rng(0).random((2, *model.input_size, 3), np.float32))
    assert logits.shape == (2, 10) and np.isfinite(logits).all()


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "nested"])
def test_fine_tuned_file(tmp_path, kind):
    torch = pytest.importorskip("torch")
    tensors = random_tensors(classes=3)
    state = {k: torch.from_numpy(v.copy()) for k, v in tensors.items()}
    path = tmp_path / "mine.pth"
    if kind == "safetensors":
        from safetensors.torch import save_file

        save_file(state, path)
    elif kind == "nested":
        torch.save({"state_dict": {"module." + k: v for k, v in state.items()}, "epoch": 1}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    model = jv.load("resnet18", weights=path, class_names=["a", "b", "c"])
    assert (model.name, model.class_names, model.num_classes) == ("resnet18", ("a", "b", "c"), 3)
    np.testing.assert_allclose(model.mean, _registry.IMAGENET_MEAN, rtol=1e-6)
    assert_weights(model, tensors)
    assert jv.load(str(path)).num_classes == 3  # recognised by its shapes


def test_other_numbers_of_channels(tmp_path):
    path = tmp_path / "grey.safetensors"
    _checkpoint.write(path, random_tensors(classes=2, channels=1), {})
    model = jv.load("resnet18", weights=path)
    assert model.in_channels == 1 and model.class_names == ()
    assert model.num_classes == 2
    assert float(jv.load(path.as_posix(), mean=[0.5], std=[0.25]).mean[0]) == 0.5
    with pytest.raises(ArgumentError, match=r"1 channels.*got 3"):
        jv.load("resnet18", weights=path, mean=[0.5] * 3, std=[0.5] * 3)


def test_save_and_load(bundle, tmp_path):
    model = _load.from_file(bundle)
    path = model.save(tmp_path / "copy.safetensors")
    copy = jv.load(str(path))
    assert (copy.class_names, copy.input_size) == (model.class_names, model.input_size)
    np.testing.assert_array_equal(copy.mean, model.mean)
    for (name, ours), theirs in zip(model.state_dict().items(), copy.state_dict().values(), strict=True):
        np.testing.assert_array_equal(ours, theirs, name)


def test_arguments_win_over_the_file(bundle):
    model = _load.from_file(bundle, class_names=list("abcdefghij"), mean=[0, 0, 0], std=[1, 1, 1])
    assert model.class_names == tuple("abcdefghij") and float(model.mean.sum()) == 0


def test_mistakes(bundle, tmp_path):
    with pytest.raises(ArgumentError, match=r"10 class names.*got 2"):
        _load.from_file(bundle, class_names=["a", "b"])
    with pytest.raises(ArgumentError, match=r"Unknown network 'resnet-18'.*Did you mean 'resnet18'"):
        jv.load("resnet-18")
    with pytest.raises(ArgumentError, match=r"no weights 'IMAGENET1K_V3'.*Did you mean"):
        jv.load("resnet50", weights="IMAGENET1K_V3")
    with pytest.raises(ArgumentError, match="give the network's name first"):
        jv.load(str(bundle), weights="IMAGENET1K_V1")
    with pytest.raises(ArgumentError, match="as a string"):
        jv.load(3)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="no such file"):
        jv.load("resnet18", weights=tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match=r"(?s)They look like resnet18 weights.*missing: layer1\.2\.conv1\.weight"):
        jv.load("resnet34", weights=bundle)


def test_a_file_of_another_network(tmp_path):
    path = tmp_path / "other.safetensors"
    _checkpoint.write(path, {"encoder.weight": np.ones((2, 2), np.float32)}, {})
    with pytest.raises(CheckpointError, match=r"no VGG or ResNet.*from_module"):
        jv.load(str(path))
    with pytest.raises(CheckpointError, match=r"other\.safetensors.*look like no VGG or ResNet"):
        jv.load("vgg11", weights=path)


@pytest.mark.parametrize(
    "change",
    [
        {"class_names": "[1, 2]"},
        {"class_names": "tench"},
        {"mean": '{"a": 1}'},
        {"std": "[0, 1, 1]"},
        {"size": "[128]"},
        {"size": "[" * 10_000},
        {"architecture": "alexnet"},
    ],
)
def test_bad_metadata(tensors, tmp_path, change):
    path = tmp_path / "bad.safetensors"
    _checkpoint.write(path, tensors, {**METADATA, **change})
    with pytest.raises(CheckpointError, match=r"bad\.safetensors: the metadata"):
        jv.load(str(path))


def test_nan_weights_are_refused(tensors, tmp_path):
    path = tmp_path / "nan.safetensors"
    broken = dict(tensors)
    broken["layer3.0.bn1.bias"] = np.full_like(broken["layer3.0.bn1.bias"], np.nan)
    _checkpoint.write(path, broken, METADATA)
    with pytest.raises(CheckpointError, match=r"not finite: layer3\.0\.bn1\.bias has 256 NaN"):
        jv.load(str(path))


# Downloads --------------------------------------------------------------------------------------------------------


def fake_fetch(monkeypatch, tensors):
    asked = []

    def fetch(weights, *, cache=None, progress=None, timeout=30.0):
        asked.append((weights.architecture, weights.name, cache))
        if progress is not None:
            progress(1, 2)
            progress(2, 2)
        return tensors, {}

    monkeypatch.setattr(_download, "fetch", fetch)
    return asked


def test_torchvision_weights_bring_their_names_and_preprocessing(monkeypatch, capsys):
    asked = fake_fetch(monkeypatch, random_tensors(1000))
    seen = []
    model = jv.load("resnet18", cache="somewhere", progress=lambda done, total: seen.append((done, total)))
    assert asked == [("resnet18", "IMAGENET1K_V1", "somewhere")]
    assert seen == [(1, 2), (2, 2)]
    assert model.class_names[217] == "English springer" and model.input_size == (224, 224)
    assert capsys.readouterr() == ("", "")
    jv.load("resnet18", weights="IMAGENET1K_V1", progress=True)
    output = capsys.readouterr()
    assert output.out == "" and "resnet18-f37072fd.pth" in output.err


def test_the_default_is_torchvisions(monkeypatch):
    asked = fake_fetch(monkeypatch, {})
    for options in ({}, {"weights": "DEFAULT"}, {"weights": "IMAGENET1K_V1"}):
        with pytest.raises(CheckpointError, match="missing"):
            jv.load("resnet50", **options)
    assert [name for _, name, _ in asked] == ["IMAGENET1K_V2", "IMAGENET1K_V2", "IMAGENET1K_V1"]


def test_without_a_network_the_error_names_the_bundled_one(monkeypatch, tmp_path):
    monkeypatch.setattr(_registry, "_URL", "http://127.0.0.1:9/")
    with pytest.raises(DownloadError, match=r"jaxviz\.load\('resnet18-imagenette'\)"):
        jv.load("resnet18", cache=tmp_path)


def test_weights_without_a_classifier_have_nan_logits(monkeypatch):
    small = ARCHITECTURES["resnet18"]  # the rule is the same for every network; vgg16 has 500 MB
    features = dataclasses.replace(small.weights[0], name="IMAGENET1K_FEATURES", classes=None)
    monkeypatch.setattr(_load, "_ABSENT", "fc.")
    monkeypatch.setitem(ARCHITECTURES, "resnet18", dataclasses.replace(small, weights=(features,)))
    fake_fetch(monkeypatch, random_tensors(1000))
    model = jv.load("resnet18", weights="IMAGENET1K_FEATURES")
    assert model.class_names == () and model.num_classes == 1000
    state = model.state_dict()
    assert np.isnan(state["fc.weight"]).all() and np.isnan(state["fc.bias"]).all()
    assert all(np.isfinite(array).all() for name, array in state.items() if not name.startswith("fc."))


def test_torchvision_file_brought_by_hand_is_recognised(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    path = tmp_path / "source.pth"
    torch.save({k: torch.from_numpy(np.array(v)) for k, v in random_tensors(1000).items()}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    entry = dataclasses.replace(ARCHITECTURES["resnet18"].weights[0], file=f"resnet18-{digest}.pth", mean=(0.1, 0.2, 0.3))
    monkeypatch.setitem(ARCHITECTURES, "resnet18", dataclasses.replace(ARCHITECTURES["resnet18"], weights=(entry,)))
    path = path.rename(tmp_path / entry.file)
    model = jv.load("resnet18", weights=path)
    assert model.class_names[0] == "tench"
    np.testing.assert_allclose(model.mean, [0.1, 0.2, 0.3], rtol=1e-6)
    renamed = path.rename(tmp_path / "renamed.pth")
    assert jv.load("resnet18", weights=renamed).class_names == ()
    (tmp_path / entry.file).write_bytes(renamed.read_bytes() + b" ")
    with pytest.raises(CheckpointError, match=f"SHA-256 begins with .*not {digest}"):
        jv.load("resnet18", weights=tmp_path / entry.file)


# list_models and verify -------------------------------------------------------------------------------------------


def test_list_models():
    table = jv.list_models()
    assert len(table) == 1 + sum(len(a.weights) for a in ARCHITECTURES.values()) == 27
    assert table[0].bundled and table[0].name == BUNDLED and not any(m.bundled for m in table[1:])
    assert sum(m.default for m in table) == 19
    lines = repr(table).splitlines()
    assert len(lines) == 28 and "resnet50-11ad3fa6.pth" in repr(table)
    assert lines[0].split() == ["name", "weights", "classes", "top-1", "source"]


def test_verify_reports_each_weight(monkeypatch):
    good = {name: array.astype(np.float32) for name, array in imagenet_tensors().items() if array.ndim}
    small = dataclasses.replace(ARCHITECTURES["resnet18"].weights[0], crop=64)
    monkeypatch.setitem(ARCHITECTURES, "resnet18", dataclasses.replace(ARCHITECTURES["resnet18"], weights=(small,)))
    fake_fetch(monkeypatch, good)
    (record,) = _verify.verify("resnet18")
    assert record.ok and record.error is not None and record.error < 1e-4 and record.message == ""
    assert str(record).startswith("ok   resnet18 IMAGENET1K_V1: relative error ")
    (strict,) = _verify.verify("resnet18", tolerance=0.0)
    assert not strict.ok and "differs from torchvision" in str(strict)
    fake_fetch(monkeypatch, {})
    (broken,) = _verify.verify("resnet18")
    assert not broken.ok and broken.error is None and "missing: conv1.weight" in broken.message
    with pytest.raises(ArgumentError, match="Unknown network"):
        _verify.verify("alexnet")


@pytest.mark.network
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_real_weights_equal_torchvision(name):
    import_torchvision()
    for record in jv.models.verify(name):
        assert record.ok, str(record)


def test_progress_bar_stays_silent_for_cached_weights(capsys):
    with _load.Bar("file", True) as callback:
        assert callback is not None
    assert capsys.readouterr() == ("", "")
    with _load.Bar("file", False) as callback:
        assert callback is None
