"""The table of a network's layers: kinds, shapes and receptive fields, read from one abstract run."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, SupportsIndex, overload

import jax
from flax import nnx

from jaxviz._types import Array
from jaxviz.models._network import Network, PureFunction
from jaxviz.models._taps import resolve, run, takes
from jaxviz.ops import EXACT, Ops
from jaxviz.ops._pooling import adaptive_windows


class ReceptiveField(NamedTuple):
    """The pixels that one unit can see: their extent, and the step from one unit to the next, (height, width).

    `size` counts the padding too, so it can be larger than the image. `whole` says that every unit sees all of the
    image (global pooling, fully connected layers); both pairs are then the image's size. `start` is the first pixel, row
    and column, of the first unit's field: below 0 where there is padding.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    whole: bool = False
    start: tuple[int, int] = (0, 0)

    def box(self, y: int, x: int) -> tuple[int, int, int, int]:
        """Return what the unit at row y and column x of the map can see: (top, left, bottom, right), the last two not in it.

        In pixels of the image. Where the field reaches into the padding, it sticks out of the image, to both sides: below 0
        and beyond its height and width.

        >>> ReceptiveField((7, 7), (2, 2), start=(-3, -3)).box(0, 10)
        (-3, 17, 4, 24)
        """
        if self.whole:
            return (0, 0, *self.size)
        top, left = (first + at * step for first, at, step in zip(self.start, (y, x), self.stride, strict=True))
        return top, left, top + self.size[0], left + self.size[1]

    def __str__(self) -> str:
        if self.whole:
            return "image"
        size, stride = (str(p[0]) if p[0] == p[1] else f"{p[0]} x {p[1]}" for p in (self.size, self.stride))
        return f"{size} / {stride}"


