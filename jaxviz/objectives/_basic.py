"""The basic objectives: channel, neuron, layer, logit, and any function of the activations."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._errors import ArgumentError, UnitError
from jaxviz._pytree import as_static
from jaxviz._types import Array, ArrayLike
from jaxviz.models import Model, layer_shape
from jaxviz.objectives._algebra import Activations, Objective, count_units, leaf, pytree, static

Units: TypeAlias = int | str | Iterable[int] | Iterable[str] | ArrayLike | None


@pytree
class LayerObjective(Objective):
    """Base of the objectives that read one layer."""

    layer: str = static()

    def bind(self, model: Model, size: tuple[int, int]) -> Objective:
        layer_shape(model.network, self.layer, size)
        return self

    def layers(self) -> tuple[str, ...]:
        return (self.layer,)


@pytree
class Channel(LayerObjective):
    """The mean activation of one channel over all positions; see `channel`."""

    index: ArrayLike | None = leaf()

    def __call__(self, acts: Activations, images: Array) -> Array:
        return _select(_spatial_mean(acts[self.layer]), self.index)

    def bind(self, model: Model, size: tuple[int, int]) -> Objective:
        channels = layer_shape(model.network, self.layer, size)[-1]
        return dataclasses.replace(self, index=_check_units(self.index, channels, self.layer))

    def units(self) -> tuple[str, np.ndarray] | None:
        return self.layer, np.atleast_1d(np.asarray(self.index))

    def labels(self, model: Model) -> tuple[str, ...]:
        return tuple(f"{self.layer}:{i}" for i in np.atleast_1d(np.asarray(self.index)))


@pytree
class Neuron(LayerObjective):
    """One channel at one position; see `neuron`."""

    index: ArrayLike | None = leaf()
    y: ArrayLike | None = leaf(default=None)
    x: ArrayLike | None = leaf(default=None)

    def __call__(self, acts: Activations, images: Array) -> Array:
        return _select(at_position(acts[self.layer], self.y, self.x), self.index)

    def bind(self, model: Model, size: tuple[int, int]) -> Objective:
        shape = layer_shape(model.network, self.layer, size)
        y, x = (check_position(p, axis, shape, self.layer, size) for axis, p in enumerate((self.y, self.x)))
        return dataclasses.replace(self, index=_check_units(self.index, shape[-1], self.layer), y=y, x=x)

    def at_size(self, model: Model, size: tuple[int, int], other: tuple[int, int]) -> Objective:
        shapes = [layer_shape(model.network, self.layer, s) for s in (size, other)]
        y, x = (move_position(p, axis, *shapes) for axis, p in enumerate((self.y, self.x)))
        return dataclasses.replace(self, y=y, x=x)

    def units(self) -> tuple[str, np.ndarray] | None:
        return self.layer, np.atleast_1d(np.asarray(self.index))

    def labels(self, model: Model) -> tuple[str, ...]:
        if self.y is None and self.x is None:
            return tuple(f"{self.layer}:{i} neuron" for i in np.atleast_1d(np.asarray(self.index)))
        parts = [np.asarray(-1 if p is None else p) for p in (self.index, self.y, self.x)]
        rows = np.stack([np.atleast_1d(p) for p in np.broadcast_arrays(*parts)], axis=1)
        return tuple(f"{self.layer}:{i} at y {'center' if y < 0 else y}, x {'center' if x < 0 else x}" for i, y, x in rows)


@pytree
class Layer(LayerObjective):
    """A whole layer; see `layer`."""

    reduce: str = static(default="mean")

    def __call__(self, acts: Activations, images: Array) -> Array:
        act = acts[self.layer].reshape(len(images), -1)
        if self.reduce == "mean":
            return act.mean(1)
        return jnp.square(act).mean(1) if self.reduce == "square" else norm(act)

    def labels(self, model: Model) -> tuple[str, ...]:
        return (f"{self.layer} {self.reduce}",)


@pytree
class Logit(Objective):
    """A class score before the softmax; see `logit`."""

    index: ArrayLike | None = leaf()
    names: tuple[str, ...] | None = static(default=None)

    def __call__(self, acts: Activations, images: Array) -> Array:
        return _select(acts["output"], self.index)

    def bind(self, model: Model, size: tuple[int, int]) -> Objective:
        shape = layer_shape(model.network, "output", size)
        if len(shape) != 1:
            raise ArgumentError(f"A logit needs an output of shape (N, classes); this network's is (N, {shape}).")
        index = self.index
        if self.names is not None:
            indices = [model.class_index(name) for name in self.names]
            index = np.asarray(indices if len(indices) > 1 else indices[0])
        return Logit(_check_units(index, shape[0], "output"))

    def layers(self) -> tuple[str, ...]:
        return ("output",)

    def units(self) -> tuple[str, np.ndarray] | None:
        return "output", np.atleast_1d(np.asarray(self.index))

    def labels(self, model: Model) -> tuple[str, ...]:
        names = model.class_names
        return tuple(f"logit:{names[i] if names else i}" for i in np.atleast_1d(np.asarray(self.index)))


@pytree
class Function(Objective):
    """Any function `(activations, images) -> (S,)`; see `from_function`."""

    fn: Callable[[Activations, Array], Array] = static()
    used: tuple[str, ...] = static(default=())

    def __call__(self, acts: Activations, images: Array) -> Array:
        return self.fn(acts, images)

    def bind(self, model: Model, size: tuple[int, int]) -> Objective:
        used: list[str] = []
        images = jax.ShapeDtypeStruct((2, *size, len(model.mean)), jnp.float32)

        class Recorder(dict[str, Array]):
            def __missing__(self, name: str) -> Array:
                used.append(name)
                return jnp.zeros((2, *layer_shape(model.network, name, size)), jnp.float32)

        out = jax.eval_shape(lambda x: self.fn(Recorder(), x), images)
        if getattr(out, "shape", None) != (2,):
            got = getattr(out, "shape", type(out).__name__)
            raise ArgumentError(
                f"An objective must return one score per image, shape (S,): for S = 2 images {self._name} gave {got}."
            )
        return Function(self.fn, tuple(dict.fromkeys(used)))

    @property
    def _name(self) -> str:
        return getattr(self.fn, "__name__", "function")

    def layers(self) -> tuple[str, ...]:
        return self.used

    def labels(self, model: Model) -> tuple[str, ...]:
        return (self._name,)


def channel(layer: str, index: Units = None) -> Objective:
    """Maximize the mean activation of channels over all positions of a layer.

    Args:
        layer: a node or module name, as in `model.layers()`.
        index: one channel; several, such as `range(256)`, a unit of work each; or None for all channels of the layer.

    Raises:
        ArgumentError: not integers.
        LayerError, UnitError: when run, a layer or a channel that the network does not have.

    >>> jv.visualize(model, jv.channel("layer3", range(2)), steps=1, size=32).labels
    ('layer3:0', 'layer3:1')
    """
    return Channel(layer, _index_array(index))


def neuron(layer: str, index: Units = None, *, y: Units = None, x: Units = None) -> Objective:
    """Maximize channels at one position of a layer: row `y` and column `x`, by default the center (`h // 2`, `w // 2`).

    Args:
        layer: a node or module name, one with positions.
        index: as for `channel`.
        y, x: one position, or one for each unit; traced.

    Raises:
        ArgumentError, LayerError, UnitError: as for `channel`; also a position outside the layer.

    >>> jv.visualize(model, jv.neuron("layer3", 7, y=0), steps=1, size=32).labels
    ('layer3:7 at y 0, x center',)
    """
    return Neuron(layer, _index_array(index), *(None if p is None else _index_array(p) for p in (y, x)))


def layer(name: str, reduce: str = "mean") -> Objective:
    """Maximize a whole layer: the `"mean"`, the mean `"square"` (DeepDream), or the L2 `"norm"` of its activations.

    Raises:
        ArgumentError: another `reduce`.

    >>> jv.visualize(model, jv.layer("layer3", "square"), steps=1, size=32).labels
    ('layer3 square',)
    """
    if reduce not in ("mean", "square", "norm"):
        raise ArgumentError(f"reduce is 'mean', 'square' or 'norm', not {reduce!r}.")
    return Layer(name, reduce)


def logit(index: Units = None) -> Objective:
    """Maximize class scores before the softmax.

    Args:
        index: a class or several, by number or by name; None for all classes.

    Raises:
        ArgumentError, UnitError: when run, a class that the network does not have.

    >>> jv.visualize(model, jv.logit(["golf ball", "church"]), steps=1, size=32).labels
    ('logit:golf ball', 'logit:church')
    """
    names = (index,) if isinstance(index, str) else tuple(index) if isinstance(index, Sequence) else ()
    if names and all(isinstance(name, str) for name in names):
        return Logit(None, tuple(str(name) for name in names))
    return Logit(_index_array(index))


def from_function(fn: Callable[[Activations, Array], Array]) -> Objective:
    """Maximize any JAX function `(activations, images) -> (S,)`.

    The layers that it reads are found by tracing it. `visualize` takes a bare function too; this wraps one for arithmetic with
    other objectives.

    Args:
        fn: `activations` maps layer names to (S, h, w, C) or (S, C); `images` is float32 (S, H, W, C) in [0, 1]. Define it
            once, at module level: a new function object is a new program.

    Raises:
        ArgumentError: when run, a result that is not one score per image.

    >>> def contrast(acts, images):
    ...     return acts["layer3"][..., 7].mean((1, 2)) * images.std((1, 2, 3))
    >>> objective = jv.channel("layer3", 7) + jv.objectives.from_function(contrast)
    >>> jv.visualize(model, objective, steps=1, size=32).labels
    ('layer3:7',)
    """
    return Function(as_static(fn))


def work_ids(objective: Objective, model: Model) -> np.ndarray:
    """Return the numbers that are folded into the random keys of each unit of work, uint32 (K, n); see `Objective.ids`."""
    ids = objective.ids(model)
    if ids is None:
        node = model.resolve(next(iter(objective.layers()), "output"))
        ids = np.array([[zlib.crc32(node.encode()), 0]], np.uint32)
    return np.broadcast_to(ids, (count_units(objective), ids.shape[1]))


def _index_array(index: Any) -> np.ndarray | None:
    if index is None:
        return None
    array = np.asarray(list(index) if isinstance(index, Iterable) and not hasattr(index, "ndim") else index)
    if not (np.issubdtype(array.dtype, np.integer) and array.ndim <= 1 and array.size):
        raise ArgumentError(f"Expected one unit or a non-empty list of units, integers of shape () or (K,); got {index!r}.")
    return array.astype(np.int32)


def _check_units(index: Any, channels: int, where: str) -> np.ndarray:
    if index is None:
        return np.arange(channels, dtype=np.int32)
    array = np.asarray(index)
    wrong = np.unique(array[(array < 0) | (array >= channels)])
    if wrong.size:
        raise UnitError(f"{where} has units 0 to {channels - 1}; got {', '.join(map(str, wrong[:5]))}.")
    return array.astype(np.int32)


def check_position(position: Any, axis: int, shape: tuple[int, ...], layer: str, size: tuple[int, int]) -> np.ndarray | None:
    """Return rows (axis 0) or columns (axis 1), checked against a layer's shape for images of `size`; None stays None."""
    if position is None:
        return None
    if len(shape) == 1:
        raise ArgumentError(f"Layer {layer!r} has no positions (shape {shape}); leave y and x out.")
    return _check_units(position, shape[axis], f"{layer} ({'yx'[axis]} at {size[0]} x {size[1]} pixels)")


