"""Model: a network with its name, the names of its classes, and methods for people."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
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
from jaxviz.models._fast import prepare_kernels
from jaxviz.models._files.checkpoint import write
from jaxviz.models._layer_table import LayerTable, layer_table
from jaxviz.models._network import Network, PureFunction
from jaxviz.models._zoo.layers import LEAF, to_torch_layout
from jaxviz.ops._conv.winograd_f4 import plain_kernel


@pytree
@dataclasses.dataclass(frozen=True)
class Model:
    """A network, its weights and how images are prepared for it: immutable, and a pytree whose leaves are the weights.

    Made by `load`, `from_torch`, `from_module` or `from_function`. Calling it returns logits:

    >>> import jax.numpy as jnp
    >>> model = jaxviz.from_function(lambda images: images.mean(axis=(1, 2)))
    >>> model(jnp.ones((2, 8, 8, 3))).shape
    (2, 3)

    Attributes:
        network: the weights, preprocessing and structure: what compiled programs take.
        name: such as "resnet18".
        class_names: one for each logit, or empty.
        state: the weights, an `nnx.State` (or the parameters of a pure function).
        mean, std: float32 (C,), of images in [0, 1]; the network sees `(images - mean) / std`.
        graphdef: the structure of the network, or a pure function.
        input_size: (H, W) that the weights were evaluated at; other sizes work where the network allows them.
    """

    network: Network
    name: str = dataclasses.field(default="", metadata=dict(static=True))
    class_names: tuple[str, ...] = dataclasses.field(default=(), metadata=dict(static=True))

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
        return _logits(self.network, self.check_images(images))

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
        found = _activations(self.network, self.check_images(images), names)
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
        return layer_table(self.network, size)

    def resolve(self, name: str) -> str:
        """Return the node that a name means: itself, the last node for "output", a module's last node for its path.

        Raises:
            LayerError: the network has no such node or module; the message suggests names that look alike.
        """
        return _taps.resolve(name, [node.name for node in _taps.nodes(self.network, self.input_size)])

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
    def state(self) -> Any:
        """The weights, an `nnx.State` (or the parameters of a pure function)."""
        return self.network.state

    @property
    def mean(self) -> Array:
        """The mean of images in [0, 1], float32 (C,)."""
        return self.network.mean

    @property
    def std(self) -> Array:
        """The standard deviation of images in [0, 1], float32 (C,)."""
        return self.network.std

    @property
    def graphdef(self) -> nnx.GraphDef[Any] | PureFunction:
        """The structure of the network, or a pure function."""
        return self.network.graphdef

    @property
    def input_size(self) -> tuple[int, int]:
        """The size (H, W) of images that the weights were evaluated at."""
        return self.network.input_size

    @property
    def in_channels(self) -> int:
        """The number of channels of an image."""
        return self.network.in_channels

    @property
    def num_classes(self) -> int:
        """The number of logits."""
        return len(self.class_names) or _taps.nodes(self.network, self.input_size)[-1].shape[-1]

    def state_dict(self, tensors: Literal["numpy", "torch"] = "numpy") -> dict[str, Any]:
        """Return the weights under torchvision's names and in its layout; loads there with `strict=True`.

        Args:
            tensors: "numpy" for arrays, "torch" for tensors.

        Raises:
            UnsupportedError: a parameter that has no counterpart in torch.
        """
        if tensors not in ("numpy", "torch"):
            raise ArgumentError(f"Expected tensors='numpy' or 'torch'; got {tensors!r}.")
        if isinstance(self.graphdef, PureFunction):
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
        architecture = "" if isinstance(self.graphdef, PureFunction) else getattr(self.module(), "architecture", "")
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
        if isinstance(self.graphdef, PureFunction):
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
        network = prepare_kernels(self.network)
        return self if network is self.network else dataclasses.replace(self, network=network)

    def with_state(self, state: PyTree) -> Model:
        """Return the same model with other weights: a state of the same structure, such as `jax.tree.map` makes of `state`."""
        return dataclasses.replace(self, network=dataclasses.replace(self.network, state=state))

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
def _logits(network: Network, images: Array) -> Array:
    with jax.default_matmul_precision("highest"):
        return _taps.forward(network, images)


@functools.partial(jax.jit, static_argnums=2)
def _activations(network: Network, images: Array, names: tuple[str, ...]) -> dict[str, Array]:
    with jax.default_matmul_precision("highest"):
        return _taps.activations(network, images, names)
