"""Options of several commands, and how their texts are read; names and arguments are those of the library."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import optax
import typer

import jaxviz
from jaxviz import objectives, ops, param, regularizers, transforms
from jaxviz._errors import ArgumentError
from jaxviz.cli._common.expressions import evaluate
from jaxviz.objectives._algebra import count_units

MODEL_HELP = "A network of `jaxviz models`, such as resnet18-imagenette (bundled) or resnet50."
WEIGHTS_HELP = "A file (.pth, .pt, .safetensors), or a name of torchvision's weights (IMAGENET1K_V1, ...)."

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
Weights = Annotated[str | None, typer.Option(metavar="FILE|NAME", help=WEIGHTS_HELP)]
ClassNames = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Class names, one on each line, for weights without names.")
]
Out = Annotated[
    Path, typer.Option(metavar="DIR", help="Folder for pictures, contact sheet and arrays; an unfinished run is continued.")
]
Samples = Annotated[int, typer.Option(min=1, help="Images per unit, each from its own random start.")]
Steps = Annotated[int, typer.Option(min=0, help="Steps of gradient ascent.")]
SizeText = Annotated[str | None, typer.Option(metavar="N|HxW", help="Image size in pixels; default: the network's own.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same images.")]
LearningRate = Annotated[
    float | None, typer.Option(help="Learning rate of the optimizer; default: chosen for the kind of network.")
]
ParamText = Annotated[
    str,
    typer.Option("--param", metavar="PARAM", help="Image parameterization: fourier, 'fourier(decay=1)', pixel, maco, ..."),
]
TransformsText = Annotated[
    str,
    typer.Option(
        metavar="LIST",
        help="Random transforms: standard, all_stops, none, or a list: 'pad(4), jitter(8), rotate(5)'.",
    ),
]
RegularizerTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--regularizer",
        metavar="NAME=WEIGHT",
        help="Penalty to subtract: total_variation=0.001, or 'p_norm(0.1, p=6)'. Repeatable.",
    ),
]
OptimizerText = Annotated[
    str, typer.Option("--optimizer", metavar="NAME", help="Optimizer of optax: adam, nadam, sgd, 'sgd(momentum=0.9)', ...")
]
Devices = Annotated[int | None, typer.Option(min=1, help="Number of devices in each process (on CPU: cores); default: all.")]
ChunkSize = Annotated[int | None, typer.Option(min=1, help="Units at a time; default: chosen for the machine.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace any run or result in the folder.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show errors only.")]


class Precision(StrEnum):
    default = "default"
    high = "high"
    highest = "highest"

    def value_or_none(self) -> str | None:
        return None if self is Precision.default else self.value


class Gradient(StrEnum):
    redirected = "redirected"
    exact = "exact"
    relaxed = "relaxed"

    def ops(self) -> ops.Ops | None:
        return {Gradient.redirected: None, Gradient.exact: ops.EXACT, Gradient.relaxed: ops.RELAXED}[self]


PrecisionOption = Annotated[
    Precision, typer.Option("--precision", help="Precision of convolutions on GPU and TPU; highest is full float32.")
]


def _makers(module: Any) -> dict[str, Callable[..., Any]]:
    """Return the public functions of a room by name."""
    return {name: value for name, value in vars(module).items() if inspect.isfunction(value) and not name.startswith("_")}


def load_array(path: str) -> np.ndarray:
    """Read a NumPy array from a .npy file."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArgumentError(f"Cannot read an array from '{path}': {error}") from error


_OBJECTIVES = {
    name: getattr(objectives, name)
    for name in (
        "channel",
        "neuron",
        "layer",
        "logit",
        "direction",
        "direction_neuron",
        "tensor_direction",
        "diverse",
        "diversity",
        "alignment",
        "interpolate",
        "match",
        "match_image",
        "near",
        "style",
        "product",
        "whiten",
    )
}
FILES = {"load": load_array, "photo": lambda path: jaxviz.image.load(path)}
_PARAMS = {name: maker for name, maker in _makers(param).items() if name != "spectrum"}
_TRANSFORMS = {name: maker for name, maker in _makers(transforms).items() if name != "compose"}
_REGULARIZERS = _makers(regularizers)
_OPTIMIZERS = ("adabelief", "adam", "adamax", "adamw", "lion", "nadam", "nadamw", "radam", "rmsprop", "sgd", "yogi")


