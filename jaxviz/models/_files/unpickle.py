"""Reads the pickles inside PyTorch's weight files as data; nothing in them is ever imported, called or executed.

A pickle is a program for a small stack machine. Python's own unpickler can be told which names a pickle may import, but
still calls what it finds, sets attributes, hashes whatever is offered as a key and lets a five-byte file reserve
gigabytes. A weight file needs little of that: dictionaries, lists, tuples, numbers, strings, and tensors made by one of
four functions from a storage. So this is an interpreter for that little, over `pickletools.genops` (which only splits
the bytes): names are looked up in a table of plain tokens, never imported; "calling" a token builds a description of a
tensor; everything outside is refused by name.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from jaxviz._errors import CheckpointError
from jaxviz.models._files.pickle_allowlist import GLOBALS, StorageRef, TensorRef, Token

MAX_OPCODES = 300_000  # a state dict takes about 30 per tensor, and the largest network here has 932 tensors
MAX_READ = 64 * 2**20  # bytes of one string or number; real ones are layer names
MAX_ELEMENTS = 2**31  # of one tensor; the largest weight here (vgg's first linear layer) has 1.03e8


class _Bounded:
    """The reading half of a file for `pickletools`, which refuses to reserve memory for absurd lengths."""

    def __init__(self, file: IO[bytes]):
        self._file = file

    def read(self, size: int) -> bytes:
        if size > MAX_READ:
            raise CheckpointError(f"a single value of {size} bytes is announced inside the pickle")
        return self._file.read(size)

    def readline(self) -> bytes:
        line = self._file.readline(4096)
        if b"\\" in line:  # which pickletools would unescape; no name has one
            raise CheckpointError("a global with a backslash in its name")
        return line


def load(file: IO[bytes], storages: dict[str, StorageRef]) -> Any:
    """Read one pickle from the file's position and leave the position after it.

    Args:
        file: Opened for reading; only `read` and `readline` are used.
        storages: Filled with every storage that the pickle names, by key.

    Returns:
        The object, made of dict, list, tuple, str, bytes, int, float, bool, None and `TensorRef`.

    Raises:
        CheckpointError: for anything else in the pickle, naming it. Damaged pickles may also raise what `pickletools`
            raises (ValueError and its kin); the caller turns those into a CheckpointError that names the file.
    """
    machine = _Machine(storages)
    for opcode, argument, _ in pickletools.genops(_Bounded(file)):  # type: ignore[arg-type]
        machine.spend(1)
        if opcode.name == "STOP":
            return machine.pop()
        handler = _HANDLERS.get(opcode.name)
        if handler is None:
            raise CheckpointError(f"refused pickle instruction {opcode.name}: a state dict does not need it")
        handler(machine, argument)
    raise CheckpointError("the pickle ends without its STOP instruction")


class _Machine:
    """The stack, the marks and the memo of one pickle."""

    def __init__(self, storages: dict[str, StorageRef]):
        self.storages = storages
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.budget = MAX_OPCODES

    def spend(self, steps: int) -> None:
        self.budget -= steps
        if self.budget < 0:
            raise CheckpointError(f"the pickle takes more than {MAX_OPCODES} steps, far too many for a state dict")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def floor(self) -> int:
        return self.marks[-1] if self.marks else 0

    def pop(self) -> Any:
        if len(self.stack) <= self.floor():
            raise CheckpointError("the pickle takes more from its stack than it put there")
        return self.stack.pop()

    def top(self, kind: type, instruction: str) -> Any:
        if len(self.stack) <= self.floor() or type(self.stack[-1]) is not kind:
            raise CheckpointError(f"pickle instruction {instruction} needs a {kind.__name__} on the stack")
        return self.stack[-1]

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            raise CheckpointError("the pickle closes a group that it did not open")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def pop_many(self, count: int) -> tuple[Any, ...]:
        items = [self.pop() for _ in range(count)]
        return tuple(reversed(items))

    def remember(self, index: int | None) -> None:
        if len(self.stack) <= self.floor():
            raise CheckpointError("the pickle memoises from an empty stack")
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise CheckpointError(f"the pickle recalls entry {index}, which it never stored")
        self.push(self.memo[index])

    def append(self, items: list[Any]) -> None:
        self.top(list, "APPENDS").extend(items)

    def set_items(self, items: list[Any]) -> None:
        self.top(dict, "SETITEMS").update(_pairs(items))

    def find(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise CheckpointError("the pickle names a global by something that is not a string")
        token = GLOBALS.get((module, name))
        if token is None:
            raise CheckpointError(_refusal(module, name))
        self.push(token)

    def reduce(self) -> None:
        function, arguments = self.pop_many(2)
        if type(function) is not Token or type(arguments) is not tuple:
            raise CheckpointError("the pickle calls something that is not a function with a tuple of arguments")
        if function.kind not in _BUILDERS:
            raise CheckpointError(f"the pickle calls a {function.kind}, which is not a function")
        builder, least, most = _BUILDERS[function.kind]
        if not least <= len(arguments) <= most:
            raise CheckpointError(f"the pickle makes a {function.kind} from {len(arguments)} values")
        for argument in arguments:  # one list can be handed over again and again, so that its length counts each time
            self.spend(len(argument) if type(argument) in (list, tuple) else 0)
        self.push(builder(*arguments))

    def build(self) -> None:
        # The one use of BUILD in a state dict is OrderedDict's attribute `_metadata` (module versions): not needed.
        self.pop()
        self.top(dict, "BUILD")

    def persistent(self) -> None:
        name, *rest = _a_tuple(self.pop())
        if name != "storage" or len(rest) not in (4, 5):
            raise CheckpointError("the pickle refers to something outside itself that is not a tensor storage")
        kind, key, _, size = rest[:4]
        if type(kind) is not Token or kind.kind != "storage" or kind.dtype is None or type(key) is not str:
            raise CheckpointError("the pickle describes a storage without a proper type or key")
        storage = StorageRef(key, kind.dtype, _natural(size, "storage size"))
        if self.storages.setdefault(key, storage) != storage:
            raise CheckpointError(f"storage {key[:40]!r} is described in two different ways")
        if len(rest) == 5 and rest[4] is not None:  # the view of a storage, as PyTorch 0.2 and 0.3 wrote them
            _, start, length = _of_length(rest[4], 3)
            start, length = _natural(start, "view offset"), _natural(length, "view size")
            if start + length > storage.size:
                raise CheckpointError(f"a view of storage {key[:40]!r} reaches beyond its end")
            self.push(StorageRef(key, storage.dtype, length, start))
        else:
            self.push(storage)


def _refusal(module: str, name: str) -> str:
    full = f"{module}.{name}"
    full = full if len(full) <= 100 else full[:97] + "..."
    return (
        f"refused global {full!r}: only tensors and plain containers are read, and no code is run. If the file holds a "
        "whole module or a training run and you trust its source, load it in PyTorch and save only the weights: "
        "torch.save(model.state_dict(), path)"
    )


def _a_tuple(value: Any) -> tuple[Any, ...]:
    if type(value) is not tuple or not value:
        raise CheckpointError(f"the pickle holds a {type(value).__name__} where a tuple belongs")
    return value


def _of_length(value: Any, length: int) -> tuple[Any, ...]:
    if type(value) is not tuple or len(value) != length:
        raise CheckpointError(f"the pickle holds a {type(value).__name__} where a tuple of {length} belongs")
    return value


def _natural(value: Any, what: str) -> int:
    if type(value) is not int or not 0 <= value < 2**62:
        raise CheckpointError(f"a {what} in the pickle is not a whole number from 0 to 2**62")
    return value


def _naturals(value: Any, what: str) -> tuple[int, ...]:
    if type(value) not in (tuple, list) or len(value) > 32:
        raise CheckpointError(f"a tensor's {what} in the pickle is not a tuple of at most 32 numbers")
    return tuple(_natural(v, what) for v in value)


def _pairs(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise CheckpointError("the pickle fills a dictionary with a key that has no value")
    keys = items[::2]
    for key in keys:
        # Hashing a nested tuple can take forever (2**n steps for 2n bytes of pickle), and large numbers can be chosen to
        # collide, so a key is a string or a small number.
        if type(key) is not str and (type(key) is not int or not 0 <= key < 2**31):
            raise CheckpointError(f"the pickle uses a {type(key).__name__} as a dictionary key, not a name or an index")
    return dict(zip(keys, items[1::2], strict=True))


def _make_dict(pairs: Any = ()) -> dict[Any, Any]:
    if type(pairs) not in (list, tuple):
        raise CheckpointError("the pickle makes an OrderedDict from something that is not a list")
    flat = [part for pair in pairs for part in (pair if type(pair) in (list, tuple) and len(pair) == 2 else (None, None))]
    return _pairs(flat)


def _make_tensor(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any = False,
    hooks: Any = None,
    metadata: Any = None,
    dtype: np.dtype | None = None,
) -> TensorRef:
    if type(storage) is not StorageRef:
        raise CheckpointError("the pickle makes a tensor from something that is not a storage")
    if metadata:
        raise CheckpointError("a tensor is marked as conjugated or negated, which is not supported")
    offset = _natural(offset, "tensor offset")
    shape, strides = _naturals(size, "shape"), _naturals(stride, "strides")
    if len(shape) != len(strides):
        raise CheckpointError(f"a tensor of shape {shape} has {len(strides)} strides")
    count = math.prod(shape)
    if count > MAX_ELEMENTS:
        raise CheckpointError(f"a tensor has {count} elements, more than the supported {MAX_ELEMENTS}")
    dtype = storage.dtype if dtype is None else dtype
    available = storage.size * storage.dtype.itemsize // dtype.itemsize
    needed = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1 if count else 0
    if needed > available:
        raise CheckpointError(f"a tensor of shape {shape} needs {needed} elements of a storage that has {available}")
    return TensorRef(storage, dtype, offset, shape, strides)


def _make_tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, dtype: Any, metadata: Any = None
) -> TensorRef:
    if type(dtype) is not Token or dtype.kind != "dtype":
        raise CheckpointError("the pickle makes a tensor without a proper dtype")
    return _make_tensor(storage, offset, size, stride, metadata=metadata, dtype=dtype.dtype)


def _make_parameter(data: Any, requires_grad: Any = True, hooks: Any = None) -> TensorRef:
    if type(data) is not TensorRef:
        raise CheckpointError("the pickle makes a parameter from something that is not a tensor")
    return data


_BUILDERS: dict[str, tuple[Callable[..., Any], int, int]] = {  # with the least and the greatest number of arguments
    "dict": (_make_dict, 0, 1),
    "tensor": (_make_tensor, 4, 7),
    "tensor_v3": (_make_tensor_v3, 7, 8),
    "parameter": (_make_parameter, 1, 3),
    "size": (lambda numbers: _naturals(numbers, "size"), 1, 1),
    "device": (lambda kind, index=0: None, 1, 2),
}


def _ignore(machine: _Machine, argument: Any) -> None:
    pass


def _push_argument(machine: _Machine, argument: Any) -> None:
    machine.push(argument)


def _find_global(machine: _Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    machine.find(module, name)


# What Pickler emits for a state dict, in protocols 2 to 5. Text instructions (protocol 0) cannot refer to storages.
_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _ignore,
    "FRAME": _ignore,
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    **dict.fromkeys(["BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"], _push_argument),
    **dict.fromkeys(["BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"], _push_argument),
    **dict.fromkeys(["BINBYTES", "SHORT_BINBYTES"], _push_argument),
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "TUPLE1": lambda m, _: m.push(m.pop_many(1)),
    "TUPLE2": lambda m, _: m.push(m.pop_many(2)),
    "TUPLE3": lambda m, _: m.push(m.pop_many(3)),
    "TUPLE": lambda m, _: m.push(tuple(m.pop_mark())),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "LIST": lambda m, _: m.push(m.pop_mark()),
    "APPEND": lambda m, _: m.append([m.pop()]),
    "APPENDS": lambda m, _: m.append(m.pop_mark()),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "DICT": lambda m, _: m.push(_pairs(m.pop_mark())),
    "SETITEM": lambda m, _: m.set_items(list(m.pop_many(2))),
    "SETITEMS": lambda m, _: m.set_items(m.pop_mark()),
    "BINPUT": lambda m, index: m.remember(index),
    "LONG_BINPUT": lambda m, index: m.remember(index),
    "MEMOIZE": lambda m, _: m.remember(None),
    "BINGET": lambda m, index: m.recall(index),
    "LONG_BINGET": lambda m, index: m.recall(index),
    "GLOBAL": _find_global,
    "STACK_GLOBAL": lambda m, _: m.find(*m.pop_many(2)),
    "BINPERSID": lambda m, _: m.persistent(),
    "REDUCE": lambda m, _: m.reduce(),
    "BUILD": lambda m, _: m.build(),
}
