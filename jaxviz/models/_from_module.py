"""Models made of a module or a function, and the checks of their preprocessing and class names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxviz._errors import ArgumentError, UnsupportedError
from jaxviz._types import Array, ArrayLike, PyTree
from jaxviz.models import _taps
from jaxviz.models._model import Model
from jaxviz.models._network import Network, PureFunction


def preprocessing(mean: ArrayLike | Sequence[float], std: ArrayLike | Sequence[float]) -> tuple[Array, Array]:
    """Return mean and std as float32 (C,), or raise an ArgumentError where they do not fit together."""
    m, s = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    if m.ndim != 1 or m.shape != s.shape or not np.all(s > 0) or not np.all(np.isfinite(m)):
        raise ArgumentError(
            "Expected mean and std of images in [0, 1], one number for each channel, std above 0; "
            f"got mean {m.tolist()} and std {s.tolist()}."
        )
    return jnp.asarray(m), jnp.asarray(s)


def from_module(
    module: nnx.Module,
    *,
    mean: ArrayLike | Sequence[float] = (0.0, 0.0, 0.0),
    std: ArrayLike | Sequence[float] = (1.0, 1.0, 1.0),
    class_names: Sequence[str] = (),
    input_size: Sequence[int] = (224, 224),
    name: str | None = None,
) -> Model:
    """Make a model of any nnx module whose `__call__(x, *, tap)` calls `tap(name, value)` on what is to be seen.

    `value = tap(name, value)` must use what the tap returns. Where `__call__` also takes `ops` and computes through it
    (`ops.conv`, `ops.relu`, ...), rules such as guided backpropagation and receptive fields work too. The weights are
    those of the module now; training it later does not change the model.

    Args:
        module: takes normalized float32 (N, H, W, C) and returns (N, classes). In evaluation mode.
        mean, std: of images in [0, 1], one number for each channel.
        class_names: one for each logit, or empty.
        input_size: (H, W) of the images it was trained on.
        name: the class's name unless given.

    Raises:
        UnsupportedError: `__call__` does not take `tap`, or the module is in training mode.
        ArgumentError: mean and std, or the class names, do not fit.

    >>> from flax import nnx
    >>> class Net(nnx.Module):
    ...     def __init__(self, rngs):
    ...         self.conv = nnx.Conv(3, 8, (3, 3), rngs=rngs)
    ...     def __call__(self, x, *, tap):
    ...         x = tap("conv", self.conv(x))
    ...         return tap("logits", nnx.relu(x).mean(axis=(1, 2)))
    >>> from_module(Net(nnx.Rngs(0)), input_size=(16, 16)).layers().names
    ['conv', 'logits']
    """
    if not isinstance(module, nnx.Module):
        raise ArgumentError(f"Expected a flax.nnx.Module; got {type(module).__name__}. See also from_function.")
    if not takes_tap(module):
        raise UnsupportedError(
            f"{type(module).__name__}.__call__ has no argument `tap`. Add `tap` (default jaxviz.models.no_tap) and pass "
            "what is to be seen through it: x = tap('conv1', self.conv1(x)). Or use from_function for its output alone."
        )
    training = [
        ".".join(map(str, path)) or type(value).__name__
        for path, value in nnx.iter_graph(module)
        if (isinstance(value, nnx.BatchNorm) and not value.use_running_average)
        or (isinstance(value, nnx.Dropout) and not value.deterministic and value.rate > 0)
    ]
    if training:
        raise UnsupportedError(f"In training mode: {', '.join(training)}. Call module.eval() first.")
    graphdef, state = nnx.split(module)
    m, s = preprocessing(mean, std)
    state = jax.tree.map(jnp.copy, state)
    network = Network(state, m, s, graphdef, image_size(input_size))
    return with_names(network, name or type(module).__name__, class_names)


def with_names(network: Network, name: str, class_names: Sequence[str]) -> Model:
    """Return the network as a model, or raise an ArgumentError where the class names do not fit the logits."""
    model = Model(network, name)
    if class_names and len(class_names) != model.num_classes:
        raise ArgumentError(f"Expected {model.num_classes} class names, one for each logit of {name}; got {len(class_names)}.")
    return dataclasses.replace(model, class_names=tuple(class_names))


def image_size(size: Sequence[int]) -> tuple[int, int]:
    """Return (H, W) as two ints."""
    height, width = size
    return int(height), int(width)


def takes_tap(module: nnx.Module) -> bool:
    """Say whether a module can be looked into."""
    return _taps.takes(module, "tap")


def from_function(
    fn: Callable[..., Array],
    *,
    params: PyTree = None,
    channels: int = 3,
    class_names: Sequence[str] = (),
    input_size: Sequence[int] = (224, 224),
    name: str | None = None,
) -> Model:
    """Make a model of any pure function of images; its only layer is `"output"`.

    Args:
        fn: `fn(images)` of float32 (N, H, W, channels) in [0, 1] to (N, ...), traceable by JAX; does its own
            preprocessing. With `params` it is `fn(params, images)`. A function defined anew for every model compiles
            anew every time.
        params: a pytree of arrays. Arrays that `fn` closes over instead become constants of the compiled program.
        channels: of an image.
        class_names: one for each entry of the last axis, or empty.
        input_size: (H, W) of the images.
        name: the function's name unless given.
    """
    if not callable(fn):
        raise ArgumentError(f"Expected a function of images; got {type(fn).__name__}.")
    try:
        hash(fn)
    except TypeError:
        raise ArgumentError(f"Expected a hashable function; got {fn!r}. Wrap it: lambda images: fn(images).") from None
    graphdef = PureFunction(fn, has_params=params is not None)
    known_as = name or getattr(fn, "__name__", None) or type(fn).__name__
    mean, std = jnp.zeros((channels,)), jnp.ones((channels,))
    state = jax.tree.map(jnp.asarray, params)
    return with_names(Network(state, mean, std, graphdef, image_size(input_size)), known_as, class_names)
