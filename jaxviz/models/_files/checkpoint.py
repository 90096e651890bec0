"""Weight files of every kind to the state of a network, by rule; everything that does not fit in one error."""

from __future__ import annotations

import contextlib
import re
import uuid
import zlib
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from jaxviz._errors import CheckpointError
from jaxviz._types import StrPath
from jaxviz.models._files import torch_file as _pth
from jaxviz.models._files.pickle_allowlist import TensorRef
from jaxviz.models._zoo import registry as _registry
from jaxviz.models._zoo.layers import LEAF, from_torch_layout

_NESTED = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
_PREFIXES = ("module.", "_orig_mod.", "model.")  # DataParallel, torch.compile, Lightning
_IGNORED = "num_batches_tracked"  # counts training steps, of no use afterwards
CRC = "crc32"  # key of the metadata


def read(path: StrPath) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read the tensors of a `.pth`, `.pt` or `.safetensors` file; the content decides which, not the name.

    No torch is needed and no code in the file is run. Checkpoints that hold the weights under `"state_dict"`,
    `"model"` or the like are unwrapped; a prefix such as `"module."` on all names is taken off.

    Args:
        path: the file.

    Returns:
        The arrays by name, in the file's layout and dtype, and the file's metadata (`.safetensors` only, else empty).
        Arrays may be read-only and share memory.

    Raises:
        CheckpointError: the file is missing, damaged, unsafe, or no weight file; says what to do next.
    """
    path = Path(path)
    with _errors_of(path):
        kind = _sniff(path)
        if kind == "safetensors":
            tensors, metadata = _read_safetensors(path)
        elif kind == "zip":
            tensors, metadata = _pth.read_zip(path, _select), {}
        else:
            tensors, metadata = _pth.read_legacy(path, _select), {}
        return _without_prefix(tensors), metadata


def write(path: StrPath, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write a `.safetensors` file that `read` checks against a checksum; the file appears whole or not at all.

    Args:
        path: the file; its folder exists.
        tensors: arrays of any layout in memory.
        metadata: strings that `read` gives back (with a `"crc32"` of the data added).
    """
    path = Path(path)
    # safetensors 0.8.0 writes arrays that are not C-contiguous wrongly and without an error, so never give it one.
    arrays = {name: np.ascontiguousarray(array).reshape(np.shape(array)) for name, array in tensors.items()}
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        safetensors.numpy.save_file(arrays, temporary, {**metadata, CRC: _checksum(arrays, metadata)})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def to_state(
    make: Callable[[], nnx.Module], tensors: Mapping[str, np.ndarray], *, absent: str | None = None
) -> tuple[Any, nnx.State[Any, Any]]:
    """Put tensors with torchvision's names and layouts into a network whose attribute paths equal those names.

    Args:
        make: builds the network; only its shapes are computed, nothing is initialized.
        tensors: arrays (convolutions OIHW, linear (out, in)); float16, bfloat16 and float64 become float32.
        absent: prefix of a part that the weights are known to lack; it is filled with NaN, so that nobody mistakes what
            it computes for a result.

    Returns:
        `(graphdef, state)` as of `nnx.split`, all weights float32.

    Raises:
        CheckpointError: one message that lists every missing, unused and misshapen tensor and every one with NaN or
            infinite values, and names the network that would fit, where there is one.
    """
    graphdef, abstract = nnx.split(nnx.eval_shape(make))
    unused = {name for name in tensors if name.rpartition(".")[2] != _IGNORED}
    problems: list[str] = []
    flat = []
    for path, variable in nnx.to_flat_state(abstract):
        leaf = str(path[-1])
        name = ".".join(map(str, (*path[:-1], LEAF.get(leaf, leaf))))
        expected = torch_shape(leaf, variable.shape)
        if absent is not None and name.startswith(absent):
            flat.append((path, variable.replace(jnp.full(variable.shape, jnp.nan, jnp.float32))))
            unused.discard(name)
            continue
        if name not in tensors:
            problems.append(f"missing: {name} {expected}")
            continue
        unused.discard(name)
        array = tensors[name]
        if tuple(array.shape) != expected:
            problems.append(f"wrong shape: {name} is {tuple(array.shape)}, the network needs {expected}")
            continue
        if not jnp.issubdtype(array.dtype, jnp.floating):
            problems.append(f"not floating point: {name} is {array.dtype}")
            continue
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is reported as such
            array = np.asarray(array).astype(np.float32, copy=False)
        bad = array.size - np.count_nonzero(np.isfinite(array))
        if bad:
            problems.append(f"not finite: {name} has {bad} NaN or infinite values of {array.size}")
            continue
        flat.append((path, variable.replace(jnp.asarray(from_torch_layout(leaf, array)))))
    problems += [f"unused: {name} {tuple(tensors[name].shape)}" for name in tensors if name in unused]
    if problems:
        raise CheckpointError(
            f"The weights do not fit the network.{_hint(tensors)} {len(problems)} mismatches:\n  " + "\n  ".join(problems)
        )
    return graphdef, nnx.from_flat_state(flat)