def _read(option: str, text: str, names: dict[str, Callable[..., Any]], right: Callable[[Any], bool], example: str) -> Any:
    """Return the value of an option's text.

    Raises:
        typer.BadParameter: the text cannot be read, or `right` refuses the value.
    """
    try:
        value = evaluate(text, names)
    except ArgumentError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
    if not right(value):
        raise typer.BadParameter(f"expected something like {example}, got '{text}'.", param_hint=option)
    return value


def read_target(text: str, more: Mapping[str, Callable[..., Any]] | None = None) -> Any:
    """Read `layer3:7`, or a call as in Python: `channel("layer3", 7) - 0.5 * diversity("layer3")`.

    Args:
        text: of the option.
        more: functions by name that may be called too; they may return anything.

    Raises:
        ArgumentError: not an objective.
    """
    if "(" not in text:
        return objectives.parse(text)
    value = evaluate(text, _OBJECTIVES | FILES | dict(more or {}))
    if not isinstance(value, objectives.Objective) and not any(text.strip().startswith(f"{name}(") for name in more or ()):
        raise ArgumentError(f'Expected an objective such as channel("layer3", 7); {text!r} is {type(value).__name__}.')
    return value


def known_units(texts: Sequence[str]) -> int | None:
    """Return the largest number of units of targets such as `layer3:7,9-12`; None if that depends on the network."""
    if all(re.fullmatch(r"\s*[\w.]+:[\d\s,-]+", text) for text in texts):
        return max(count_units(objectives.parse(text)) for text in texts)
    return None


def read_param(text: str) -> param.Param:
    """Read `fourier` or `fourier(decay=1)`."""
    return _read("--param", text, _PARAMS | FILES, lambda value: isinstance(value, param.Param), "'fourier(decay=1)'")


def read_transforms(text: str) -> Any:
    """Read `standard`, `none`, or a list such as `pad(4), jitter(8)`."""
    if text == "none":
        return ()
    parts = _read("--transforms", f"[{text}]", _TRANSFORMS, lambda value: all(map(callable, value)), "'pad(4), jitter(8)'")
    return transforms.compose(*parts)


def read_regularizers(texts: list[str] | None) -> list[Any]:
    """Read texts such as `total_variation=0.001` or `p_norm(0.1, p=6)`."""
    penalties: list[Any] = []
    for text in texts or ():
        name, _, weight = text.partition("=")
        call = text if "(" in text else f"{name}({weight})"
        penalties.append(_read("--regularizer", call, _REGULARIZERS | FILES, callable, "total_variation=0.001"))
    return penalties


def read_optimizer(text: str) -> Callable[..., optax.GradientTransformation]:
    """Read `adam` or `sgd(momentum=0.9)` as a factory that takes the learning rate."""

    def maker(factory: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(factory)
        def make(**keywords: Any) -> Any:
            return functools.partial(factory, **keywords) if keywords else factory

        parameters = list(inspect.signature(factory).parameters.values())[1:]  # all but the learning rate
        make.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        )
        return make

    return _read("--optimizer", text, {name: maker(getattr(optax, name)) for name in _OPTIMIZERS}, callable, "adam")


def read_numbers(text: str | None) -> list[float]:
    """Read `0.25,0.5,1`."""
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise ArgumentError(f"Expected comma-separated numbers, got {text!r}.") from None


def read_size(text: str | None) -> tuple[int, int] | None:
    """Read `"128"` or `"96x128"` (height x width)."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"expected a size such as 128 or 96x128 (height x width), got '{text}'.", param_hint="--size")
    return int(parts[0]), int(parts[-1])


def read_lines(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"Cannot read the class names in '{path}': {error}") from error