def move_position(position: Any, axis: int, shape: tuple[int, ...], other: tuple[int, ...]) -> np.ndarray | None:
    """Scale rows (axis 0) or columns (axis 1) from a layer of `shape` to the shape `other`; None stays None."""
    return None if position is None else (np.asarray(position) * other[axis] // shape[axis]).astype(np.int32)


def at_position(act: Array, y: ArrayLike | None, x: ArrayLike | None) -> Array:
    """Return row y and column x of (S, h, w, C), the center for None; (S, C) has no positions and stays as it is."""
    if act.ndim == 2:
        return act
    row = act.shape[1] // 2 if y is None else y
    column = act.shape[2] // 2 if x is None else x
    return act[:, row, column, :]


def numbered(name: str, arrays: ArrayLike, rank: int) -> tuple[str, ...]:
    """Return a label for each of K arrays of `rank` axes, or the name alone for one."""
    shape = np.shape(arrays)
    return tuple(f"{name}:{i}" for i in range(shape[0])) if len(shape) > rank else (name,)


def norm(values: Array) -> Array:
    """Return the L2 norm over the last axis, with a finite gradient at zero."""
    total = jnp.square(values).sum(-1)
    return jnp.where(total > 0, jnp.sqrt(jnp.where(total > 0, total, 1)), 0)


def _spatial_mean(act: Array) -> Array:
    return act.reshape(act.shape[0], -1, act.shape[-1]).mean(1)


def _select(values: Array, index: ArrayLike | None) -> Array:
    """Return values[:, index] by a one-hot sum, whose gradient is a product and not a scatter; exact at any precision."""
    return (values * jax.nn.one_hot(index, values.shape[-1], dtype=values.dtype)).sum(-1)
