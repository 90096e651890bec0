"""Networks whose kernels are prepared for the fastest convolutions that a CPU has."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx

from jaxviz._types import Array
from jaxviz.models._network import Network, PureFunction, Structure
from jaxviz.models._taps import activations
from jaxviz.models._zoo.layers import Conv
from jaxviz.ops import EXACT
from jaxviz.ops._conv.winograd import suits_winograd
from jaxviz.ops._conv.winograd_f2 import hoist_kernel
from jaxviz.ops._conv.winograd_f4 import PreparedKernel, plain_kernel, prepare_kernel


def prepare_kernels(network: Network, names: Sequence[str] | None = None, size: tuple[int, int] | None = None) -> Network:
    """Return the network with kernels prepared for Winograd's F(4 x 4, 3 x 3); with `names`, those that these layers need.

    Only kernels of this library's `Conv` are prepared, not those of other modules.
    """
    if isinstance(network.graphdef, PureFunction):
        return network
    used = None if names is None else _used_kernels(network.structure, tuple(names), size or network.input_size)

    def prepare(path: tuple[Any, ...], layer: Conv, kernel: Any) -> Any:
        if isinstance(kernel, PreparedKernel) or kernel.shape[:2] == (1, 1):
            return kernel
        if used is not None and (*path, "kernel") not in used:
            return kernel
        return prepare_kernel(kernel, stride=layer.stride, dilation=layer.dilation, groups=layer.groups)

    return _with_kernels(network, prepare)


def hoist_kernels(network: Network) -> Network:
    """Return the network with kernel transforms hoisted out of the loop; for use inside traced code."""

    def prepare(path: tuple[Any, ...], layer: Conv, kernel: Any) -> Any:
        if isinstance(kernel, PreparedKernel) or not suits_winograd(kernel, layer.stride, layer.dilation, layer.groups):
            return kernel
        return hoist_kernel(kernel)

    return _with_kernels(network, prepare)


def _with_kernels(network: Network, prepare: Callable[[tuple[Any, ...], Conv, Any], Any]) -> Network:
    if isinstance(network.graphdef, PureFunction):
        return network
    module: Any = nnx.merge(network.graphdef, network.state, copy=True)  # without a copy, the argument would change too
    for path, node in nnx.iter_graph(module):
        if isinstance(node, Conv):
            node.kernel.set_value(prepare(path, node, node.kernel.get_value()))
    graphdef, state = nnx.split(module)
    return dataclasses.replace(network, graphdef=graphdef, state=state)


@functools.lru_cache(maxsize=256)
def _used_kernels(structure: Structure, names: tuple[str, ...], size: tuple[int, int]) -> frozenset[tuple[Any, ...]]:
    """Return the paths of the kernels that these layers depend on."""
    seen: set[tuple[Any, ...]] = set()

    def trace(network: Network, images: Array) -> None:
        paths = {id(plain_kernel(variable.get_value())): tuple(path) for path, variable in nnx.to_flat_state(network.state)}

        def conv(x: Array, kernel: Array, *arguments: Any, **options: Any) -> Array:
            seen.add(paths.get(id(plain_kernel(kernel)), ()))
            return EXACT.conv(x, kernel, *arguments, **options)

        activations(network, images, names, ops=dataclasses.replace(EXACT, conv=conv))

    network = structure.abstract()
    jax.eval_shape(trace, network, network.abstract_image(size))
    return frozenset(seen)
