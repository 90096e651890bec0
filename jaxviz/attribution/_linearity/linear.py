"""Whether what a network computes beside its table of operations is linear: relevance goes through that, and nothing else."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxviz._errors import UnsupportedError
from jaxviz.models import Model, calls_through_ops, captured
from jaxviz.ops import EXACT, Ops

_PREFIX = "jaxviz_operation_"
_ANY = frozenset(  # linear in all of their inputs, or a choice of places
    (
        "add add_any sub neg reduce_sum cumsum reduce_window_sum concatenate pad reshape transpose squeeze expand_dims slice "
        "rev broadcast_in_dim copy copy_p convert_element_type reduce_precision optimization_barrier split"
    ).split()
)
_FIRST = frozenset("div dynamic_slice gather".split())  # in the first, given the others
_ONE = frozenset(("mul",))  # in one of them, given the other
_INSIDE = frozenset("pjit jit closed_call core_call remat checkpoint custom_lin".split())


def check_linear(model: Model, size: tuple[int, int], names: Sequence[str], method: str) -> None:
    """Raise an UnsupportedError where a network computes something that is not linear, or a product with weights, on its own.

    Means, sums, reshapes and multiples by constants may be anywhere; ReLUs, max pooling, convolutions and matrix products have
    rules, which they only get by way of `ops`.

    Args:
        model: the network.
        size: (H, W) of the images.
        names: the layers up to which the network runs.
        method: for the message.
    """
    if not calls_through_ops(model):
        raise UnsupportedError(
            f"{method} has a rule for each operation of the network, but this one does not take its operations from a table. "
            "Use an nnx.Module whose __call__ has an argument `ops=jaxviz.ops.EXACT` and calls `ops.conv`, ... of it."
        )
    leaves, treedef = jax.tree.flatten(model.bare())
    avals = tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
    found = _not_linear(treedef, avals, (1, *size, model.in_channels), tuple(names))
    if found:
        raise UnsupportedError(
            f"{method} has a rule for each operation of `jaxviz.ops`, but {model.name or 'the network'} computes {found!r} "
            "itself. Call convolutions, products with weights, ReLUs and max pooling as `ops.conv`, `ops.linear`, `ops.relu`, "
            "`ops.max_pool`, ...; leave a softmax to the target (`jaxviz.attribution.probability`)."
        )


def _opaque() -> Ops:
    """Return the operations as calls that a walk through the program can tell by their names."""

    def wrap(name: str, fn: Any) -> Any:
        def operation(*args: Any, **options: Any) -> Any:
            def inner(*args: Any) -> Any:
                return fn(*args, **options)

            inner.__name__ = _PREFIX + name
            return jax.jit(inner)(*args)

        return operation

    return Ops(**{name: wrap(name, fn) for name, fn in vars(EXACT).items()})


@functools.lru_cache(maxsize=64)
def _not_linear(treedef: Any, avals: tuple, shape: tuple[int, ...], names: tuple[str, ...]) -> str:
    """Return the name of the first primitive that has no place between operations, or an empty string."""
    leaves = [jax.ShapeDtypeStruct(*aval) for aval in avals]
    program = jax.make_jaxpr(lambda leaves, x: captured(jax.tree.unflatten(treedef, leaves), x, names, ops=_opaque()))(
        leaves, jax.ShapeDtypeStruct(shape, "float32")
    )
    variables = program.jaxpr.invars
    return _walk(program.jaxpr, {variables[-1]}) or ""


def _walk(jaxpr: Any, known: set[Any]) -> str | None:
    """Return the first primitive that is not linear in what depends on the image; `known`, which grows, is all that does."""
    for equation in jaxpr.eqns:
        touched = [v for v in equation.invars if not hasattr(v, "val") and v in known]
        if not touched:
            continue
        name = equation.primitive.name
        if name in _INSIDE:
            called = equation.params.get("name", "")
            if not called.startswith(_PREFIX):
                inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
                inner = getattr(inner, "jaxpr", inner)
                found = _walk(inner, {b for a, b in zip(equation.invars, inner.invars, strict=True) if _is_in(a, known)})
                if found:
                    return found
        elif name in _FIRST:
            if touched != [equation.invars[0]]:
                return name
        elif name in _ONE:
            if len(touched) > 1:
                return name
        elif name not in _ANY:
            return equation.params.get("name") or name
        known.update(equation.outvars)
    return None


def _is_in(variable: Any, known: set[Any]) -> bool:
    return not hasattr(variable, "val") and variable in known
