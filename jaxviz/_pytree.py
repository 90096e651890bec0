"""Static parts that key a compiled program, compared by value, and leaves that are its data."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._types import Array

T = TypeVar("T")


class _PartialByValue:
    """A `functools.partial` that is equal to another of the same function and arguments.

    Two `partial(optax.sgd, momentum=0.9)` are never equal, so that each would compile a program again.
    """

    def __init__(self, call: functools.partial[Any], key: Any):
        self._call = call
        self._key = key

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _PartialByValue) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return repr(self._call)


def _key(value: Any) -> Any:
    """Return a hashable key of a value in which 1, 1.0 and True differ, as they do in a traced program."""
    if isinstance(value, functools.partial):
        named = tuple(sorted((name, _key(v)) for name, v in value.keywords.items()))
        return (type(value), _key(value.func), tuple(_key(v) for v in value.args), named)
    if isinstance(value, tuple):
        return (type(value), *(_key(v) for v in value))
    hash(value)  # raises TypeError if the value cannot be compared by value
    return (type(value), value)


def as_static(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return `fn` in a hashable form that, if it is a `functools.partial`, compares by value.

    Other hashable callables are returned unchanged and compare as in Python, functions by identity: a `lambda` inside a call is
    new in each call and compiles again; a function at module level does not.

    Args:
        fn: any callable. Partials with unhashable arguments (lists, arrays) compare by identity.

    Raises:
        ArgumentError: `fn` is not callable.

    Example:
        >>> import functools, optax
        >>> as_static(functools.partial(optax.sgd, momentum=0.9)) == as_static(functools.partial(optax.sgd, momentum=0.9))
        True
    """
    if not callable(fn):
        raise ArgumentError(f"Expected a function, got {fn!r} of type {type(fn).__name__}.")
    if isinstance(fn, functools.partial):
        try:
            return _PartialByValue(fn, _key(fn))
        except TypeError:
            return _PartialByValue(fn, id(fn))
    try:
        hash(fn)
    except TypeError:
        return _PartialByValue(functools.partial(fn), id(fn))
    return fn


def pytree(cls: type[T]) -> type[T]:
    """Register a dataclass as a pytree whose children are its fields, except those with `metadata=dict(static=True)`.

    Unlike with `jax.tree_util.register_dataclass`, structures of two classes are never equal. jaxlib 0.10.2 compares structures
    of dataclasses only by the number of children and the static values; where a few bits of their hashes agree (about one time
    in a hundred), `jit` then runs the program of one class for another.

    Example:
        >>> @pytree
        ... @dataclasses.dataclass(frozen=True)
        ... class Twice:
        ...     value: Any
        >>> jax.tree.map(lambda x: 2 * x, Twice(3))
        Twice(value=6)
    """
    names = [(field.name, field.metadata.get("static", False)) for field in dataclasses.fields(cast(Any, cls))]
    children = tuple(name for name, static in names if not static)
    statics = tuple(name for name, static in names if static)

    def flatten(node: T) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple(getattr(node, name) for name in children), tuple(getattr(node, name) for name in statics)

    def flatten_with_keys(node: T) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        values, rest = flatten(node)
        return tuple((jax.tree_util.GetAttrKey(name), value) for name, value in zip(children, values, strict=True)), rest

    def unflatten(rest: tuple[Any, ...], values: Iterable[Any]) -> T:
        return cls(**dict(zip(children, values, strict=True)), **dict(zip(statics, rest, strict=True)))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Function:
    """A plain function as a pytree without leaves, for use among transforms, regularizers and objectives."""

    fn: Callable[..., Any] = dataclasses.field(metadata=dict(static=True))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)


def as_tree(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return a callable pytree: `fn` itself if it is a pytree (its leaves stay traced), else a `Function`.

    Raises:
        ArgumentError: `fn` is not callable.
    """
    if callable(fn) and not jax.tree_util.all_leaves([fn]):
        return fn
    return Function(as_static(fn))


def leaf(value: Any, what: str, *, low: float | None = None, high: float | None = None, dtype: Any = np.float32) -> jax.Array:
    """Return a number as a scalar array of one dtype, so that every way to write it runs the same program.

    Python numbers are weakly typed: `0.1`, `np.float64(0.1)` and `jnp.float32(0.1)` would be three different programs. Traced
    values pass unchecked; concrete ones must be finite and within `low` and `high` (inclusive).

    Raises:
        ArgumentError: not a finite real number, or out of range.
    """
    try:
        array = np.asarray(value)
        number = float(array)
    except jax.errors.TracerArrayConversionError:
        return jnp.asarray(value, dtype)
    except (TypeError, ValueError):
        raise ArgumentError(f"{what} must be a number, got {value!r}.") from None
    if array.ndim != 0 or not np.isfinite(number):
        raise ArgumentError(f"{what} must be one finite number, got {value!r}.")
    if (low is not None and number < low) or (high is not None and number > high):
        bounds = f"at least {low}" if high is None else f"between {low} and {high}" if low is not None else f"at most {high}"
        raise ArgumentError(f"{what} must be {bounds}, got {value!r}.")
    if np.issubdtype(dtype, np.integer) and number != int(number):
        raise ArgumentError(f"{what} must be a whole number, got {value!r}.")
    return cast(Array, np.asarray(number, dtype))  # NumPy: creating it runs nothing on a device
