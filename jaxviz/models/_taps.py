"""Taps: look at, or change, any value inside a network; stop as soon as the last wanted value is known."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx

from jaxviz._errors import LayerError, UnsupportedError, near_matches
from jaxviz._types import Array, ArrayLike
from jaxviz.models._network import Network, PureFunction, Structure
from jaxviz.ops import EXACT, Ops

Tap: TypeAlias = Callable[[str, Array], Array]


def no_tap(name: str, value: Array) -> Array:
    """Default tap: return `value` unchanged."""
    return value


def scope(tap: Tap, prefix: str | int) -> Tap:
    """Return a tap that puts `prefix` and a dot before every name, for passing to a submodule."""
    return lambda name, value: tap(f"{prefix}.{name}", value)


class Stop(Exception):
    """Raised by a tap to leave the network early; deeper layers are then never traced."""


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


def run(network: Network, x: Array, tap: Tap, ops: Ops) -> Array:
    """Return the logits of normalized images; every name that the tap sees is unique."""
    graphdef, state = network.graphdef, network.state
    if isinstance(graphdef, PureFunction):
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


def calls_through_ops(network: Network) -> bool:
    """Say whether the network takes its operations from an `ops` table, so that a rule can replace one of them."""
    return not isinstance(network.graphdef, PureFunction) and _calls_through_ops(network.structure)


@functools.lru_cache(maxsize=256)
def _calls_through_ops(structure: Structure) -> bool:
    return takes(jax.eval_shape(lambda network: nnx.merge(network.graphdef, network.state), structure.abstract()), "ops")


def has_batch_norm(network: Network) -> bool | None:
    """Say whether the network has batch normalization; None where it does not take its operations from an `ops` table."""
    return _has_batch_norm(network.structure) if calls_through_ops(network) else None


@functools.lru_cache(maxsize=256)
def _has_batch_norm(structure: Structure) -> bool:
    seen: list[Array] = []
    network = structure.abstract()

    def batch_norm(x: Array, *arguments: Any, **options: Any) -> Array:
        seen.append(x)
        return EXACT.batch_norm(x, *arguments, **options)

    ops = dataclasses.replace(EXACT, batch_norm=batch_norm)
    jax.eval_shape(lambda network, x: run(network, x, no_tap, ops), network, network.abstract_image(network.input_size))
    return bool(seen)


def nodes(network: Network, size: tuple[int, int]) -> tuple[Node, ...]:
    """Return every tapped value of the network for images of this size (H, W), in the order of computation."""
    return _nodes(network.structure, size)


@functools.lru_cache(maxsize=256)
def _nodes(structure: Structure, size: tuple[int, int]) -> tuple[Node, ...]:
    tapped: list[Node] = []
    network = structure.abstract()

    def tap(name: str, value: Array) -> Array:
        tapped.append(Node(name, value.shape[1:]))
        return value

    jax.eval_shape(lambda network, x: run(network, x, tap, EXACT), network, network.abstract_image(size))
    return tuple(tapped)


def layer_shape(network: Network, name: str, size: tuple[int, int]) -> tuple[int, ...]:
    """Return the shape of a layer's value for one image of this size (H, W): (h, w, C) or (C,)."""
    known = {node.name: node.shape for node in nodes(network, size)}
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


def normalize(network: Network, images: ArrayLike) -> Array:
    """Return `(images - mean) / std` per channel."""
    return (jnp.asarray(images) - network.mean[None, None, None, :]) / network.std[None, None, None, :]


def forward(network: Network, images: ArrayLike, *, tap: Tap = no_tap, ops: Ops = EXACT) -> Array:
    """Return the logits (N, classes) of images float32 (N, H, W, C) in [0, 1]; for use inside traced code.

    `tap(name, value) -> value` sees, and may replace, every value on the way. Nothing is checked or compiled here:
    `model(images)` does both.
    """
    return run(network, normalize(network, images), tap, ops)


def activations(network: Network, images: ArrayLike, names: Sequence[str], *, ops: Ops = EXACT) -> dict[str, Array]:
    """Return the values of some layers; for use inside traced code.

    The network stops at the deepest of them, so deeper layers are never traced.

    Args:
        network: the network.
        images: float32 (N, H, W, C) in [0, 1].
        names: names of nodes or modules; the keys of the result.
        ops: the operations to compute with.

    Returns:
        For each name float32 (N, h, w, channels), or (N, channels) after the layer that flattens.

    Raises:
        LayerError: a name that the network does not have.
    """
    return capture(network, normalize(network, images), names, ops=ops)


def capture(network: Network, x: Array, names: Sequence[str], *, ops: Ops = EXACT, tap: Tap = no_tap) -> dict[str, Array]:
    """Return what `activations` returns, given normalized images `x`; values go through `tap` first, which may replace them."""
    node_names = [node.name for node in nodes(network, (x.shape[1], x.shape[2]))]
    node_of = {name: resolve(name, node_names) for name in names}
    values = _run_until(network, x, set(node_of.values()), tap, ops)
    return {name: values[node] for name, node in node_of.items()}


def intervene(
    network: Network,
    images: ArrayLike,
    names: Sequence[str],
    changes: Mapping[str, Callable[[Array], Array]],
    *,
    ops: Ops = EXACT,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the values of some layers with those of others changed, and these as they were; for use inside traced code.

    For derivatives with respect to what a change adds, and for many changes at once (`jax.vmap`), only what lies above the
    changed layers is computed again; where a change ignores its argument, nothing below it is computed.

    Args:
        network: the network.
        images: float32 (N, H, W, C) in [0, 1].
        names: names of nodes or modules; the keys of the first result.
        changes: for each layer, a node or a module (its last node), a function of its value that returns the new value, of
            the same shape.
        ops: the operations to compute with.

    Returns:
        The values of `names`, and those of the layers of `changes` before the change.

    Raises:
        LayerError: a name that the network does not have.

    >>> acts, before = intervene(model.network, images, ("output",), {"layer3": jnp.zeros_like})
    >>> acts["output"].shape, before["layer3"].shape
    ((2, 10), (2, 8, 8, 256))
    """
    node_names = [node.name for node in nodes(network, (images.shape[1], images.shape[2]))]
    node_of = {name: resolve(name, node_names) for name in names}
    changed = {resolve(layer, node_names): layer for layer in changes}
    before: dict[str, Array] = {}

    def change(name: str, value: Array) -> Array:
        if name not in changed:
            return value
        layer = changed[name]
        before[layer] = value
        return changes[layer](value)

    values = _run_until(network, normalize(network, images), {*changed, *node_of.values()}, change, ops)
    return {name: values[node] for name, node in node_of.items()}, before


def _run_until(network: Network, x: Array, targets: set[str], tap: Tap, ops: Ops) -> dict[str, Array]:
    """Run until every node of `targets` has a value, after `tap`; deeper layers are never traced."""
    values: dict[str, Array] = {}

    def record(name: str, value: Array) -> Array:
        value = tap(name, value)
        if name in targets:
            values[name] = value
            if len(values) == len(targets):
                raise Stop
        return value

    if targets:
        try:
            run(network, x, record, ops)
        except Stop:
            pass
    return values
