"""Weight files to network state: what fits is exact, what does not is one error that lists everything."""

from __future__ import annotations

import json
import struct

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from jaxviz._errors import CheckpointError
from jaxviz.models._files import checkpoint as _checkpoint
from jaxviz.models._zoo import registry as _registry
from jaxviz.models._zoo.layers import BatchNorm, Conv, Linear
from tests.torch_reference import import_torchvision

rng = np.random.default_rng(0)


class Net(nnx.Module):
    def __init__(self, classes: int = 5):
        rngs = nnx.Rngs(0)
        self.conv1 = Conv(3, 4, (3, 2), use_bias=True, rngs=rngs)
        self.layer1 = nnx.List([BatchNorm(4)])
        self.fc = Linear(4, classes, rngs=rngs)


SHAPES = {
    "conv1.weight": (4, 3, 3, 2),
    "conv1.bias": (4,),
    "layer1.0.weight": (4,),
    "layer1.0.bias": (4,),
    "layer1.0.running_mean": (4,),
    "layer1.0.running_var": (4,),
    "fc.weight": (5, 4),
    "fc.bias": (5,),
}


def tensors(dtype=np.float32) -> dict[str, np.ndarray]:
    found = {name: rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}
    return {**found, "layer1.0.num_batches_tracked": np.array(7)}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_layouts_and_dtypes(dtype):
    given = tensors(dtype)
    graphdef, state = _checkpoint.to_state(Net, given)
    net = nnx.merge(graphdef, state)
    expected = {name: array.astype(np.float32) for name, array in given.items()}
    np.testing.assert_array_equal(net.conv1.kernel[...], expected["conv1.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(net.fc.kernel[...], expected["fc.weight"].T)
    np.testing.assert_array_equal(net.layer1[0].var[...], expected["layer1.0.running_var"])
    np.testing.assert_array_equal(net.layer1[0].scale[...], expected["layer1.0.weight"])
    assert {leaf[...].dtype for _, leaf in nnx.to_flat_state(state)} == {jnp.dtype("float32")}


def test_every_mismatch_is_in_one_error():
    given = tensors()
    del given["conv1.bias"], given["layer1.0.running_var"]
    given["fc.weight"] = given["fc.weight"].T
    given["fc.bias"][1:3] = np.nan, np.inf
    given["layer1.0.bias"] = np.arange(4)
    given["conv9.weight"] = np.zeros((1, 2), np.float32)
    with pytest.raises(CheckpointError) as caught:
        _checkpoint.to_state(Net, given)
    message = str(caught.value)
    for part in [
        "6 mismatches",
        "missing: conv1.bias (4,)",
        "missing: layer1.0.running_var (4,)",
        "wrong shape: fc.weight is (4, 5), the network needs (5, 4)",
        "not finite: fc.bias has 2 NaN or infinite values of 5",
        "not floating point: layer1.0.bias is int64",
        "unused: conv9.weight (1, 2)",
    ]:
        assert part in message
    assert "num_batches_tracked" not in message


def test_float64_beyond_float32_is_not_finite():
    given = tensors(np.float64)
    given["conv1.bias"][0] = 1e300
    with pytest.raises(CheckpointError, match=r"not finite: conv1\.bias"):
        _checkpoint.to_state(Net, given)


def test_a_part_known_to_be_absent_becomes_nan():
    given = {name: array for name, array in tensors().items() if not name.startswith("fc.")}
    graphdef, state = _checkpoint.to_state(Net, given, absent="fc.")
    net = nnx.merge(graphdef, state)
    assert np.isnan(net.fc.kernel[...]).all() and np.isfinite(net.conv1.kernel[...]).all()


def test_every_architecture_is_recognised_by_its_shapes(monkeypatch):
    tv = import_torchvision()
    import torch

    for name in ("kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_", "constant_", "ones_", "zeros_"):
        monkeypatch.setattr(torch.nn.init, name, lambda *args, **kwargs: None)  # only the shapes matter
    for name in _registry.ARCHITECTURES:
        shapes = {k: tuple(v.shape) for k, v in tv.models.get_model(name, num_classes=7).state_dict().items()}
        zeros = {k: np.broadcast_to(np.float32(0), shape) for k, shape in shapes.items()}
        assert _checkpoint.guess(zeros) == name
    assert _checkpoint.guess({"a": np.zeros(3)}) is None
    assert _checkpoint.guess({"layer1.0.conv1.weight": np.zeros((4, 4, 1, 1))}) is None


# Files ------------------------------------------------------------------------------------------------------------


def test_write_and_read(tmp_path):
    path = tmp_path / "w.safetensors"
    base = rng.normal(size=(4, 6, 5, 3)).astype(np.float32)
    arrays = {
        "transposed": base.transpose(3, 1, 0, 2),
        "strided": base[::2, 1:4],
        "fortran": np.asfortranarray(base[0]),
        "half": base.astype(np.float16).T,
        "bfloat16": base.astype(ml_dtypes.bfloat16).T,
        "scalar": np.array(3, np.int64),
        "empty": np.zeros((0, 3), np.float32),
        "flags": np.array([True, False]),
    }
    _checkpoint.write(path, arrays, {"architecture": "net"})
    found, metadata = _checkpoint.read(path)
    assert metadata["architecture"] == "net"
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name].astype(np.float64), array.astype(np.float64))
    assert list(tmp_path.iterdir()) == [path]


