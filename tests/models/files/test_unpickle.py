"""PyTorch's two file formats are read exactly, and nothing in a hostile one is run, imported or believed."""

from __future__ import annotations

import collections
import copyreg
import io
import os
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jaxviz._errors import CheckpointError
from jaxviz.models._files import checkpoint as _checkpoint
from tests.models.files.pickles import Raw, dumped, global_, hostile, legacy, number, storage, tensor, text, tuple_, zipped

FLOATS = ["float64", "float32", "float16", "bfloat16"]
INTEGERS = ["int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64"]
FORMATS = ["zip", "legacy"]


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def saved(torch, tmp_path: Path, value, kind: str, protocol: int = 2) -> Path:
    path = tmp_path / "weights.pth"
    torch.save(value, path, _use_new_zipfile_serialization=kind == "zip", pickle_protocol=protocol)
    return path


def assert_same(torch, arrays, tensors):
    assert list(arrays) == list(tensors)
    for name, expected in tensors.items():
        array, expected = arrays[name], expected.detach()
        assert array.dtype.name == str(expected.dtype).removeprefix("torch.")
        if expected.dtype == torch.bfloat16:
            array, expected = array.astype(np.float32), expected.float()
        np.testing.assert_array_equal(array, expected.numpy())


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_dtype_and_protocol(torch, tmp_path, kind, protocol):
    values = torch.tensor([[0.0, 1.0, 2.0], [3.0, 100.0, 7.0]])
    tensors = {name: values.to(getattr(torch, name)) for name in [*FLOATS, *INTEGERS, "bool"]}
    arrays, metadata = _checkpoint.read(saved(torch, tmp_path, tensors, kind, protocol))
    assert_same(torch, arrays, tensors)
    assert metadata == {}


@pytest.mark.parametrize("kind", FORMATS)
def test_views_shared_storages_and_parameters(torch, tmp_path, kind):
    base = torch.arange(120.0).reshape(4, 5, 6)
    tensors = collections.OrderedDict(
        whole=base,
        transposed=base.permute(2, 0, 1),
        strided=base[1:, ::2, 1::3],
        parameter=torch.nn.Parameter(base[0].clone()),
        tied=base,
        expanded=torch.ones(1).expand(5),
        empty=torch.zeros(0, 3),
        scalar=torch.tensor(3.0),
        channels_last=torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    )
    tensors["flag"] = torch.tensor([True, False])[1:]
    arrays, _ = _checkpoint.read(saved(torch, tmp_path, tensors, kind))
    assert_same(torch, arrays, tensors)
    assert np.shares_memory(arrays["whole"], arrays["tied"])


@pytest.mark.parametrize("kind", FORMATS)
def test_state_dict_of_a_module_with_its_metadata(torch, tmp_path, kind):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state = module.state_dict()
    assert state._metadata  # an attribute of the OrderedDict, which the pickle sets with BUILD
    arrays, _ = _checkpoint.read(saved(torch, tmp_path, state, kind))
    assert_same(torch, arrays, state)


def test_big_endian_zip(torch, tmp_path):
    path = saved(torch, tmp_path, {}, "zip")
    values = {"FloatStorage": np.arange(3, dtype=">f4"), "LongStorage": np.arange(3, dtype=">i8")}
    with zipfile.ZipFile(path, "w") as archive:
        state = {k: Raw(tensor(storage(k, k, 3), shape=(3,))) for k in values}
        archive.writestr("a/data.pkl", dumped(state))
        archive.writestr("a/byteorder", "big")
        for k, v in values.items():
            archive.writestr(f"a/data/{k}", v.tobytes())
    arrays, _ = _checkpoint.read(path)
    for array in arrays.values():
        np.testing.assert_array_equal(array, [0, 1, 2])


def test_python_2_and_storage_views_in_the_legacy_format(tmp_path):
    # OrderedDict from a list of pairs with byte strings, the function without hooks, a view of a storage: PyTorch 0.2.
    viewed = storage("FloatStorage", "7", 6, view=("8", 2, 4))
    old = global_("torch._utils", "_rebuild_tensor") + b"(" + viewed + b"K\x01K\x03\x85K\x01\x85tR"
    state = global_("collections", "OrderedDict") + b"](](U\x01w" + old + b"ee\x85R"
    path = tmp_path / "old.pth"
    path.write_bytes(legacy(b"\x80\x02" + state + b".", {"7": np.arange(6, dtype="<f4").tobytes()}, {"7": 6}))
    arrays, _ = _checkpoint.read(path)
    np.testing.assert_array_equal(arrays["w"], [3, 4, 5])


