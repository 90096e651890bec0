"""Model: a network with its weights, the preprocessing it was trained with and the names of its classes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxviz._errors import ArgumentError, UnitError, UnsupportedError, near_matches
from jaxviz._pytree import pytree
from jaxviz._types import Array, ArrayLike, PyTree, StrPath
from jaxviz.models import _taps
from jaxviz.models._files.checkpoint import write
from jaxviz.models._layer_table import LayerTable, layer_table
from jaxviz.models._taps import Function
from jaxviz.models._zoo.layers import LEAF, to_torch_layout
from jaxviz.ops._conv.winograd_f4 import plain_kernel


@pytree
@dataclasses.dataclass(frozen=True)
class Model:
    """A network, its weights and how images are prepared for it: immutable, and a pytree whose leaves are the weights.

    Made by `load`, `from_torch`, `from_module` or `from_function`. Calling it returns logits:

    >>> import jax.numpy as jnp
    >>> model = from_function(lambda images: images.mean(axis=(1, 2)))
    >>> model(jnp.ones((2, 8, 8, 3))).shape
    (2, 3)

    Attributes:
        state: the weights, an `nnx.State` (or the parameters of a pure function).
        mean, std: float32 (C,), of images in [0, 1]; subtracted and divided by before the network sees an image.
        graphdef: the structure of the network, or the pure function in its place.
        name: such as "resnet18".
        class_names: one for each logit, or empty.
        input_size: (H, W) that the weights were evaluated at; other sizes work where the network allows them.
    """

    state: Any
    mean: Array
    std: Array
    graphdef: Any = dataclasses.field(metadata=dict(static=True))
    name: str = dataclasses.field(default="", metadata=dict(static=True))
    class_names: tuple[str, ...] = dataclasses.field(default=(), metadata=dict(static=True))
    input_size: tuple[int, int] = dataclasses.field(default=(224, 224), metadata=dict(static=True))

    def __call__(self, images: ArrayLike) -> Array:
        """Return the logits of some images, in full float32.

        Compiled once for each network and shape of images; other weights do not compile again.

        Args:
            images: float (N, H, W, C) in [0, 1], numpy or JAX. The range of concrete arrays is checked, except for
                those on an accelerator, where that would wait for the device.

        Returns:
            float32 (N, classes).

        Raises:
            ArgumentError: the images have the wrong shape, type or range.
        """
        return _logits(self.bare(), self.check_images(images))

    def activations(self, images: ArrayLike, layers: Sequence[str] | str) -> dict[str, Array]:
        """Return the values of some layers; the network stops at the deepest of them.

        Args:
            images: float (N, H, W, C) in [0, 1], numpy or JAX.
            layers: one or more names; the keys of the result.

        Returns:
            For each name float32 (N, h, w, channels), or (N, channels) after the layer that flattens.

        Raises:
            ArgumentError: the images have the wrong shape, type or range.
            LayerError: a name that the network does not have; the message suggests names that look alike.
        """
        names = (layers,) if isinstance(layers, str) else tuple(layers)
        found = _activations(self.bare(), self.check_images(images), names)
        return {name: found[name] for name in names}  # a compiled function returns a dict in alphabetical order

    def check_images(self, images: ArrayLike) -> Array:
        """Return the images as float32 (N, H, W, C), or raise an ArgumentError that says what is wrong with them."""
        expected = f"Expected images float32 (N, H, W, {self.in_channels}) in [0, 1], channels last"
        if not isinstance(images, (np.ndarray, jax.Array)):
            raise ArgumentError(f"{expected}; got {type(images).__name__}. Convert with np.asarray(images) first.")
        came = f"got {images.dtype.name} {tuple(images.shape)}"
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise ArgumentError(f"{expected}; {came}. Divide 8-bit images by 255: images.astype('float32') / 255.")
        if images.ndim == 3 and images.shape[-1] == self.in_channels:
            raise ArgumentError(f"{expected}; {came}. Give one image its own batch axis: images[None].")
        if images.ndim == 4 and images.shape[1] == self.in_channels != images.shape[-1]:
            raise ArgumentError(f"{expected}; {came}. Move the channels last: images.transpose(0, 2, 3, 1).")
        if images.ndim != 4 or images.shape[-1] != self.in_channels or 0 in images.shape:
            raise ArgumentError(f"{expected}; {came}.")
        if isinstance(images, np.ndarray) or _is_on_cpu(images):
            low, high = float(images.min()), float(images.max())
            # Not `low < ...`: a NaN must fail too. Resampling and rounding overshoot by a little, so allow that.
            if not (low >= -0.01 and high <= 1.01):
                raise ArgumentError(f"{expected}; {came} with values from {low:.4g} to {high:.4g}.")
        return jnp.asarray(images, jnp.float32)

    def layers(self, size: tuple[int, int] | int | None = None) -> LayerTable:
        """Return a table of all layers: name, kind, shape, channels and receptive field.

        Args:
            size: (H, W) of the images, or one int for both; `input_size` unless given.
        """
        size = self.input_size if size is None else (size, size) if isinstance(size, int) else size
        return layer_table(self, size)

    def resolve(self, name: str) -> str:
        """Return the node that a name means: itself, the last node for "output", a module's last node for its path.

        Raises:
            LayerError: the network has no such node or module; the message suggests names that look alike.
        """
        return _taps.resolve(name, [node.name for node in _taps.nodes(self, self.input_size)])

    def class_index(self, name: str | int) -> int:
        """Return the index of a class: by its name in any case, by a part that only one name has, or checked as given.

        Raises:
            UnitError: no class, or more than one, has this name; or the index is out of range.
        """
        if not isinstance(name, str):
            if not 0 <= name < self.num_classes:
                raise UnitError(f"Expected a class from 0 to {self.num_classes - 1}; got {name}.")
            return int(name)
        if not self.class_names:
            raise UnitError(f"{self.name or 'This model'} has no class names; give the class {name!r} as an index.")
        known = [c.lower() for c in self.class_names]
        wanted = name.lower().strip()
        found = [i for i, c in enumerate(known) if c == wanted] or [i for i, c in enumerate(known) if wanted in c]
        if len(found) == 1 and wanted:
            return found[0]
        if found and wanted:
            listed = ", ".join(f"{i} {self.class_names[i]!r}" for i in found[:8]) + (", ..." if len(found) > 8 else "")
            raise UnitError(f"{name!r} names {len(found)} classes: {listed}. Use the whole name or the index.")
        raise UnitError(f"There is no class {name!r}.{near_matches(name, self.class_names)}")

    @property
    def in_channels(self) -> int:
        """The number of channels of an image."""
        return self.mean.shape[-1]

    @property
    def num_classes(self) -> int:
        """The number of logits."""
        return len(self.class_names) or _taps.nodes(self, self.input_size)[-1].shape[-1]

    def state_dict(self, tensors: Literal["numpy", "torch"] = "numpy") -> dict[str, Any]:
        """Return the weights under torchvision's names and in its layout; loads there with `strict=True`.

        Args:
            tensors: "numpy" for arrays, "torch" for tensors.

        Raises:
            UnsupportedError: a parameter that has no counterpart in torch.
        """
        if tensors not in ("numpy", "torch"):
            raise ArgumentError(f"Expected tensors='numpy' or 'torch'; got {tensors!r}.")
        if isinstance(self.graphdef, Function):
            raise UnsupportedError("A pure function has no state_dict; only networks made of modules have.")
        found: dict[str, np.ndarray] = {}
        for path, variable in nnx.to_flat_state(self.state):
            module, leaf = ".".join(map(str, path[:-1])), str(path[-1])
            if leaf not in LEAF:
                raise UnsupportedError(
                    f"The parameter {'.'.join(map(str, path))!r} has no counterpart in torch; known are {', '.join(LEAF)}."
                )
            found[f"{module}.{LEAF[leaf]}"] = to_torch_layout(leaf, np.array(plain_kernel(variable.get_value())))
            if leaf == "var":
                found[f"{module}.num_batches_tracked"] = np.zeros((), np.int64)
        if tensors == "numpy":
            return found
        import torch

        return {name: torch.from_numpy(array) for name, array in found.items()}

    def save(self, path: StrPath) -> Path:
        """Write the weights, class names and preprocessing to a `.safetensors` file that `load` reads back.

        Names and layouts are torchvision's. The metadata holds `architecture`, and as JSON `class_names`, `mean`,
        `std` and `size`.

        Raises:
            ArgumentError: the path does not end in `.safetensors`.
            UnsupportedError: the network is not one of torchvision's, so that no file alone could bring it back.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise ArgumentError(f"Expected a path that ends in .safetensors; got {path.name!r}.")
        architecture = "" if isinstance(self.graphdef, Function) else getattr(self.module(), "architecture", "")
        if not architecture:
            raise UnsupportedError(
                f"{self.name or 'This network'} is not one of the networks that a file can bring back by name. "
                "Save its weights with your own code, for example from model.state."
            )
        metadata = {
            "architecture": architecture,
            "class_names": json.dumps(list(self.class_names)),
            "mean": json.dumps([float(m) for m in self.mean]),
            "std": json.dumps([float(s) for s in self.std]),
            "size": json.dumps(list(self.input_size)),
        }
        write(path, self.state_dict(), metadata)
        return path

    def module(self) -> nnx.Module:
        """Return the network as an nnx module of its own: it shares no variable with this model."""
        if isinstance(self.graphdef, Function):
            raise UnsupportedError("A pure function is no nnx module.")
        return nnx.merge(self.graphdef, self.state, copy=True)

    def fast(self) -> Model:
        """Return the same network, whose 3 x 3 convolutions are up to twice as fast on a CPU; elsewhere nothing changes.

        They are computed by Winograd's F(4 x 4, 3 x 3), from kernels that are transformed here, once, and take eight times
        the memory. Values are correct to a few millionths of the largest; gradients too, but where the input of a ReLU is
        as near to 0 as that. `visualize` does this by itself; give the network that this returns to `saliency`,
        `integrated_gradients` and the rest where speed is worth more than the sixth digit. Rules that replace the
        convolution (LRP, DeepLIFT) compute as before.

        >>> jaxviz.attribution.integrated_gradients(model.fast(), images, steps=200).maps.shape
        (2, 128, 128, 3)
        """
        from jaxviz.models._fast import prepared

        return self if isinstance(self.graphdef, Function) else prepared(self)

    def bare(self) -> Model:
        """Return the same model without names: what compiled programs take, so that names never compile anew."""
        return dataclasses.replace(self, name="", class_names=())

    def __repr__(self) -> str:
        size = f"{self.input_size[0]} x {self.input_size[1]}"
        classes = f", {len(self.class_names)} classes" if self.class_names else ""
        return f"Model({self.name or 'unnamed'}, input {size} x {self.in_channels}{classes})"


