"""A network's layers made random again, one after the other from the top."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx

from jaxviz._errors import ArgumentError, LayerError, UnsupportedError, near_matches
from jaxviz._types import Array
from jaxviz.models import Model
from jaxviz.ops._conv.winograd_f4 import plain_kernel

Draw: TypeAlias = Callable[[Array, str, Array], Array]
CONSTANTS = {"bias": 0.0, "scale": 1.0, "mean": 0.0, "var": 1.0}


def initial(key: Array, path: str, value: Array) -> Array:
    """Return what a parameter was before training, as this library's and torchvision's networks begin.

    Kernels of convolutions are normal with variance 2 / (window x channels out), those of linear layers with deviation 0.01,
    biases 0; batch normalisation has scale 1, bias 0, mean 0 and variance 1.

    Args:
        key: of `jax.random`.
        path: such as `"layer1.0.conv1.kernel"`.
        value: of the trained network.

    Raises:
        UnsupportedError: a parameter of another name; pass a function like this one as `draw`.
    """
    name = path.rsplit(".", 1)[-1]
    if name in CONSTANTS:
        return jnp.full(value.shape, CONSTANTS[name], value.dtype)
    if name != "kernel" or value.ndim < 2:
        raise UnsupportedError(
            f"How {path!r} of shape {tuple(value.shape)} begins is not known. Pass draw=fn(key, path, value), which returns an "
            "array of the same shape, and call jaxviz.metrics.initial for those that are known."
        )
    std = 0.01 if value.ndim == 2 else math.sqrt(2 / (math.prod(value.shape[:-2]) * value.shape[-1]))
    # In a row, then reshaped: XLA's CPU compiler takes many seconds over random numbers of four axes.
    return std * jax.random.normal(key, (value.size,), value.dtype).reshape(value.shape)


def cascade(
    model: Model, layers: Sequence[str] | None = None, *, seed: int = 0, draw: Draw = initial
) -> Iterator[tuple[str, Model]]:
    """Yield each layer's name and the model in which this layer and all before it in the cascade are random.

    Args:
        model: a network of modules.
        layers: names of modules, everything inside one goes at once, from the top down. Each with weights of its own unless
            given (a batch normalisation goes with the convolution before it).
        seed: a layer's new weights depend on it and on the layer's name alone.
        draw: makes a parameter, see `initial`.

    Raises:
        LayerError: a module that the network does not have.
        UnsupportedError: a pure function; or a parameter that `draw` does not know.
    """
    flat = dict(_parameters(model))
    state, done = dict(flat), set[tuple]()
    for name in weight_layers(model) if layers is None else layers:
        group = name.split("+")
        for part in group:
            inside = [path for path in flat if (dotted := _dotted(path)).startswith(f"{part}.") or dotted == part]
            if not inside:
                known = {_dotted(path).rsplit(".", 1)[0] for path in flat}
                raise LayerError(f"The network has no module {part!r} with parameters.{near_matches(part, known)}")
            for path in inside:
                if path in done:
                    continue
                key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(_dotted(path).encode()))
                old = plain_kernel(flat[path].get_value())
                value = draw(key, _dotted(path), old)
                if value.shape != old.shape:
                    raise ArgumentError(f"draw made {value.shape} of {_dotted(path)!r}; expected {old.shape}.")
                state[path] = flat[path].replace(jnp.asarray(value, old.dtype))
                done.add(path)
        yield name, dataclasses.replace(model, state=nnx.from_flat_state(list(state.items())))


def weight_layers(model: Model) -> list[str]:
    """Return the network's layers with weights, the last computed first; `"conv1+bn1"` is one with its normalisation.

    Raises:
        UnsupportedError: a pure function, or a network whose parameters cannot be placed in the order of computation.
    """
    order = [node.name for node in model.layers()]
    modules: dict[str, bool] = {}
    for path, _ in _parameters(model):
        module, leaf = _dotted(path[:-1]), str(path[-1])
        modules[module] = modules.get(module, False) or leaf not in CONSTANTS

    def place(module: str) -> int:
        for i, node in enumerate(order):
            if node == module or module.startswith(f"{node}.") or node.startswith(f"{module}."):
                return i
        raise UnsupportedError(
            f"No value that the network shows to `tap` has the name of its module {module!r}: give the layers, the last first."
        )

    found: list[str] = []
    for module in sorted(modules, key=place):
        if modules[module] or not found:
            found.append(module)
        else:
            found[-1] += f"+{module}"
    return found[::-1]


def _parameters(model: Model) -> list[tuple[tuple, Any]]:
    if not isinstance(model.state, nnx.State):
        raise UnsupportedError("Only a network of modules can be made random layer by layer; this model is a pure function.")
    return list(nnx.to_flat_state(model.state))


def _dotted(path: tuple) -> str:
    return ".".join(map(str, path))
