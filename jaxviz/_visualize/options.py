"""The options of image runs: their types, their defaults, and how `help` shows them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypedDict, TypeVar

import optax
from jax.sharding import Mesh

from jaxviz._types import ArrayLike, StrPath
from jaxviz.engine import Progress
from jaxviz.ops import Ops
from jaxviz.param import Param, fourier
from jaxviz.regularizers import Regularizer
from jaxviz.transforms import Transform

F = TypeVar("F", bound=Callable[..., Any])


class SampleOptions(TypedDict, total=False):
    """Options of every function that makes images; `visualize` describes them."""

    samples: int
    restarts: int
    views: int
    snapshots: Sequence[int]
    ops: Ops | None
    seed: int
    mesh: Mesh | None
    chunk: int | None
    precision: str | None
    progress: Callable[[Progress], None] | None
    out: StrPath | None
    overwrite: bool


class RenderOptions(TypedDict, total=False):
    """Options that functions which render one picture per unit pass on to `visualize`."""

    param: Param | Callable[[], Param]
    transforms: Transform | Sequence[Transform] | None
    regularizers: Regularizer | Sequence[Regularizer]
    optimizer: Callable[[Any], optax.GradientTransformation]
    learning_rate: float | ArrayLike | None
    scales: int | Sequence[float]
    restarts: int
    views: int
    ops: Ops | None
    mesh: Mesh | None
    chunk: int | None
    precision: str | None


class InvertOptions(SampleOptions, total=False):
    """Options that `invert` passes on to `visualize`."""

    optimizer: Callable[[Any], optax.GradientTransformation]
    scales: int | Sequence[float]
    start: ArrayLike | None


class DreamOptions(SampleOptions, total=False):
    """Options that `deepdream` passes on to `visualize`."""

    regularizers: Regularizer | Sequence[Regularizer]
    transparency: bool


class AccentuateOptions(SampleOptions, total=False):
    """Options that `accentuate` passes on to `visualize`."""

    param: Param | Callable[[], Param]
    transforms: Transform | Sequence[Transform] | None
    regularizers: Regularizer | Sequence[Regularizer]
    optimizer: Callable[[Any], optax.GradientTransformation]
    learning_rate: float | ArrayLike | None
    steps: int
    scales: int | Sequence[float]
    transparency: bool


class CaricatureOptions(SampleOptions, total=False):
    """Options that `caricature` passes on to `visualize`."""

    param: Param | Callable[[], Param]
    regularizers: Regularizer | Sequence[Regularizer]
    optimizer: Callable[[Any], optax.GradientTransformation]
    learning_rate: float | ArrayLike | None
    steps: int
    scales: int | Sequence[float]
    transparency: bool
    start: ArrayLike | None


class VisualizeOptions(AccentuateOptions, total=False):
    """All options of `visualize`, which describes them; for functions that pass them on with `Unpack`."""

    size: int | tuple[int, int] | None
    start: ArrayLike | None


@dataclass(frozen=True)
class Options:
    """The options of one run with their defaults, unchecked."""

    param: Param | Callable[[], Param] = fourier
    transforms: Transform | Sequence[Transform] | None = None
    regularizers: Regularizer | Sequence[Regularizer] = ()
    optimizer: Callable[[Any], optax.GradientTransformation] = optax.adam
    learning_rate: float | ArrayLike | None = None
    steps: int = 256
    size: int | tuple[int, int] | None = None
    samples: int = 1
    scales: int | Sequence[float] = 1
    restarts: int = 1
    views: int = 1
    snapshots: Sequence[int] = ()
    transparency: bool = False
    ops: Ops | None = None
    seed: int = 0
    start: ArrayLike | None = None
    mesh: Mesh | None = None
    chunk: int | None = None
    precision: str | None = None
    progress: Callable[[Progress], None] | None = None
    out: StrPath | None = None
    overwrite: bool = False


def show_options(options: type[Any]) -> Callable[[F], F]:
    """Make `help` and `inspect.signature` list the options behind `**options: Unpack[...]`, with their defaults.

    Args:
        options: the TypedDict that the function unpacks. Keys that `visualize` has too show its defaults; keys that the
            function declares itself keep their own place and default.

    Example:
        >>> from typing import Unpack
        >>> @show_options(DreamOptions)
        ... def dream(photo, **options: Unpack[DreamOptions]): ...
        >>> list(inspect.signature(dream).parameters)[:3]
        ['photo', 'regularizers', 'samples']
    """
    defaults = {field.name: field.default for field in fields(Options)}
    hints = {name: getattr(hint, "__forward_arg__", hint) for name, hint in options.__annotations__.items()}
    order = [name for name in (*defaults, *hints) if name in hints]

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        taken = {parameter.name for parameter in own}
        shown = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=defaults.get(name, inspect.Parameter.empty),
                annotation=hints[name],
            )
            for name in dict.fromkeys(order)
            if name not in taken
        ]
        function.__signature__ = signature.replace(parameters=[*own, *shown])  # type: ignore[attr-defined]
        return function

    return decorate
