"""Check that a network is linear outside of its table of operations, so that relevance can pass."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax

from jaxviz._errors import UnsupportedError
from jaxviz.attribution._linearity.dependence import Dependence, dependence, is_entered, is_linear
from jaxviz.models import Model, calls_through_ops, capture
from jaxviz.models._network import Structure
from jaxviz.ops import EXACT, Ops

_PREFIX = "jaxviz_operation_"
_WEIGHTED = ("dot_general", "conv_general_dilated")  # products with weights have rules, as operations of `ops` only


def check_linear(model: Model, size: tuple[int, int], names: Sequence[str], method: str) -> None:
    """Raise an UnsupportedError if a network has a nonlinearity, or a product with weights, outside of `ops`.

    Means, sums, reshapes and multiples by constants may be anywhere. ReLUs, max pooling, convolutions and matrix products have
    rules, which only operations of `ops` get.

    Args:
        model: the network.
        size: (H, W) of the images.
        names: the layers up to which the network runs.
        method: for the message.
    """
    if not calls_through_ops(model.network):
        raise UnsupportedError(
            f"{method} has a rule for each operation of the network, but this one does not take its operations from a table. "
            "Use an nnx.Module whose __call__ has an argument `ops=jaxviz.ops.EXACT` and calls `ops.conv`, ... of it."
        )
    found = _not_linear(model.network.structure, size, tuple(names))
    if found:
        raise UnsupportedError(
            f"{method} has a rule for each operation of `jaxviz.ops`, but {model.name or 'the network'} computes {found!r} "
            "itself. Call convolutions, products with weights, ReLUs and max pooling as `ops.conv`, `ops.linear`, `ops.relu`, "
            "`ops.max_pool`, ...; leave a softmax to the target (`jaxviz.attribution.probability`)."
        )


def _opaque() -> Ops:
    """Return the operations as calls with names that a walk through the program recognizes."""

    def wrap(name: str, fn: Any) -> Any:
        def operation(*args: Any, **options: Any) -> Any:
            def inner(*args: Any) -> Any:
                return fn(*args, **options)

            inner.__name__ = _PREFIX + name
            return jax.jit(inner)(*args)

        return operation

    return Ops(**{name: wrap(name, fn) for name, fn in vars(EXACT).items()})


@functools.lru_cache(maxsize=64)
def _not_linear(structure: Structure, size: tuple[int, int], names: tuple[str, ...]) -> str:
    """Return the name of the first primitive that is not linear and not an operation of `ops`, or an empty string."""
    network = structure.abstract()
    image = jax.ShapeDtypeStruct((1, *size, network.in_channels), "float32")
    program = jax.make_jaxpr(lambda network, x: capture(network, x, names, ops=_opaque()))(network, image)
    return _first_not_linear(program.jaxpr)


def _first_not_linear(jaxpr: Any) -> str:
    """Return the first primitive outside of `ops` that is not linear in the last input, the images; "" if there is none."""
    offenders: list[str] = []

    def override(equation: Any, operands: Sequence[Dependence]) -> Dependence | None:
        name, called = equation.primitive.name, str(equation.params.get("name", ""))
        if called.startswith(_PREFIX):
            return Dependence.AFFINE
        if name == "custom_lin" or (is_entered(equation, operands) and not name.startswith("custom_")):
            return None
        if is_linear(equation, operands) and name not in _WEIGHTED:
            return None
        offenders.append(called or name)
        return Dependence.CURVED

    inputs = [Dependence.NONE] * (len(jaxpr.invars) - 1) + [Dependence.AFFINE]
    dependence(jaxpr, inputs, override)
    return offenders[0] if offenders else ""
