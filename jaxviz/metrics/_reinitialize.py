"""Reinitialize the layers of a network, one after the other from the top."""

from __future__ import annotations

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
Path: TypeAlias = tuple[Any, ...]
CONSTANTS = {"bias": 0.0, "scale": 1.0, "mean": 0.0, "var": 1.0}


def initial(key: Array, path: str, value: Array) -> Array:
    """Return a parameter as it is before training, as in torchvision's networks.

    Kernels of convolutions are normal with variance 2 / (window x output channels), those of linear layers with standard
    deviation 0.01, biases 0; batch normalization has scale 1, bias 0, mean 0 and variance 1.

    Args:
        key: a key of `jax.random`.
        path: name of the parameter, such as `"layer1.0.conv1.kernel"`.
        value: its value in the trained network.

    Raises:
        UnsupportedError: an unknown name; pass a function like this one as `draw`.
    """
    name = path.rsplit(".", 1)[-1]
    if name in CONSTANTS:
        return jnp.full(value.shape, CONSTANTS[name], value.dtype)
    if name != "kernel" or value.ndim < 2:
        raise UnsupportedError(
            f"The initialization of {path!r} of shape {tuple(value.shape)} is not known. Pass draw=fn(key, path, value), which "
            "returns an array of the same shape, and call jaxviz.metrics.initial for the parameters it knows."
        )
    std = 0.01 if value.ndim == 2 else math.sqrt(2 / (math.prod(value.shape[:-2]) * value.shape[-1]))
    # Drawn flat, then reshaped: XLA compiles random numbers with four axes for many seconds on CPUs.
    return std * jax.random.normal(key, (value.size,), value.dtype).reshape(value.shape)


def cascade(
    model: Model, layers: Sequence[str] | None = None, *, seed: int = 0, draw: Draw = initial
) -> Iterator[tuple[str, Model]]:
    """Yield the name of each layer and the model in which this layer and all before it in the cascade are random.

    Args:
        model: a network of modules.
        layers: names of modules from the top down; everything inside a module is reinitialized at once. By default every layer
            with weights, a batch normalization together with the convolution before it.
        seed: a layer's new weights depend only on the seed and the layer's name.
        draw: returns a new parameter, see `initial`.

    Raises:
        LayerError: a module that the network does not have.
        UnsupportedError: a pure function, or a parameter that `draw` does not know.

    >>> next(jv.metrics.cascade(model))[0] == jv.metrics.weight_layers(model)[0]
    True
    """
    flat = dict(_parameters(model))
    state, done = dict(flat), set[Path]()
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
                    raise ArgumentError(f"Expected draw to return shape {old.shape} for {_dotted(path)!r}; got {value.shape}.")
                state[path] = flat[path].replace(jnp.asarray(value, old.dtype))
                done.add(path)
        yield name, model.with_state(nnx.from_flat_state(list(state.items())))


def weight_layers(model: Model) -> list[str]:
    """Return the layers with weights, last computed first; `"conv1+bn1"` is a layer with its batch normalization.

    Raises:
        UnsupportedError: a pure function, or a network in which the order of the parameters is not known.
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
            f"No value that the network passes to `tap` has the name of its module {module!r}: pass layers, last first."
        )

    groups: list[str] = []
    for module in sorted(modules, key=place):
        if modules[module] or not groups:
            groups.append(module)
        else:
            groups[-1] += f"+{module}"
    return groups[::-1]


def _parameters(model: Model) -> list[tuple[Path, Any]]:
    if not isinstance(model.state, nnx.State):
        raise UnsupportedError("Only a network of modules can be reinitialized layer by layer; this model is a pure function.")
    return list(nnx.to_flat_state(model.state))


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))
