"""How what a program returns depends on what it is given, read from its operations: not at all, affinely, or otherwise."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxviz.attribution._target import ClassTarget, Target
from jaxviz.models import Model
from jaxviz.models._taps import abstract, signature


class Dependence(enum.IntEnum):
    """Of a value on what is varied; of two, the larger one holds for their sum."""

    NONE = 0
    AFFINE = 1  # a product with constants, plus a constant
    CURVED = 2  # anything else


# Operations that are linear in each operand by itself: a sum of one is affine if the others are constant or affine too.
_SUMS = {
    "add", "add_any", "sub", "neg", "reduce_sum", "cumsum", "reduce_window_sum", "reshape", "transpose", "broadcast_in_dim",
    "squeeze", "expand_dims", "slice", "rev", "concatenate", "pad", "copy", "copy_p", "optimization_barrier",
}  # fmt: skip
_PRODUCTS = {"mul", "dot_general", "conv_general_dilated"}  # affine in one factor while the other is constant
_FIRST_ONLY = {"div", "gather", "dynamic_slice"}  # affine in the first operand while all others are constant


def dependence(jaxpr: Any, given: Sequence[Dependence]) -> list[Dependence]:
    """Return for each result of a jaxpr how it depends on the inputs, whose own dependence is given.

    Operations that are not known to be linear count as curved: a ReLU above a layer, say, or an argmax.

    Args:
        jaxpr: as `jax.make_jaxpr(f)(x).jaxpr`.
        given: one for each of its inputs.
    """
    known: dict[Any, Dependence] = dict(zip(jaxpr.invars, given, strict=True))

    def of(atom: Any) -> Dependence:
        return Dependence.NONE if hasattr(atom, "val") else known.get(atom, Dependence.NONE)  # a literal has a value

    for equation in jaxpr.eqns:
        found = _results(equation, [of(atom) for atom in equation.invars])
        known.update(zip(equation.outvars, found, strict=True))
    return [of(atom) for atom in jaxpr.outvars]


def dependence_on_first(fn: Callable[..., Any], first: Any, *rest: Any) -> list[Dependence]:
    """Return how each result of a function depends on its first argument, an array; of shapes only, nothing is computed."""
    jaxpr = jax.make_jaxpr(fn)(first, *rest).jaxpr
    return dependence(jaxpr, [Dependence.AFFINE] + [Dependence.NONE] * (len(jaxpr.invars) - 1))


def network_key(model: Model) -> tuple[Any, Any, tuple]:
    """Return what a network's operations depend on, without its weights: the first arguments of `abstract_network`."""
    return model.graphdef, *signature(model.state)


def abstract_network(graphdef: Any, treedef: Any, avals: tuple, channels: int, dtype: Any = jnp.float32) -> Model:
    """Return a network of a key with shapes in the place of its weights; `dtype` is that of mean and std."""
    colour = jax.ShapeDtypeStruct((channels,), dtype)
    return Model(abstract(treedef, avals), colour, colour, graphdef)  # type: ignore[arg-type]


def target_key(target: Target) -> tuple[Any, tuple]:
    """Return what the operations of a target depend on: the arguments of `abstract_target`."""
    leaves, treedef = jax.tree.flatten(target)
    return treedef, tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)


def abstract_target(treedef: Any, shapes: tuple) -> tuple[Target, jax.ShapeDtypeStruct | None]:
    """Return a target of a key, and the index of one class of one image, where it is about classes."""
    target = jax.tree.unflatten(treedef, [jax.ShapeDtypeStruct(*shape) for shape in shapes])
    return target, jax.ShapeDtypeStruct((1, 1), jnp.int32) if isinstance(target, ClassTarget) else None


def _results(equation: Any, operands: list[Dependence]) -> list[Dependence]:
    name, count = equation.primitive.name, len(equation.outvars)
    highest = max(operands, default=Dependence.NONE)
    if highest == Dependence.NONE:
        return [Dependence.NONE] * count
    inner = _called(equation)
    if inner is not None:
        return dependence(inner, operands)
    if name == "cond" and not operands[0]:  # a choice by platform
        branches = [dependence(branch.jaxpr, operands[1:]) for branch in equation.params["branches"]]
        return [max(kinds) for kinds in zip(*branches, strict=True)]
    varied = sum(kind > Dependence.NONE for kind in operands)
    linear = (
        name in _SUMS
        or (name in _PRODUCTS and varied == 1)
        or (name in _FIRST_ONLY and not any(operands[1:]))
        or (name == "select_n" and not operands[0])
        or (name == "convert_element_type" and equation.outvars[0].aval.dtype.kind == "f")
        or (name == "integer_pow" and equation.params["y"] == 1)
    )
    return [highest if linear else Dependence.CURVED] * count


def _called(equation: Any) -> Any:
    """Return the jaxpr that an equation merely calls (`jit`, a function with a derivative of its own), or None."""
    name = equation.primitive.name
    if not (name in ("jit", "pjit", "closed_call", "core_call", "remat", "checkpoint") or name.startswith("custom_")):
        return None
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr", "call"):
        inner = equation.params.get(key)
        if inner is not None:
            inner = getattr(inner, "jaxpr", inner)
            return inner if len(inner.invars) == len(equation.invars) else None
    return None