class Layer(NamedTuple):
    """One layer of a network.

    Attributes:
        name: what to call it everywhere in this library.
        kind: "conv", "batch_norm", "relu", "max_pool", "avg_pool", "linear", "add", "flatten", "dropout", or the
            snake-case name of a user's own module, or "other".
        shape: (H, W, C) or (C,).
        receptive_field: None where the network does not compute it through `ops`.
        module: the path of the innermost module that computes it; "" for the network itself.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    receptive_field: ReceptiveField | None
    module: str

    @property
    def channels(self) -> int:
        """The number of channels: the last axis."""
        return self.shape[-1] if self.shape else 1


class LayerTable(tuple[Layer, ...]):
    """The layers in the order of computation. Indexed by number or by name; prints as a table."""

    @overload
    def __getitem__(self, key: SupportsIndex | str) -> Layer: ...
    @overload
    def __getitem__(self, key: slice) -> LayerTable: ...
    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            node = resolve(key, self.names)
            return next(layer for layer in self if layer.name == node)
        found = super().__getitem__(key)
        return LayerTable(found) if isinstance(key, slice) else found

    @property
    def names(self) -> list[str]:
        """The names in order."""
        return [layer.name for layer in self]

    def __repr__(self) -> str:
        rows = [("layer", "kind", "shape", "channels", "receptive field / stride")]
        for layer in self:
            shape = " x ".join(map(str, layer.shape))
            rows.append((layer.name, layer.kind, shape, str(layer.channels), str(layer.receptive_field or "unknown")))
        widths = [max(len(row[k]) for row in rows) for k in range(5)]
        numeric = (False, False, False, True, True)
        lines = (
            "  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)) for row in rows
        )
        return "\n".join(line.rstrip() for line in lines)


class _Trace:
    """What is known of each value of an abstract run: the operation that made it and what it can see."""

    def __init__(self, image: tuple[int, int]):
        self.whole = ReceptiveField(image, image, whole=True)
        # Values are told apart by identity, so all of them are kept alive until the run is over.
        self._known: dict[int, tuple[Array, str, ReceptiveField | None]] = {}

    def note(self, value: Array, kind: str, field: ReceptiveField | None) -> Array:
        self._known[id(value)] = (value, kind, field)
        return value

    def kind(self, value: Array) -> str | None:
        return self._known[id(value)][1] if id(value) in self._known else None

    def field(self, value: Array) -> ReceptiveField | None:
        return self._known[id(value)][2] if id(value) in self._known else None

    def _slid(
        self, x: Array, window: tuple[int, int], step: tuple[int, int], before: tuple[int, int] = (0, 0)
    ) -> ReceptiveField | None:
        """Return the field of a window that slides over `x`, from `before` rows and columns of padding on."""
        seen = self.field(x)
        if seen is None or seen.whole:
            return seen
        height, width = (size + (n - 1) * stride for size, stride, n in zip(seen.size, seen.stride, window, strict=True))
        down, across = (stride * n for stride, n in zip(seen.stride, step, strict=True))
        top, left = (first - n * stride for first, stride, n in zip(seen.start, seen.stride, before, strict=True))
        return ReceptiveField((height, width), (down, across), start=(top, left))

    def conv(self, x: Array, kernel: Array, bias: Array | None = None, **options: Any) -> Array:
        dilation = options.get("dilation", (1, 1))
        window = tuple((n - 1) * d + 1 for n, d in zip(kernel.shape[:2], dilation, strict=True))
        field = self._slid(x, (window[0], window[1]), options.get("stride", (1, 1)), _before(options))
        return self.note(EXACT.conv(x, kernel, bias, **options), "conv", field)

    def max_pool(self, x: Array, **options: Any) -> Array:
        field = self._slid(x, options["window"], options["stride"], _before(options))
        return self.note(EXACT.max_pool(x, **options), "max_pool", field)

    def avg_pool(self, x: Array, *, size: tuple[int, int]) -> Array:
        given = (x.shape[1], x.shape[2])
        if size == (1, 1):
            field = self.whole
        else:
            # Where the bins are uneven: the mean step, rounded, and an extent that has every bin in it.
            (high, down, top), (wide, across, left) = (_bins(n, k) for n, k in zip(given, size, strict=True))
            field = self._slid(x, (high, wide), (down, across), (top, left))
        pooled = EXACT.avg_pool(x, size=size)
        # Pooling to the size it has returns its argument; a new value keeps the two apart.
        return self.note(pooled + 0 if pooled is x else pooled, "avg_pool", field)

    def linear(self, x: Array, kernel: Array, bias: Array | None = None) -> Array:
        return self.note(EXACT.linear(x, kernel, bias), "linear", self.whole)

    def batch_norm(self, x: Array, *args: Array, **options: Any) -> Array:
        return self.note(EXACT.batch_norm(x, *args, **options), "batch_norm", self.field(x))

    def relu(self, x: Array) -> Array:
        return self.note(EXACT.relu(x), "relu", self.field(x))

    def add(self, x: Array, y: Array) -> Array:
        a, b = self.field(x), self.field(y)
        field = None if a is None or b is None else _both(a, b)
        return self.note(EXACT.add(x, y), "add", field)

    def ops(self) -> Ops:
        return Ops(self.conv, self.linear, self.batch_norm, self.relu, self.max_pool, self.avg_pool, self.add)


def _before(options: dict[str, Any]) -> tuple[int, int]:
    (top, _), (left, _) = options.get("padding", ((0, 0), (0, 0)))
    return top, left


def _bins(size: int, bins: int) -> tuple[int, int, int]:
    """Return the extent, the step and the padding before of the window that, moved by the step, has each bin in it."""
    step = max(1, round(size / bins))
    moved = [(start - i * step, stop - i * step) for i, (start, stop) in enumerate(adaptive_windows(size, bins))]
    first = min(start for start, _ in moved)
    return max(stop for _, stop in moved) - first, step, -first


def _both(a: ReceptiveField, b: ReceptiveField) -> ReceptiveField:
    """Return the field of a sum: what either sees."""
    large = max(a, b, key=lambda field: (field.whole, field.size))
    if large.whole:
        return large
    top, left = (min(pair) for pair in zip(a.start, b.start, strict=True))
    bottom, right = (max(f.start[i] + f.size[i] for f in (a, b)) for i in (0, 1))
    return ReceptiveField((bottom - top, right - left), large.stride, start=(top, left))


def layer_table(network: Network, size: tuple[int, int]) -> LayerTable:
    """Run the network abstractly on one image of this size and describe every value that it taps."""
    module = None if isinstance(network.graphdef, PureFunction) else nnx.merge(network.graphdef, network.state)
    paths = {} if module is None else _module_kinds(module)
    trace = _Trace(size)
    layers: list[Layer] = []
    last: list[Array] = []

    def tap(name: str, value: Array) -> Array:
        kind, field = trace.kind(value), trace.field(value)
        if last and last[-1] is value:
            kind = paths.get(name, "other")
        elif kind is None and last and last[-1].ndim == 4 and value.ndim == 2:
            # Flattening is no operation of the table; each unit is still one unit of the map below.
            kind, field = "flatten", trace.field(last[-1])
            trace.note(value, kind, field)
        owner = ".".join(_innermost(name.split("."), paths))
        layers.append(Layer(name, kind or paths.get(name, "other"), tuple(value.shape[1:]), field, owner))
        last.append(value)
        return value

    def abstract(network: Network, x: Array) -> Array:
        trace.note(x, "input", ReceptiveField((1, 1), (1, 1)))
        return run(network, x, tap, trace.ops() if module is not None and takes(module, "ops") else EXACT)

    jax.eval_shape(abstract, network, network.abstract_image(size))
    return LayerTable(layers)


def _innermost(parts: list[str], paths: dict[str, str]) -> list[str]:
    while parts and ".".join(parts) not in paths:
        parts = parts[:-1]
    return parts


def _module_kinds(module: nnx.Module) -> dict[str, str]:
    """Return the kind of every submodule by its path: the name of its class in snake case."""
    snake: Callable[[str], str] = lambda name: re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()  # noqa: E731
    return {
        ".".join(map(str, path)): snake(type(value).__name__)
        for path, value in nnx.iter_graph(module)
        if isinstance(value, nnx.Module) and path
    }
