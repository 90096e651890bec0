"""Prepare a network's kernels for `ops.fast_conv`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx

from jaxviz._types import Array
from jaxviz.models._layers import Conv
from jaxviz.models._model import Model
from jaxviz.models._taps import activations
from jaxviz.ops import EXACT, prepare_kernel


def prepared(model: Model, names: Sequence[str], size: tuple[int, int]) -> Model:
    """Return the network with the kernels prepared that the layers `names` of images of a size depend on.

    Kernels of a network's own modules, rather than of this library's `Conv`, stay as they are.
    """
    used = _used_kernels(model, names, size)
    module: Any = nnx.merge(model.graphdef, model.state)
    for path, node in nnx.iter_graph(module):
        if isinstance(node, Conv) and (*path, "kernel") in used:
            kernel: Any = node.kernel.get_value()
            node.kernel.set_value(prepare_kernel(kernel, stride=node.stride, dilation=node.dilation, groups=node.groups))
    graphdef, state = nnx.split(module)
    return dataclasses.replace(model, graphdef=graphdef, state=state)


def _used_kernels(model: Model, names: Sequence[str], size: tuple[int, int]) -> set[tuple[Any, ...]]:
    seen: set[tuple[Any, ...]] = set()

    def trace(state: Any, images: Array) -> None:
        paths = {id(variable.get_value()): tuple(path) for path, variable in nnx.to_flat_state(state)}

        def conv(x: Array, kernel: Array, *arguments: Any, **options: Any) -> Array:
            seen.add(paths.get(id(kernel), ()))
            return EXACT.conv(x, kernel, *arguments, **options)

        activations(dataclasses.replace(model, state=state), images, names, ops=dataclasses.replace(EXACT, conv=conv))

    jax.eval_shape(trace, model.state, jax.ShapeDtypeStruct((1, *size, model.in_channels), "float32"))
    return seen