def test_our_files_notice_one_changed_bit_of_data_or_metadata(tmp_path):
    path = tmp_path / "w.safetensors"
    _checkpoint.write(path, {"w": np.arange(8, dtype=np.float32)}, {"mean": "[0.485]"})
    content = path.read_bytes()
    for old, new in [(content[-1:], bytes([content[-1] ^ 1])), (b"0.485", b"0.785")]:
        head, _, tail = content.rpartition(old)
        path.write_bytes(head + new + tail)
        with pytest.raises(CheckpointError, match="checksum"):
            _checkpoint.read(path)


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    _checkpoint.write(path, {"w": np.ones(2, np.float32)}, {})

    def full(arrays, file, metadata):
        file.write_bytes(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(OSError, match="disk full"):
        _checkpoint.write(path, {"w": np.zeros(2, np.float32)}, {})
    assert list(tmp_path.iterdir()) == [path]
    assert _checkpoint.read(path)[0]["w"].sum() == 2


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_training_checkpoints_are_unwrapped(tmp_path, key, prefix):
    torch = pytest.importorskip("torch")
    state = {prefix + name: torch.from_numpy(np.array(array)) for name, array in tensors().items()}
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(3))])
    path = tmp_path / "checkpoint.pth.tar"
    torch.save({"epoch": 3, "best": 0.5, "arch": "net", key: state, "optimizer": optimizer.state_dict()}, path)
    found, _ = _checkpoint.read(path)
    assert set(found) == {*SHAPES, "layer1.0.num_batches_tracked"}


def test_safetensors_under_another_name_and_with_prefix(tmp_path):
    path = tmp_path / "weights.pth"
    safetensors.numpy.save_file({"module.a": np.ones(2, np.float32), "module.b": np.ones(2, np.float32)}, path)
    assert set(_checkpoint.read(path)[0]) == {"a", "b"}


def test_what_is_not_a_state_dict(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "w.pth"
    for value, reason in [
        (torch.zeros(3), "holds a tensor, not a state dict"),
        ([torch.zeros(3)], "holds a list"),
        ({}, "no state dict; its entries are: none"),
        ({"epoch": 3, "loss": 0.1}, "no state dict; its entries are: 'epoch', 'loss'"),
        ({"w": torch.zeros(3), "note": "hello"}, "not tensors: 'note'"),
        ({0: torch.zeros(3), "w": torch.zeros(3)}, "not tensors: 0"),
    ]:
        torch.save(value, path)
        with pytest.raises(CheckpointError, match=reason):
            _checkpoint.read(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"\n <!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\x1f\x8b\x08" + bytes(100), "unpack it first"),
        (bytes(257) + b"ustar" + bytes(250), "before version 0.1.10"),
        (b"just text", "begins with b'just tex'"),
        (b"PK\x03\x04" + bytes(100), "damaged or cut off"),
        (b"\x80\x02K\x01.", "damaged|ends without|cut off"),
        (b"\x80\x02K\x01." * 5, "not one of torch.save"),
    ],
)
def test_other_files(tmp_path, content, reason):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=reason) as caught:
        _checkpoint.read(path)
    assert str(path) in str(caught.value)


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        _checkpoint.read(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="folder"):
        _checkpoint.read(tmp_path)


def header(text: str | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    body = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(body) if length is None else length) + body + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


HEADERS = {
    "longer than the file": header("{}", length=1000),
    "absurdly long": header("{}", length=2**40 - 1),
    "not JSON": header("{nonsense}"),
    "not UTF-8": header(b'{"\xff": 1}'),
    "deep": header('{"a":' * 100_000),
    "deep lists": header('{"a":' + "[" * 100_000),
    "many keys": header("{" + ",".join(f'"{i}":1' for i in range(100_000)) + "}"),
    "offsets beyond": header(json.dumps({"w": entry(offsets=(0, 16), shape=(4,))}), bytes(8)),
    "offsets reversed": header(json.dumps({"w": entry(offsets=(8, 0))}), bytes(8)),
    "offsets negative": header(json.dumps({"w": entry(offsets=(-8, 0))}), bytes(8)),
    "offsets overlapping": header(json.dumps({"a": entry(), "b": entry(offsets=(4, 12))}), bytes(12)),
    "hole": header(json.dumps({"w": entry(offsets=(4, 12))}), bytes(12)),
    "trailing data": header(json.dumps({"w": entry()}), bytes(12)),
    "shape overflow": header(json.dumps({"w": entry(shape=(2**62, 8))}), bytes(8)),
    "shape too large": header(json.dumps({"w": entry(shape=(3,))}), bytes(8)),
    "shape negative": header(json.dumps({"w": entry(shape=(-2,))}), bytes(8)),
    "unknown dtype": header(json.dumps({"w": entry(dtype="X99")}), bytes(8)),
    "dtype numpy lacks": header(json.dumps({"w": entry(dtype="F8_E8M0", shape=(8,))}), bytes(8)),
    "metadata of lists": header(json.dumps({"__metadata__": {"a": [1]}, "w": entry()}), bytes(8)),
}


@pytest.mark.parametrize("name", HEADERS)
def test_safetensors_headers_that_lie(tmp_path, name):
    path = tmp_path / "w.safetensors"
    path.write_bytes(HEADERS[name])
    with pytest.raises(CheckpointError):
        _checkpoint.read(path)


def test_the_control_of_the_test_above_is_read(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(header(json.dumps({"__metadata__": {"a": "b"}, "w": entry()}), bytes(8)))
    found, metadata = _checkpoint.read(path)
    assert found["w"].tolist() == [0, 0] and metadata == {"a": "b"}