def _is_on_cpu(images: jax.Array) -> bool:
    try:
        return all(device.platform == "cpu" for device in images.devices())
    except jax.errors.ConcretizationTypeError:  # traced: there are no values to look at
        return False


@jax.jit
def _logits(model: Model, images: Array) -> Array:
    with jax.default_matmul_precision("highest"):
        return _taps.forward(model, images)


def _traced_activations(model: Model, images: Array, names: tuple[str, ...]) -> dict[str, Array]:
    with jax.default_matmul_precision("highest"):
        return _taps.activations(model, images, names)


_activations = jax.jit(_traced_activations, static_argnums=2)


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
        module: takes normalised float32 (N, H, W, C) and returns (N, classes). In evaluation mode.
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
    return named(Model(state, m, s, graphdef, name or type(module).__name__), class_names, input_size)


def named(model: Model, class_names: Sequence[str], input_size: Sequence[int]) -> Model:
    """Return the model with class names and a size, or raise an ArgumentError where the names do not fit the logits."""
    height, width = input_size
    sized = dataclasses.replace(model, input_size=(int(height), int(width)))
    if class_names and len(class_names) != sized.num_classes:
        raise ArgumentError(
            f"Expected {sized.num_classes} class names, one for each logit of {model.name}; got {len(class_names)}."
        )
    return dataclasses.replace(sized, class_names=tuple(class_names))


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
    graphdef = Function(fn, has_params=params is not None)
    known_as = name or getattr(fn, "__name__", None) or type(fn).__name__
    mean, std = jnp.zeros((channels,)), jnp.ones((channels,))
    state = jax.tree.map(jnp.asarray, params)
    return named(Model(state, mean, std, graphdef, known_as), class_names, input_size)
