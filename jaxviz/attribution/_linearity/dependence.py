"""How the results of a program depend on its inputs, read from its primitives: not at all, affinely, or otherwise."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxviz.attribution._target import ClassTarget, Target
from jaxviz.models._network import Avals


class Dependence(enum.IntEnum):
    """How a value depends on the varied inputs; a sum of two values has the larger dependence."""

    NONE = 0
    AFFINE = 1  # a product with constants, plus a constant
    CURVED = 2  # anything else


# Primitives that are linear in all operands together, up to rounding.
_SUMS = {
    "add", "add_any", "sub", "neg", "reduce_sum", "cumsum", "reduce_window_sum", "reshape", "transpose", "broadcast_in_dim",
    "squeeze", "expand_dims", "slice", "split", "rev", "concatenate", "pad", "copy", "copy_p", "reduce_precision",
    "optimization_barrier",
}  # fmt: skip
_PRODUCTS = {"mul", "dot_general", "conv_general_dilated"}  # linear in one factor if the others are constant
_FIRST_ONLY = {"div", "gather", "dynamic_slice"}  # linear in the first operand if all others are constant
_CALLS = {"jit", "pjit", "closed_call", "core_call", "remat", "checkpoint"}  # and all custom_*

Override: TypeAlias = Callable[[Any, Sequence[Dependence]], Dependence | None]  # None leaves an equation to `dependence`


def dependence(
    jaxpr: Any, inputs: Sequence[Dependence], override: Override = lambda equation, operands: None
) -> list[Dependence]:
    """Return for each result of a jaxpr how it depends on the inputs.

    Primitives that are not known to be linear count as curved, such as a ReLU or an argmax. The programs of inner calls are
    walked too.

    Args:
        jaxpr: `jax.make_jaxpr(f)(x).jaxpr`.
        inputs: the dependence of each input.
        override: called with each equation that has a varied operand, and the dependence of its operands.
    """
    known: dict[Any, Dependence] = dict(zip(jaxpr.invars, inputs, strict=True))

    def of(atom: Any) -> Dependence:
        return Dependence.NONE if hasattr(atom, "val") else known.get(atom, Dependence.NONE)  # literals have a value

    for equation in jaxpr.eqns:
        results = _results(equation, [of(atom) for atom in equation.invars], override)
        known.update(zip(equation.outvars, results, strict=True))
    return [of(atom) for atom in jaxpr.outvars]


def dependence_on_first(fn: Callable[..., Any], first: Any, *rest: Any) -> list[Dependence]:
    """Return how each result of a function depends on its first argument, an array; traced with shapes, nothing is computed."""
    jaxpr = jax.make_jaxpr(fn)(first, *rest).jaxpr
    return dependence(jaxpr, [Dependence.AFFINE] + [Dependence.NONE] * (len(jaxpr.invars) - 1))


def target_key(target: Target) -> tuple[Any, Avals]:
    """Return what the operations of a target depend on: the arguments of `abstract_target`."""
    leaves, treedef = jax.tree.flatten(target)
    return treedef, tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)


def abstract_target(treedef: Any, shapes: Avals) -> tuple[Target, jax.ShapeDtypeStruct | None]:
    """Return a target of a key, and the index of one class of one image, where it is about classes."""
    target = jax.tree.unflatten(treedef, [jax.ShapeDtypeStruct(*shape) for shape in shapes])
    return target, jax.ShapeDtypeStruct((1, 1), jnp.int32) if isinstance(target, ClassTarget) else None


def _results(equation: Any, operands: list[Dependence], override: Override) -> list[Dependence]:
    count, highest = len(equation.outvars), max(operands, default=Dependence.NONE)
    if highest == Dependence.NONE:
        return [Dependence.NONE] * count
    decided = override(equation, operands)
    if decided is not None:
        return [decided] * count
    inner = _called(equation)
    if inner is not None:
        return dependence(inner, operands, override)
    if equation.primitive.name == "cond" and not operands[0]:  # a choice by platform
        branches = [dependence(branch.jaxpr, operands[1:], override) for branch in equation.params["branches"]]
        return [max(kinds) for kinds in zip(*branches, strict=True)]
    return [highest if is_linear(equation, operands) else Dependence.CURVED] * count


def is_entered(equation: Any, operands: Sequence[Dependence]) -> bool:
    """Return whether `dependence` walks through the program that an equation calls, or the branches of a choice by platform."""
    return _called(equation) is not None or (equation.primitive.name == "cond" and not operands[0])


def is_linear(equation: Any, operands: Sequence[Dependence]) -> bool:
    """Return whether an equation is linear in its varied operands together."""
    name = equation.primitive.name
    varied = sum(kind > Dependence.NONE for kind in operands)
    return (
        name in _SUMS
        or (name in _PRODUCTS and varied == 1)
        or (name in _FIRST_ONLY and not any(operands[1:]))
        or (name == "select_n" and not operands[0])
        or (name == "convert_element_type" and equation.outvars[0].aval.dtype.kind == "f")
        or (name == "integer_pow" and equation.params["y"] == 1)
    )


def _called(equation: Any) -> Any:
    """Return the jaxpr that an equation calls (`jit`, a function with a custom derivative), or None."""
    name = equation.primitive.name
    if not (name in _CALLS or name.startswith("custom_")):
        return None
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr", "call"):
        inner = equation.params.get(key)
        if inner is not None:
            inner = getattr(inner, "jaxpr", inner)
            return inner if len(inner.invars) == len(equation.invars) else None
    return None
