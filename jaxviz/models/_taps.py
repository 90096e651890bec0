"""Taps: look at, or change, any value inside a network; stop as soon as the last wanted value is known."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx

from jaxviz._errors import LayerError, UnsupportedError, near_matches
from jaxviz._types import Array, ArrayLike
from jaxviz.ops import EXACT, Ops

if TYPE_CHECKING:
    from jaxviz.models._model import Model

Tap: TypeAlias = Callable[[str, Array], Array]


def no_tap(name: str, value: Array) -> Array:
    """Return the value: the tap of a network that nobody looks into."""
    return value


def scope(tap: Tap, prefix: str | int) -> Tap:
    """Return a tap that puts `prefix` and a dot before every name, for passing to a submodule."""
    return lambda name, value: tap(f"{prefix}.{name}", value)


class Stop(Exception):
    """Raised by a tap to leave the network early; deeper layers are then never traced."""


@dataclasses.dataclass(frozen=True)
class Function:
    """A pure function in the place of a network's graph: `fn(images)`, or `fn(params, images)` where it has any."""

    fn: Callable[..., Array]
    has_params: bool = False

    def __call__(self, params: Any, images: Array) -> Array:
        return self.fn(params, images) if self.has_params else self.fn(images)


class Node(NamedTuple):
    """One tapped value: its name and its shape without the batch axis."""

    name: str
    shape: tuple[int, ...]


def takes(module: nnx.Module | type, argument: str) -> bool:
    """Say whether the module's `__call__` has a parameter of this name (or takes any keyword)."""
    call = type(module).__call__ if isinstance(module, nnx.Module) else module.__call__
    parameters = inspect.signature(call).parameters
    return argument in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _numbered(tap: Tap) -> Tap:
    """Name a second value of the same name `name_1`, the third `name_2`, ..., as torchvision does."""
    seen: set[str] = set()

    def numbered(name: str, value: Array) -> Array:
        unique, count = name, 0
        while unique in seen:
            count += 1
            unique = f"{name}_{count}"
        seen.add(unique)
        return tap(unique, value)

    return numbered


def run(graphdef: Any, state: Any, x: Array, tap: Tap, ops: Ops) -> Array:
    """Run a network or a pure function on normalised images; every name that the tap sees is unique."""
    if isinstance(graphdef, Function):
        if ops != EXACT:
            raise UnsupportedError(
                "A rule such as guided backpropagation replaces an operation inside the network, but this model is a "
                "pure function that cannot be looked into. Use an nnx.Module that calls its operations through `ops`."
            )
        return tap("output", graphdef(state, x))
    module: Any = nnx.merge(graphdef, state)
    if takes(module, "ops"):
        return module(x, tap=_numbered(tap), ops=ops)
    if ops != EXACT:
        raise UnsupportedError(
            f"A rule such as guided backpropagation replaces an operation inside the network, but {type(module).__name__} "
            "calls its operations directly. Give its __call__ an argument `ops=jaxviz.ops.EXACT` and call `ops.conv`, "
            "`ops.relu`, ... with it."
        )
    return module(x, tap=_numbered(tap))


def calls_through_ops(model: Model) -> bool:
    """Say whether the network takes its operations from an `ops` table, so that a rule can replace one of them."""
    return not isinstance(model.graphdef, Function) and _calls_through_ops(model.graphdef, *signature(model.state))


@functools.lru_cache(maxsize=256)
def _calls_through_ops(graphdef: Any, treedef: Any, avals: tuple) -> bool:
    return takes(jax.eval_shape(lambda state: nnx.merge(graphdef, state), abstract(treedef, avals)), "ops")


def signature(state: Any) -> tuple[Any, tuple]:
    """Return what a network's structure depends on: the structure of its weights, and their shapes and types."""
    leaves, treedef = jax.tree.flatten(state)
    return treedef, tuple((leaf.shape, leaf.dtype) for leaf in leaves)