CANARY = "jaxviz_was_here"
COMMAND = text(f"touch {CANARY}")
SYSTEM = global_("os", "system")
EXECUTE = {
    "GLOBAL REDUCE": SYSTEM + COMMAND + b"\x85R.",
    "posix": global_("posix", "system") + COMMAND + b"\x85R.",
    "STACK_GLOBAL": text("os") + text("system") + b"\x93" + COMMAND + b"\x85R.",
    "STACK_GLOBAL of memo": text("os") + b"\x940" + b"h\x00" + text("system") + b"\x93" + COMMAND + b"\x85R.",
    "INST": b"(" + COMMAND + b"ios\nsystem\n.",
    "OBJ": b"(" + SYSTEM + COMMAND + b"o.",
    "NEWOBJ": global_("subprocess", "Popen") + COMMAND + b"\x85\x81.",
    "NEWOBJ_EX": global_("subprocess", "Popen") + COMMAND + b"\x85}\x92.",
    "EXT1": b"\x82\xf0" + COMMAND + b"\x85R.",
    "EXT2": b"\x83\xf0\x00" + COMMAND + b"\x85R.",
    "EXT4": b"\x84\xf0\x00\x00\x00" + COMMAND + b"\x85R.",
    "getattr chain": global_("builtins", "getattr") + global_("collections", "OrderedDict") + text("fromkeys") + b"\x86R.",
    "eval": global_("builtins", "eval") + text("__import__('os').system('touch " + CANARY + "')") + b"\x85R.",
    "python 2 names": global_("__builtin__", "eval") + text("1") + b"\x85R.",
    "dotted name": text("collections") + text("OrderedDict.fromkeys") + b"\x93" + b"(t\x85R.",
    "dotted module": text("torch._utils") + text("_rebuild_tensor.__globals__") + b"\x93.",
    "lookalike": global_("torch.serialization", "load") + COMMAND + b"\x85R.",
    "lookalike 2": global_("torch._utils", "_import_dotted_name") + text("os.system") + b"\x85R.",
    "torch.load": global_("torch", "load") + COMMAND + b"\x85R.",
    "storage called": global_("torch", "FloatStorage") + COMMAND + b"\x85R.",
    "BUILD with state": global_("collections", "OrderedDict") + b")R}" + text("__class__") + SYSTEM + b"sb.",
    "BUILD of slots": global_("torch._utils", "_rebuild_tensor_v2") + b"N}" + text("__code__") + b"Ns\x86b.",
    "persistent id": text("os.system") + b"Q.",
    "PERSID": b"Pos.system\n.",
    "module container": tuple_(text("module"), SYSTEM, text("a"), text("b")) + b"Q.",
    "whole module": global_("torchvision.models.resnet", "ResNet") + b")\x81.",
    "set": b"\x8f(K\x01\x90.",
    "buffer": b"\x97.",
    "bytearray": b"\x96\x01\x00\x00\x00\x00\x00\x00\x00a.",
    "unicode trick": text("\uff4fs") + text("system") + b"\x93" + COMMAND + b"\x85R.",
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", EXECUTE)
def test_nothing_is_executed(tmp_path, monkeypatch, name, kind):
    monkeypatch.chdir(tmp_path)
    if name.startswith("EXT"):
        copyreg.add_extension("os", "system", 0xF0)
    try:
        path = hostile(tmp_path, b"\x80\x04" + EXECUTE[name], kind)
        with pytest.raises(CheckpointError, match=r"hostile\.pth: ") as caught:
            _checkpoint.read(path)
    finally:
        if name.startswith("EXT"):
            copyreg.remove_extension("os", "system", 0xF0)
    assert "damaged" not in str(caught.value)  # refused on purpose, not by luck
    assert not Path(CANARY).exists()


def test_refusal_names_the_global_and_the_way_out(tmp_path):
    with pytest.raises(CheckpointError, match=r"refused global 'os\.system'.*state_dict\(\)"):
        _checkpoint.read(hostile(tmp_path, b"\x80\x02" + EXECUTE["GLOBAL REDUCE"], "zip"))


def test_a_pickled_module_of_torch_is_refused(torch, tmp_path):
    with pytest.raises(CheckpointError, match=r"torch\.nn\.modules\.linear\.Linear.*save only the weights"):
        _checkpoint.read(saved(torch, tmp_path, torch.nn.Linear(2, 2), "zip"))


def test_a_torchscript_archive_is_named(tmp_path):
    path = tmp_path / "script.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("script/data.pkl", b"\x80\x02N.")
        archive.writestr("script/constants.pkl", b"\x80\x02).")
    with pytest.raises(CheckpointError, match="TorchScript"):
        _checkpoint.read(path)


FLOAT = storage("FloatStorage", "0", 2)
OUTSIDE = {
    "offset": tensor(FLOAT, 1),
    "offset beyond": tensor(FLOAT, 2**61),
    "negative offset": tensor(FLOAT, -1),
    "negative size": tensor(FLOAT, 0, (-1,)),
    "negative stride": tensor(FLOAT, 1, (2,), (-1,)),
    "stride": tensor(FLOAT, 0, (2,), (2,)),
    "overflowing stride": tensor(FLOAT, 0, (3,), (2**63,)),
    "wrapping stride": tensor(FLOAT, 0, (3,), (2**61,)),
    "overflowing size": tensor(FLOAT, 0, (2**32, 2**32), (0, 0)),
    "huge without memory": tensor(FLOAT, 0, (2**40,), (0,)),
    "many axes": tensor(FLOAT, 0, (1,) * 33),
    "strides missing": tensor(FLOAT, 0, (2,), ()),
    "bool as size": global_("torch._utils", "_rebuild_tensor") + tuple_(FLOAT, number(0), b"\x88\x85", b"K\x01\x85") + b"R",
    "text as size": global_("torch._utils", "_rebuild_tensor") + tuple_(FLOAT, number(0), text("a"), text("b")) + b"R",
    "no storage": global_("torch._utils", "_rebuild_tensor") + tuple_(b"N", number(0), b"K\x01\x85", b"K\x01\x85") + b"R",
    "storage larger than file": tensor(storage("FloatStorage", "0", 2**40)),
    "storage smaller than file": tensor(storage("FloatStorage", "0", 1), 0, (1,)),
    "negative storage": tensor(storage("FloatStorage", "0", -2)),
    "unknown storage key": tensor(storage("FloatStorage", "../../etc/passwd", 2)),
    "same key twice": tensor(FLOAT) + b"0" + tensor(storage("IntStorage", "0", 2)),
    "view beyond": tensor(storage("FloatStorage", "0", 2, ("1", 1, 2))),
    "conjugated": global_("torch._utils", "_rebuild_tensor_v2")
    + tuple_(FLOAT, number(0), b"K\x02\x85", b"K\x01\x85", b"\x89", b"N", b"}" + text("neg") + b"\x88s")
    + b"R",
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", OUTSIDE)
def test_nothing_outside_a_storage_is_read(tmp_path, name, kind):
    path = hostile(tmp_path, dumped({"w": Raw(OUTSIDE[name])}), kind)
    with pytest.raises(CheckpointError, match=r"hostile\.pth: ") as caught:
        _checkpoint.read(path)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_control_of_the_two_tests_above_is_read(tmp_path, kind):
    data = np.array([1, 2], "<f4").tobytes()
    arrays, _ = _checkpoint.read(hostile(tmp_path, dumped({"w": Raw(tensor(FLOAT))}), kind, data))
    np.testing.assert_array_equal(arrays["w"], [1, 2])


def laughs(depth: int) -> bytes:
    """A tuple of two tuples of two tuples ...: small to write, but hashing it takes 2**depth steps."""
    return b")" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(depth))


BOMBS = {
    "memo": b"\x80\x02Nr\xff\xff\xff\xff.",
    "string": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"a.",
    "string of a gigabyte": b"\x80\x02X" + struct.pack("<I", 2**30) + b"a.",
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"a.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
    "number": b"\x80\x02\x8b" + struct.pack("<i", 2**26) + bytes(2**10) + b".",
    "deep lists": b"\x80\x02" + b"](" * 90_000 + b"e" * 90_000 + b".",
    "deep tuples": b"\x80\x02)" + b"\x85" * 250_000 + b".",
    "flood": b"\x80\x02" + b"N0" * 500_000 + b"}.",
    "marks": b"\x80\x02" + b"(" * 1_000_000 + b".",
    "hash of a nested tuple": b"\x80\x02}" + laughs(200) + b"Ns.",
    "OrderedDict of one list again and again": b"\x80\x02]("
    + b"K\x01" * 50_000
    + b"e\x85q\x00"
    + global_("collections", "OrderedDict")
    + b"q\x01"
    + b"h\x01h\x00R0" * 50_000
    + b".",
    "endless line": b"\x80\x02c" + b"a" * 5_000_000,
    "itself": b"\x80\x02]q\x00h\x00a.",
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_fizzle(tmp_path, name, kind):
    resource = pytest.importorskip("resource")
    path = hostile(tmp_path, BOMBS[name], kind)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(CheckpointError):
        _checkpoint.read(path)
    assert time.process_time() - started < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB, so 1 GiB


def test_compressed_archives_are_refused(tmp_path):
    main = dumped({"w": Raw(tensor(storage("FloatStorage", "0", 2**20)))})
    path = zipped(tmp_path / "bomb.pth", main, {"0": bytes(2**22)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="compressed"):
        _checkpoint.read(path)


def test_records_that_contain_each_other_are_refused(tmp_path):
    # Each record is the rest of the archive from its own header on: reading all of them takes the square of its size.
    count, body, infos = 30, bytes(1000), []
    for i in reversed(range(count)):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(f"a/data/{i}", body)
            infos.append(archive.infolist()[0])
        body = file.getvalue()[: archive.start_dir]  # the local header and what follows, without the directory
    path = tmp_path / "nested.pth"
    state = {}
    with zipfile.ZipFile(path, "w") as archive:
        for info in reversed(infos):
            key = info.filename.removeprefix("a/data/")
            state[key] = Raw(tensor(storage("ByteStorage", key, info.file_size), shape=(info.file_size,)))
        archive.fp.write(body)
        at = 0
        for info in reversed(infos):
            info.header_offset = at
            at += 30 + len(info.filename)
            archive.filelist.append(info)
            archive.NameToInfo[info.filename] = info
        archive.start_dir = len(body)
        archive.writestr("a/data.pkl", dumped(state))
    with zipfile.ZipFile(path) as archive:  # the control: as far as zipfile is concerned, a proper archive
        assert len(archive.namelist()) == count + 1
    with pytest.raises(CheckpointError, match=r"overlap|Overlap"):
        _checkpoint.read(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(CheckpointError, match="not a regular file"):
        _checkpoint.read(tmp_path / "pipe.pth")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_odd_archives_are_refused(tmp_path):
    good = dumped({"w": Raw(tensor(FLOAT))})
    path = tmp_path / "odd.pth"
    for names, reason in [
        (["a/data.pkl", "a/data/0", "a/data/0"], "twice"),
        (["a/data.pkl", "b/data.pkl", "a/data/0"], "2 records are called data.pkl"),
        (["a/data/0"], "not of PyTorch"),
        (["a/data.pkl"], "no record 'data/0'"),
    ]:
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, good if name.endswith("pkl") else bytes(8))
        with pytest.raises(CheckpointError, match=reason):
            _checkpoint.read(path)


def test_crc_of_the_archive_is_checked(tmp_path):
    path = hostile(tmp_path, dumped({"w": Raw(tensor(FLOAT))}), "zip", b"weights!")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"weights!", b"weightz!"))
    with pytest.raises(CheckpointError, match="CRC"):
        _checkpoint.read(path)


@pytest.mark.parametrize("kind", FORMATS)
def test_truncation(torch, tmp_path, kind):
    path = saved(torch, tmp_path, {"w": torch.arange(4.0), "b": torch.arange(2.0)}, kind)
    content = path.read_bytes()
    for length in range(0, len(content), 7 if kind == "zip" else 2):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            _checkpoint.read(path)


def test_reading_needs_no_torch(tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None\n"  # any import of torch now fails
        "from jaxviz.models._files import checkpoint as _checkpoint\n"
        f"print(sorted(_checkpoint.read({os.fspath(tmp_path / 'weights.pth')!r})[0]))"
    )
    torch = pytest.importorskip("torch")
    saved(torch, tmp_path, {"w": torch.zeros(2)}, "legacy")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.stdout.strip() == "['w']", result.stderr
