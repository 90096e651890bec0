"""Weights of layers as pictures: first-layer filters in color, any kernel as tiles."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from flax import nnx

from jaxviz import plot
from jaxviz._errors import ArgumentError, LayerError, UnitError, UnsupportedError, near_matches
from jaxviz.models import Model
from jaxviz.models._network import PureFunction
from jaxviz.models._zoo.layers import to_torch_layout
from jaxviz.ops._conv.winograd_f4 import plain_kernel

Scale: TypeAlias = Literal["shared", "each"]
_TILE = 64  # side of a filter in pixels, about: every weight gets whole pixels


@dataclasses.dataclass(frozen=True, eq=False)
class Filters:
    """Filters of a layer whose input is the image.

    Attributes:
        layer: path of the module.
        weights: float32 (K, h, w, C), C = 3 for color or 1 for gray, applied to a normalized image.
        units: int32 (K,), filter numbers in the layer.
        model: name of the network.
    """

    layer: str
    weights: np.ndarray
    units: np.ndarray
    model: str = ""

    def tiles(self, scale: Scale = "shared") -> np.ndarray:
        """Return the filters as images, float32 (K, h, w, C) in [0, 1]; weight 0 is mid-gray, 0.5.

        Args:
            scale: "shared" scales by the largest absolute weight of all filters, so that weak filters look weak; "each" scales
                every filter by its own.
        """
        if scale not in ("shared", "each"):
            raise ArgumentError(f"A scale is 'shared' or 'each'; got {scale!r}.")
        size = np.abs(self.weights).max((1, 2, 3) if scale == "each" else None, keepdims=True)
        return (0.5 + 0.5 * self.weights / np.where(size > 0, size, 1)).astype(np.float32)

    def picture(
        self,
        scale: Scale = "shared",
        *,
        tile: int = _TILE,
        columns: int | None = None,
        captions: bool = True,
        dark: bool = False,
    ) -> np.ndarray:
        """Draw all filters on one page, uint8 (height, width, 3), every weight as a square of whole pixels.

        Args:
            scale: see `tiles`.
            tile: side of a filter in pixels at most; at least one pixel per weight.
            columns: filters per row; chosen for a well-shaped page by default.
            captions: whether to show filter numbers.
            dark: white on black.
        """
        shown = enlarged(self.tiles(scale), tile)
        words = "one scale for all" if scale == "shared" else "each at its own scale"
        h, w = self.weights.shape[1:3]
        title = f"{self.model} {self.layer}: {len(self.units)} filters of {h} x {w}, {words}".strip()
        if not captions:
            columns = columns or int(np.ceil(np.sqrt(len(shown))))
            return plot.grid(shown, columns=columns, pad=max(2, tile // 16), dark=dark)
        section = plot.Section("", shown[:, None], [str(unit) for unit in self.units])
        return plot.contact_sheet([section], title=title, columns=columns, tile=shown.shape[1], dark=dark)


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """Weights between channels: one small map per pair of output and input.

    Attributes:
        layer: path of the module.
        weights: float32 (out, in, kh, kw), PyTorch's layout; (out, in, 1, 1) for linear layers. For grouped convolutions,
            inputs are counted within the group of the output.
        outputs, inputs: int32 (out,) and (in,), channel numbers.
        model: name of the network.
    """

    layer: str
    weights: np.ndarray
    outputs: np.ndarray
    inputs: np.ndarray
    model: str = ""

    def picture(
        self, *, rows: int = 16, columns: int = 16, scale: Scale = "each", tile: int = 40, dark: bool = False
    ) -> np.ndarray:
        """Draw outputs x inputs as tiles, uint8 (height, width, 3); negative weights are blue, positive red.

        Args:
            rows: number of outputs at most; those with the largest norm.
            columns: number of inputs at most; those with the largest norm over these outputs.
            scale: "each" scales the colors of a row by its largest absolute weight, "shared" all rows alike.
            tile: side of a tile in pixels.
            dark: white on black.
        """
        if scale not in ("shared", "each") or rows < 1 or columns < 1 or tile < 1:
            raise ArgumentError(
                f"Expected scale 'shared' or 'each', and rows, columns and tile of at least 1; got {scale!r}, {rows}, "
                f"{columns}, {tile}."
            )
        down = strongest(self.weights, rows, 0)
        across = strongest(self.weights[down], columns, 1)
        shown_weights = self.weights[down][:, across]
        maps = plot.draw_maps(shown_weights, "signed", percentile=100, shared=[1] if scale == "each" else [0, 1])
        shown = enlarged(maps.reshape(-1, *maps.shape[2:]), tile)
        seam = max(1, shown.shape[1] // 20)  # more than between a kernel's own weights
        shown = np.pad(shown, [(0, 0), (seam, seam), (seam, seam), (0, 0)], constant_values=255 * (not dark))
        shown = shown.reshape(*maps.shape[:2], *shown.shape[1:])
        most = np.abs(shown_weights).max()
        ends = ("-max", "0", "max") if scale == "each" else (f"{-most:.2g}", "0", f"{most:.2g}")
        total, kernel = self.weights.shape[:2], " x ".join(map(str, self.weights.shape[2:]))
        part = "" if shown_weights.shape[:2] == total else f", of {total[0]} x {total[1]}"
        return plot.table(
            shown,
            columns=[str(i) for i in self.inputs[across]],
            rows=[str(i) for i in self.outputs[down]],
            bars=[plot.Bar("of each output" if scale == "each" else "weight", "blue_red", ends)],
            title=f"{self.layer}: {kernel} weights of {len(down)} outputs (rows) x {len(across)} inputs{part}",
            tile=shown.shape[2],
            dark=dark,
        )


def filters(model: Model, layer: str | None = None, units: Sequence[int] | None = None) -> Filters:
    """Return the filters of the first layer, or of another layer with 1 or 3 input channels.

    Args:
        model: a network made of modules.
        layer: a module or node; the first convolution on the image's channels by default.
        units: filter numbers; all by default.

    Raises:
        LayerError: an unknown layer, or one without weights of its own.
        ArgumentError: a layer with another number of input channels.
        UnitError: a filter that the layer does not have.
        UnsupportedError: the network is a pure function.

    >>> filters(model).picture().shape[-1]
    3
    """
    path, kernel = _first(model) if layer is None else _find(model, layer)
    if kernel.ndim != 4 or kernel.shape[1] not in (1, 3):
        raise ArgumentError(
            f"Filters have 1 or 3 input channels to show as colors; {path!r} has weights {kernel.shape} (out, in, ...). "
            "See `weights` for tiles of each input channel."
        )
    chosen = _chosen(units, kernel.shape[0], path, "filter")
    return Filters(path, np.ascontiguousarray(kernel[chosen].transpose(0, 2, 3, 1)), chosen, model.name)


def weights(model: Model, layer: str, outputs: Sequence[int] | None = None, inputs: Sequence[int] | None = None) -> Weights:
    """Return the weights of a convolution or linear layer for some outputs and inputs.

    Args:
        model: a network made of modules.
        layer: a module, such as "layer3.0.conv1", or the node of one.
        outputs, inputs: channel numbers; all by default.

    Raises:
        LayerError: an unknown layer, or one without weights of its own.
        UnitError: an output or input that the layer does not have.
        UnsupportedError: the network is a pure function.

    >>> weights(jaxviz.models.untrained("resnet18"), "layer1.0.conv1", outputs=[3, 5]).weights.shape
    (2, 64, 3, 3)
    """
    path, kernel = _find(model, layer)
    kernel = kernel if kernel.ndim == 4 else kernel[:, :, None, None]
    down, across = _chosen(outputs, kernel.shape[0], path, "output"), _chosen(inputs, kernel.shape[1], path, "input")
    return Weights(path, np.ascontiguousarray(kernel[down][:, across]), down, across, model.name)


def enlarged(images: np.ndarray, side: int) -> np.ndarray:
    """Return images (N, h, w, C) enlarged by a whole factor, to at most `side` pixels if they are not larger already."""
    factor = max(1, side // max(images.shape[1:3]))
    return images.repeat(factor, 1).repeat(factor, 2)


def strongest(values: np.ndarray, count: int, axis: int) -> np.ndarray:
    """Return the `count` indices along an axis with the largest norm, ascending."""
    norms = np.sqrt((values.astype(np.float64) ** 2).sum(tuple(a for a in range(values.ndim) if a != axis)))
    return np.sort(np.argsort(-norms, kind="stable")[:count])


def _kernels(model: Model) -> dict[str, np.ndarray]:
    """Return all kernels by module path, float32 (out, in, kh, kw) or (out, in)."""
    if isinstance(model.graphdef, PureFunction):
        raise UnsupportedError("A pure function has no layers with weights; only networks made of modules have.")
    kernels: dict[str, np.ndarray] = {}
    for path, variable in nnx.to_flat_state(model.state):
        *module, leaf = map(str, path)
        value = np.asarray(plain_kernel(variable.get_value()), np.float32) if leaf == "kernel" else np.zeros(())
        if value.ndim in (2, 4):
            kernels[".".join(module)] = to_torch_layout("kernel", value)
    return kernels


def _first(model: Model) -> tuple[str, np.ndarray]:
    kernels = _kernels(model)
    order = [layer.module for layer in model.layers() if layer.module in kernels]
    for path in (*order, *kernels):
        if kernels[path].ndim == 4 and kernels[path].shape[1] == model.in_channels:
            return path, kernels[path]
    raise LayerError(f"No convolution takes the image's {model.in_channels} channels; name a layer.{_known(kernels)}")


def _find(model: Model, layer: str) -> tuple[str, np.ndarray]:
    """Return a module's path and kernel, given the path or a node of the module."""
    kernels = _kernels(model)
    if layer in kernels:
        return layer, kernels[layer]
    try:
        path = model.layers()[layer].module
    except LayerError:
        near = near_matches(layer, kernels)
        raise LayerError(f"There is no layer {layer!r} with weights.{near or _known(kernels)}") from None
    if path not in kernels:
        inside = [name for name in kernels if name.startswith(f"{layer}.")]
        raise LayerError(f"Layer {layer!r} has no kernel of its own.{_known(inside or kernels)}")
    return path, kernels[path]


def _known(kernels: Sequence[str] | dict[str, np.ndarray]) -> str:
    names = list(kernels)
    return f" With weights are: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}."


def _chosen(numbers: Sequence[int] | None, count: int, layer: str, what: str) -> np.ndarray:
    chosen = np.arange(count) if numbers is None else np.asarray(numbers).reshape(-1)
    if not chosen.size or chosen.dtype.kind not in "iu" or chosen.min() < 0 or chosen.max() >= count:
        raise UnitError(f"Expected {what}s of {layer!r} from 0 to {count - 1}; got {numbers!r}.")
    return chosen.astype(np.int32)