def abstract(treedef: Any, avals: tuple) -> Any:
    return jax.tree.unflatten(treedef, [jax.ShapeDtypeStruct(*aval) for aval in avals])


def abstract_image(model: Model, size: tuple[int, int]) -> jax.ShapeDtypeStruct:
    """Return one image (1, H, W, C) as the network sees it: float32, or float64 where the model's mean and std are."""
    return jax.ShapeDtypeStruct((1, *size, model.in_channels), jnp.result_type(jnp.float32, model.mean, model.std))


def is_normalised(model: Model) -> bool | None:
    """Say whether the network has batch normalisation; None where it does not take its operations from an `ops` table."""
    if not calls_through_ops(model):
        return None
    return _is_normalised(model.graphdef, *signature(model.state), abstract_image(model, model.input_size))


@functools.lru_cache(maxsize=256)
def _is_normalised(graphdef: Any, treedef: Any, avals: tuple, image: jax.ShapeDtypeStruct) -> bool:
    seen: list[Array] = []

    def batch_norm(x: Array, *arguments: Any, **options: Any) -> Array:
        seen.append(x)
        return EXACT.batch_norm(x, *arguments, **options)

    ops = dataclasses.replace(EXACT, batch_norm=batch_norm)
    jax.eval_shape(lambda s, x: run(graphdef, s, x, no_tap, ops), abstract(treedef, avals), image)
    return bool(seen)


def nodes(model: Model, size: tuple[int, int]) -> tuple[Node, ...]:
    """Return every tapped value of the network for images of this size (H, W), in the order of computation."""
    return _nodes(model.graphdef, *signature(model.state), abstract_image(model, size))


@functools.lru_cache(maxsize=256)
def _nodes(graphdef: Any, treedef: Any, avals: tuple, image: jax.ShapeDtypeStruct) -> tuple[Node, ...]:
    found: list[Node] = []

    def tap(name: str, value: Array) -> Array:
        found.append(Node(name, value.shape[1:]))
        return value

    jax.eval_shape(lambda s, x: run(graphdef, s, x, tap, EXACT), abstract(treedef, avals), image)
    return tuple(found)


def layer_shape(model: Model, name: str, size: tuple[int, int]) -> tuple[int, ...]:
    """Return the shape of a layer's value for one image of this size (H, W): (h, w, C) or (C,)."""
    known = {node.name: node.shape for node in nodes(model, size)}
    return known[resolve(name, list(known))]


def resolve(name: str, names: Sequence[str]) -> str:
    """Return the node that a user's name means, among the network's node names in the order of computation.

    An exact node name wins; `"output"` and `"logits"` are the last node; the path of a module is its last node.

    Raises:
        LayerError: no such node; the message suggests names that look alike.
    """
    if name in names:
        return name
    if name in ("output", "logits"):
        return names[-1]
    inside = [n for n in names if n.startswith(f"{name}.")]
    if inside:
        return inside[-1]
    modules = {".".join(parts[:k]) for parts in (n.split(".") for n in names) for k in range(1, len(parts))}
    raise LayerError(
        f"The network has no layer {name!r}.{near_matches(name, [*names, *sorted(modules)])} model.layers() lists all of them."
    )


def normalised(model: Model, images: ArrayLike) -> Array:
    """Return `(images - mean) / std` per channel."""
    return (jnp.asarray(images) - model.mean[None, None, None, :]) / model.std[None, None, None, :]


def forward(model: Model, images: ArrayLike, *, tap: Tap = no_tap, ops: Ops = EXACT) -> Array:
    """Return the logits (N, classes) of images float32 (N, H, W, C) in [0, 1]; for use inside traced code.

    `tap(name, value) -> value` sees, and may replace, every value on the way. Nothing is checked or compiled here:
    `model(images)` does both.
    """
    return run(model.graphdef, model.state, normalised(model, images), tap, ops)


