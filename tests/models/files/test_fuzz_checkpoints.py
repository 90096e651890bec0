"""Seeded fuzz of damaged weight files: a typed error or the exact weights; never a crash, a hang or executed code.

pytestmark = pytest.mark.once

What can be promised depends on the format. A `.pth` zip has a CRC-32 for every record, and the `.safetensors` files that
jaxviz writes carry one of their content: there the weights are exact, or it is an error. The old `.pth` stream and
other people's `.safetensors` have no checksum, so a changed byte in the raw data, or in a stride, makes another valid
file: there the promise is a well-formed result, and as long as only raw data is damaged, that nothing but the
damaged bytes differs. (Downloads are compared as a whole with their SHA-256, whatever the format.)
"""

from __future__ import annotations

import io
import json
import random
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from jaxviz._errors import JaxvizError
from jaxviz.models._files import checkpoint as _checkpoint
from jaxviz.models._files import unpickle as _unpickle
from tests.damage import damage

CANARY = "jaxviz_was_here"
# Instructions to insert: calls of all kinds, references to odd places, lengths that are not there.
FRAGMENTS = [
    f"cos\nsystem\nX\x10\x00\x00\x00touch {CANARY[:10]}\x85R".encode(),
    f"(X\x15\x00\x00\x00touch {CANARY}ios\nsystem\n".encode(),
    b"cbuiltins\nexec\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ccollections\nOrderedDict\n)R",
    b"ctorch\nFloatStorage\n",
    b"\x93",
    b"\x81",
    b"\x92",
    b"\x82\x01",
    b"}q\x00",
    b"h\x00",
    b"r\xff\xff\xff\xff",
    b"j\xff\xff\xff\x7f",
    b"0",
    b"2",
    b"1",
    b"(",
    b"t",
    b"R",
    b"b",
    b"Q",
    b"s",
    b"u",
    b".",
    b"\x8d" + b"\xff" * 8,
    b"\x8b\xff\xff\xff\x7f",
    b"J\xff\xff\xff\xff",
    b"M\xff\xff",
    b"PK\x01\x02",
    b"PK\x03\x04",
    b"PK\x05\x06",
    b'"data_offsets":[0,0]',
    b"[" * 500,
    b'{"a":' * 500,
]


def weights() -> dict[str, np.ndarray]:
    """A little network's weights, every value different."""
    rng = np.random.default_rng(0)
    shapes = {
        "conv1.weight": (4, 3, 3, 3),
        "bn1.weight": (4,),
        "bn1.running_var": (4,),
        "layer1.0.conv1.weight": (4, 4, 1, 1),
        "fc.weight": (5, 4),
        "fc.bias": (5,),
    }
    return {name: rng.permutation(int(np.prod(shape))).reshape(shape).astype(np.float32) for name, shape in shapes.items()}


def zip_file(nested: bool) -> bytes:
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(array) for name, array in weights().items()}
    file = io.BytesIO()
    torch.save({"state_dict": state, "epoch": 3} if nested else state, file)
    return file.getvalue()


def legacy_file() -> bytes:
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    torch.save({n: torch.from_numpy(a) for n, a in weights().items()}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def own_file(folder: Path) -> bytes:
    path = folder / "own.safetensors"
    _checkpoint.write(path, weights(), {"architecture": "resnet18", "mean": json.dumps([0.5, 0.5, 0.5])})
    return path.read_bytes()


def raw_data_start(content: bytes, kind: str) -> int:
    """Where the raw data of a file without a checksum begins."""
    if kind == "safetensors":
        return 8 + struct.unpack("<Q", content[:8])[0]
    file = io.BytesIO(content)
    storages: dict = {}
    for _ in range(4):
        _unpickle.load(file, storages)
    keys = _unpickle.load(file, {})
    assert set(keys) == set(storages)
    return file.tell()


def equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    return found.keys() == expected.keys() and all(
        found[n].dtype == a.dtype and found[n].shape == a.shape and found[n].tobytes() == a.tobytes()
        for n, a in expected.items()
    )


@pytest.mark.parametrize("kind", ["zip", "nested zip", "legacy", "own safetensors", "safetensors"])
@pytest.mark.parametrize("cases", [40, pytest.param(2000, marks=pytest.mark.full)])
def test_damaged_files(kind, cases, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {
        "zip": lambda: zip_file(False),
        "nested zip": lambda: zip_file(True),
        "legacy": legacy_file,
        "own safetensors": lambda: own_file(tmp_path),
        "safetensors": lambda: safetensors.numpy.save(weights()),
    }[kind]()
    checked = kind not in ("legacy", "safetensors")
    start = None if checked else raw_data_start(content, kind)
    path, expected = tmp_path / "damaged", weights()
    path.write_bytes(content)
    assert equal(_checkpoint.read(path)[0], expected)
    outcomes = {"error": 0, "exact": 0, "other": 0}
    for case in range(cases):
        broken = damage(content, random.Random(f"{kind} {case}"), FRAGMENTS)
        path.write_bytes(broken)
        began = time.process_time()
        try:
            found, metadata = _checkpoint.read(path)
        except JaxvizError as error:
            assert str(path) in str(error)
            outcomes["error"] += 1
        except BaseException as error:
            raise AssertionError(f"case {case}: {type(error).__name__}: {error}") from error
        else:
            if equal(found, expected):
                outcomes["exact"] += 1
            else:
                outcomes["other"] += 1
                # The damage may have taken the checksum itself out of a file of ours: then it is a file without one.
                assert not checked or (kind == "own safetensors" and _checkpoint.CRC not in metadata), f"case {case}"
                if start is not None and broken[:start] == content[:start] and len(broken) == len(content):
                    check_only_damaged_bytes_differ(found, expected, content, broken)
                for array in found.values():
                    array.tobytes()  # reads every byte
        assert time.process_time() - began < 10, f"case {case} took too long"
    assert not Path(CANARY).exists() and not Path(CANARY[:10]).exists()
    assert outcomes["error"] > outcomes["exact"] + outcomes["other"] if checked else outcomes["error"]


def check_only_damaged_bytes_differ(found, expected, content: bytes, broken: bytes) -> None:
    assert found.keys() == expected.keys()
    flipped = sum(a != b for a, b in zip(content, broken, strict=True))
    changed = 0
    for name, array in expected.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)
        ours, theirs = (np.frombuffer(x.tobytes(), np.uint8) for x in (found[name], array))
        changed += int((ours != theirs).sum())
    assert 0 < changed <= flipped
