"""Fingerprints: what a run computes as plain data, which another process describes alike."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

_SMALL = 8  # numbers of an array that are written out; a longer array is described by its digest
_PLAIN = (bool, int, float, str, bytes, np.generic, np.ndarray, jax.Array)


class _HasGraph(Protocol):
    @property
    def graphdef(self) -> Any: ...


def describe(value: Any) -> Any:
    """Return a description that JSON can hold: types, numbers, digests of arrays and of code.

    A function is described by its name, its code, the values it closes over, its defaults, and the numbers, strings and
    arrays among the globals it names; the code of functions it calls is left out. A description has no memory addresses.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else repr(value)
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        return _array(value)
    if isinstance(value, type):
        return value.__qualname__
    if isinstance(value, Mapping):
        return {str(name): describe(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [describe(part) for part in value]
    if isinstance(value, functools.partial):
        return {"partial": describe(value.func), "args": describe(value.args), "keywords": describe(value.keywords)}
    if dataclasses.is_dataclass(value):
        parts = {f.name: describe(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__qualname__, **parts}
    leaves, form = jax.tree.flatten(value)
    if leaves and not (len(leaves) == 1 and leaves[0] is value):
        return {"type": type(value).__qualname__, "form": _digest(_text(form)), "leaves": digest(leaves)}
    return _function(value) if callable(value) else _text(value)


def digest(value: Any) -> str:
    """Return the description of something large, such as a network's weights, as 32 characters."""
    return _digest(json.dumps(describe(value), sort_keys=True))


def model_digests(model: _HasGraph) -> dict[str, str]:
    """Return the digests of a network's weights and of its architecture, as part of a run's settings."""
    return {"weights": digest(jax.tree.leaves(model)), "network": digest(model.graphdef)}


def differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """Yield `"learning_rate is 0.01 there and 0.05 here"` for all that differs between two descriptions."""
    if isinstance(there, dict) and isinstance(here, dict) and there.get("type") == here.get("type"):
        for key in dict.fromkeys((*there, *here)):
            yield from differences(there.get(key), here.get(key), f"{name}.{key}" if name else key)
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for i, (a, b) in enumerate(zip(there, here, strict=True)):
            yield from differences(a, b, f"{name}[{i}]")
    elif there != here:
        yield f"{name} is {_short(there)} there and {_short(here)} here"


def _short(value: Any) -> str:
    text = str(value.get("type", value) if isinstance(value, dict) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _digest(data: str | bytes | memoryview) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()[:32]


def _text(value: Any) -> str:
    return re.sub(r"\bat 0x[0-9a-fA-F]+", "", repr(value))


def _array(value: Any) -> Any:
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    array = np.asarray(value)
    if array.size <= _SMALL:  # a float32 as people write it, not with the digits of a float64
        return array.astype(str).astype(float).tolist() if array.dtype.kind == "f" else array.tolist()
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return f"{array.dtype}{list(array.shape)} {_digest(data)}"


def _function(value: Any) -> Any:
    function = inspect.unwrap(value)  # of jax.jit, functools.wraps
    if isinstance(function, functools.partial):
        return describe(function)
    if not isinstance(function, FunctionType):
        inner = getattr(function, "__func__", None)  # a bound method
        if isinstance(inner, FunctionType):
            return {"method": _function(inner), "of": describe(function.__self__)}
        call = getattr(function, "_call", None)  # a partial that compares by value
        return describe(call) if isinstance(call, functools.partial) else _text(function)
    code = function.__code__
    held = [cell.cell_contents for cell in function.__closure__ or () if _is_set(cell)]
    named = {name: function.__globals__.get(name) for name in sorted(_names(code))}
    known = {name: describe(part) for name, part in named.items() if isinstance(part, _PLAIN)}
    data = [describe([part for part in held if part is not function]), describe(function.__defaults__)]
    return f"{function.__qualname__} {_digest(repr([_code(code), *data, describe(function.__kwdefaults__), known]))}"


def _is_set(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # a variable that has no value yet
        return False


def _names(code: CodeType) -> set[str]:
    inner = [part for part in code.co_consts if isinstance(part, CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _code(code: CodeType) -> list[Any]:
    consts = [_code(part) if isinstance(part, CodeType) else _constant(part) for part in code.co_consts]
    return [code.co_code.hex(), consts, code.co_names, code.co_varnames]


def _constant(part: Any) -> str:
    return repr(sorted(map(repr, part))) if isinstance(part, frozenset) else _text(part)  # a set's order is the process's