def activations(model: Model, images: ArrayLike, names: Sequence[str], *, ops: Ops = EXACT) -> dict[str, Array]:
    """Return the values of some layers; for use inside traced code.

    The network stops at the deepest of them, so deeper layers are never traced.

    Args:
        model: the network.
        images: float32 (N, H, W, C) in [0, 1].
        names: names of nodes or modules; the keys of the result.
        ops: the operations to compute with.

    Returns:
        For each name float32 (N, h, w, channels), or (N, channels) after the layer that flattens.

    Raises:
        LayerError: a name that the network does not have.
    """
    return captured(model, normalised(model, images), names, ops=ops)


def captured(model: Model, x: Array, names: Sequence[str], *, ops: Ops = EXACT, tap: Tap = no_tap) -> dict[str, Array]:
    """Return what `activations` does, given normalised images; the network sees `x`, and what `tap` returns of values."""
    known = [node.name for node in nodes(model, (x.shape[1], x.shape[2]))]
    wanted = {name: resolve(name, known) for name in names}
    found: dict[str, Array] = {}

    def capture(name: str, value: Array) -> Array:
        value = tap(name, value)
        if name in wanted.values():
            found[name] = value
            if len(found) == len(set(wanted.values())):
                raise Stop
        return value

    if wanted:
        try:
            run(model.graphdef, model.state, x, capture, ops)
        except Stop:
            pass
    return {name: found[node] for name, node in wanted.items()}


def altered(
    model: Model, images: ArrayLike, names: Sequence[str], layer: str, change: Callable[[Array], Array], *, ops: Ops = EXACT
) -> tuple[dict[str, Array], Array]:
    """Return the values of some layers with another layer's value put through `change`, and that value as it was.

    For use inside traced code. Of a derivative with respect to what `change` adds, and of many changes at once (`jax.vmap`),
    only what lies above the layer is computed again; where `change` ignores its argument, nothing below it is computed.

    Args:
        model: the network.
        images: float32 (N, H, W, C) in [0, 1].
        names: names of nodes or modules; the keys of the result.
        layer: a node, or a module (its last node).
        change: takes the layer's value and returns what stands in its place, of the same shape.
        ops: the operations to compute with.

    Raises:
        LayerError: a name that the network does not have.
    """
    found, before = altered_layers(model, images, names, {layer: change}, ops=ops)
    return found, before[layer]


def altered_layers(
    model: Model, images: ArrayLike, names: Sequence[str], changes: Mapping[str, Callable[[Array], Array]], *, ops: Ops = EXACT
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the values of some layers with those of others changed, and these as they were; as `altered`.

    Args:
        model, images, names, ops: as of `altered`.
        changes: for each layer, a node or a module (its last node), what takes its value and returns what stands in its place.

    Raises:
        LayerError: a name that the network does not have.
    """
    known = [node.name for node in nodes(model, (images.shape[1], images.shape[2]))]
    wanted = {name: resolve(name, known) for name in names}
    changed = {resolve(layer, known): layer for layer in changes}
    missing = {*changed, *wanted.values()}
    found: dict[str, Array] = {}
    before: dict[str, Array] = {}

    def tap(name: str, value: Array) -> Array:
        if name in changed:
            before[changed[name]] = value
            value = changes[changed[name]](value)
        if name in missing:
            found[name] = value
            if len(found) == len(missing):
                raise Stop
        return value

    try:
        forward(model, images, tap=tap, ops=ops)
    except Stop:
        pass
    return {name: found[node] for name, node in wanted.items()}, before


def perturbed(model: Model, images: ArrayLike, name: str, delta: ArrayLike, *, ops: Ops = EXACT) -> tuple[Array, Array]:
    """Return the logits with `delta` added to a layer's value, and that value without it; inside traced code.

    The derivative of the logits with respect to `delta`, at zero, is their derivative with respect to the layer. As `altered`.
    """
    found, value = altered(model, images, ("output",), name, lambda value: value + delta, ops=ops)
    return found["output"], value
