"""Networks whose kernels are prepared for the fastest convolutions that a CPU has."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx

from jaxviz._types import Array
from jaxviz.models._model import Model
from jaxviz.models._taps import Function, abstract, abstract_image, activations, signature
from jaxviz.models._zoo.layers import Conv
from jaxviz.ops import EXACT
from jaxviz.ops._conv.winograd import suits_winograd
from jaxviz.ops._conv.winograd_f2 import hoist_kernel
from jaxviz.ops._conv.winograd_f4 import PreparedKernel, plain_kernel, prepare_kernel


def prepared(model: Model, names: Sequence[str] | None = None, size: tuple[int, int] | None = None) -> Model:
    """Return what `Model.fast` does; with `names`, only with the kernels prepared that these layers depend on.

    Kernels of a network's own modules, rather than of this library's `Conv`, stay as they are.
    """
    used = None if names is None else _used_kernels(model, names, size or model.input_size)

    def prepare(path: tuple[Any, ...], layer: Conv, kernel: Any) -> Any:
        if isinstance(kernel, PreparedKernel) or kernel.shape[:2] == (1, 1):
            return kernel
        if used is not None and (*path, "kernel") not in used:
            return kernel
        return prepare_kernel(kernel, stride=layer.stride, dilation=layer.dilation, groups=layer.groups)

    return _with_kernels(model, prepare)


def for_many_steps(model: Model) -> Model:
    """Return the network with what every step would make of its kernels anew, for use inside traced code, around a loop."""

    def prepare(path: tuple[Any, ...], layer: Conv, kernel: Any) -> Any:
        if isinstance(kernel, PreparedKernel) or not suits_winograd(kernel, layer.stride, layer.dilation, layer.groups):
            return kernel
        return hoist_kernel(kernel)

    return model if isinstance(model.graphdef, Function) else _with_kernels(model, prepare)


def _with_kernels(model: Model, prepare: Callable[[tuple[Any, ...], Conv, Any], Any]) -> Model:
    module: Any = nnx.merge(model.graphdef, model.state, copy=True)  # else these changes would be the given model's
    for path, node in nnx.iter_graph(module):
        if isinstance(node, Conv):
            node.kernel.set_value(prepare(path, node, node.kernel.get_value()))
    graphdef, state = nnx.split(module)
    return dataclasses.replace(model, graphdef=graphdef, state=state)


def _used_kernels(model: Model, names: Sequence[str], size: tuple[int, int]) -> frozenset[tuple[Any, ...]]:
    return _traced_kernels(*signature(model), abstract_image(model, size), tuple(names))


@functools.lru_cache(maxsize=256)
def _traced_kernels(
    treedef: Any, avals: tuple, image: jax.ShapeDtypeStruct, names: tuple[str, ...]
) -> frozenset[tuple[Any, ...]]:
    seen: set[tuple[Any, ...]] = set()

    def trace(model: Model, images: Array) -> None:
        paths = {id(plain_kernel(variable.get_value())): tuple(path) for path, variable in nnx.to_flat_state(model.state)}

        def conv(x: Array, kernel: Array, *arguments: Any, **options: Any) -> Array:
            seen.add(paths.get(id(plain_kernel(kernel)), ()))
            return EXACT.conv(x, kernel, *arguments, **options)

        activations(model, images, names, ops=dataclasses.replace(EXACT, conv=conv))

    jax.eval_shape(trace, abstract(treedef, avals), image)
    return frozenset(seen)