def torch_shape(leaf: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that a parameter of ours has in torch's layout."""
    if leaf != "kernel":
        return tuple(shape)
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else tuple(reversed(shape))


def guess(tensors: Mapping[str, np.ndarray]) -> str | None:
    """Return the name of the network that tensors of these names and shapes belong to, or None."""
    shapes = {name: tuple(array.shape) for name, array in tensors.items()}
    first, second = shapes.get("layer1.0.conv1.weight", ()), shapes.get("layer1.0.conv2.weight", ())
    if len(first) == len(second) == 4 and second[1]:
        arguments: dict[str, Any] = {
            "block": "bottleneck" if "layer1.0.conv3.weight" in shapes else "basic",
            "layers": tuple(
                len({m[1] for name in shapes if (m := re.match(rf"layer{stage}\.(\d+)\.", name))}) for stage in range(1, 5)
            ),
            "groups": second[0] // second[1],
            "width_per_group": second[1],
        }
    else:
        convs = sum(bool(re.match(r"features\.\d+\.weight$", name)) and len(s) == 4 for name, s in shapes.items())
        arguments = {
            "config": {8: "A", 10: "B", 13: "D", 16: "E"}.get(convs),
            "batch_norm": any(re.match(r"features\.\d+\.running_mean$", name) for name in shapes),
        }
    return next((a.name for a in _registry.ARCHITECTURES.values() if a.arguments == arguments), None)


def _hint(tensors: Mapping[str, np.ndarray]) -> str:
    name = guess(tensors)
    return f" They look like {name} weights." if name else " They look like no VGG or ResNet of torchvision."


@contextlib.contextmanager
def _errors_of(path: Path) -> Generator[None]:
    """Make every error of reading a file a CheckpointError that names the file: damaged bytes can raise anything."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error.__cause__
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"[:300]
        raise CheckpointError(f"{path}: the file is damaged or cut off ({reason}). Download or copy it again.") from error


def _sniff(path: Path) -> str:
    if path.is_dir():
        raise CheckpointError("a folder, not a file; expected a .pth, .pt or .safetensors file")
    if not path.exists():
        raise CheckpointError("there is no such file")
    if not path.is_file():
        raise CheckpointError("not a regular file")  # opening a pipe would wait for ever
    with path.open("rb") as file:
        head = file.read(512)
    size = path.stat().st_size
    if not head:
        raise CheckpointError("the file is empty. Download or copy it again.")
    if head.startswith(b"PK"):
        return "zip"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < max(size, 2**40):
        return "safetensors"
    if head[:1] == b"\x80":
        return "legacy"
    raise CheckpointError(_what_else(head))


def _what_else(head: bytes) -> str:
    expected = "expected a .pth, .pt or .safetensors file"
    if head.lstrip()[:1] == b"<":
        return f"a web page (HTML), not weights: the address behind it needs a login or is wrong; {expected}"
    if head.startswith(b"version https://git-lfs"):
        return f"a Git LFS pointer, not the weights themselves: run `git lfs pull`; {expected}"
    if head[257:262] == b"ustar":
        return (
            "a tar archive, as PyTorch wrote weights before version 0.1.10: load it with a PyTorch of today and save it "
            "again: torch.save(torch.load(path), other_path)"
        )
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf")):
        return f"a compressed file: unpack it first; {expected}"
    return f"not a weight file, it begins with {head[:8]!r}; {expected}"


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = dict(file.metadata() or {})
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if CRC in metadata and metadata[CRC] != _checksum(tensors, metadata):
        raise CheckpointError("the data does not match its checksum: the file is damaged. Download or copy it again.")
    return tensors, metadata


def _checksum(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    crc = zlib.crc32(repr(sorted((k, v) for k, v in metadata.items() if k != CRC)).encode())
    for name, array in sorted(arrays.items()):
        crc = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), crc)
        crc = zlib.crc32(array.reshape(-1).view(np.uint8).data, crc)
    return f"{crc:08x}"


def _select(root: Any) -> dict[str, TensorRef]:
    """Return the state dict inside what a `.pth` file holds."""
    if type(root) is not dict:
        raise CheckpointError(f"the file holds a {_kind(root)}, not a state dict: torch.save(model.state_dict(), path)")
    for key in _NESTED:
        inner = root.get(key)
        if type(inner) is dict and any(type(value) is TensorRef for value in inner.values()):
            root = inner
            break
    others = [name for name, value in root.items() if type(value) is not TensorRef or type(name) is not str]
    if not root or len(others) == len(root):
        names = ", ".join(repr(name)[:40] for name in list(root)[:8])
        raise CheckpointError(f"the file holds no state dict; its entries are: {names or 'none'}")
    if others:
        names = ", ".join(f"{name!r}"[:60] for name in others[:8])
        raise CheckpointError(f"the state dict has entries that are not tensors: {names}")
    return root


def _kind(value: Any) -> str:
    return "tensor" if type(value) is TensorRef else type(value).__name__


def _without_prefix(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for prefix in _PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            return _without_prefix({name.removeprefix(prefix): array for name, array in tensors.items()})
    return tensors
