"""A checked image run: what its images are made of, its settings for people, its identity for the disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias, cast

import jax
import numpy as np

from jaxviz import engine
from jaxviz._errors import ArgumentError
from jaxviz._fingerprint import describe, model_digests
from jaxviz._pytree import as_tree
from jaxviz._types import Array, ArrayLike
from jaxviz._visualize.options import Options
from jaxviz.models import Model, calls_through_ops, has_batch_norm
from jaxviz.objectives import Objective, ObjectiveLike
from jaxviz.objectives._algebra import count_units
from jaxviz.objectives._match import as_images, fitted
from jaxviz.objectives._parse import as_objective
from jaxviz.ops import EXACT, REDIRECTED, Ops
from jaxviz.param import Param
from jaxviz.regularizers import Regularizer
from jaxviz.transforms import Transform, compose, composite, standard
from jaxviz.transforms._compose import Compose
from jaxviz.transforms._composite import Composite

Size: TypeAlias = tuple[int, int]
Names: TypeAlias = tuple[str, ...]
_OCTAVE = 1.4  # between one scale and the next


@dataclass(frozen=True)
class ImageRun:
    """Everything that one call of `visualize` computes with, checked.

    Attributes:
        options: unchanged; those that need no conversion are read from here.
        model: the network.
        objectives: bound to the network and the size.
        starts: for each objective, the images that its K units start from, (K, H, W, C), or None.
        sizes: (height, width) of the scales, coarse to fine.
        snapshots: steps after which images are kept, ascending.
        param: still without a shape.
        transforms: as one composition.
        regularizers: callable pytrees.
        learning_rate: passed to the optimizer.
        ops: the operations that the gradient goes through.
        is_fast: whether the network runs with the kernels of `model.fast()`.
    """

    options: Options
    model: Model
    objectives: tuple[Objective, ...]
    starts: tuple[Array | None, ...]
    sizes: tuple[Size, ...]
    snapshots: tuple[int, ...]
    param: Param
    transforms: Compose
    regularizers: tuple[Regularizer, ...]
    learning_rate: float
    ops: Ops
    is_fast: bool

    @property
    def size(self) -> Size:
        return self.sizes[-1]

    @property
    def settings(self) -> dict[str, Any]:
        """How the images are made, for people: plain JSON."""
        options = self.options
        return {
            "model": self.model.name,
            "steps": options.steps,
            "size": list(self.size),
            "samples": options.samples,
            "scales": [list(size) for size in self.sizes],
            "restarts": options.restarts,
            "views": options.views,
            "snapshots": list(self.snapshots),
            "transparency": bool(options.transparency),
            "seed": options.seed,
            "start": None if options.start is None else list(np.shape(options.start)),
            "learning_rate": self.learning_rate,
            "optimizer": getattr(options.optimizer, "__name__", str(options.optimizer)),
            "param": repr(self.param),
            "transforms": repr(self.transforms),  # of the composition: None and standard() are the same run
            "regularizers": repr(self.regularizers),
            "precision": options.precision,
        }

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that determines the images: only a run with the same identity may continue one on disk.

        `is_fast` is not part of it: images made on a CPU and on a GPU differ by more, and a run may move between them.
        """
        options = self.options
        described = {
            "objectives": list(self.objectives),
            "start": options.start,
            "optimizer": options.optimizer,
            "param": self.param,
            "transforms": self.transforms,
            "regularizers": self.regularizers,
            "ops": self.ops,
        }
        return {
            **self.settings,
            **{name: describe(value) for name, value in described.items()},
            **model_digests(self.model),
        }


def check_run(model: Model, objective: ObjectiveLike | Sequence[ObjectiveLike], options: Options) -> ImageRun:
    """Check the arguments of `visualize`: every error is raised here, before the first step.

    Raises:
        ArgumentError: an option out of range, or options that exclude each other.
        LayerError, UnitError: an objective that the network does not have.
    """
    size = _check_size(options.size, model)
    _check_counts(options)
    sizes = _scale_sizes(options.scales, size)
    param = options.param if isinstance(options.param, Param) else options.param()
    many = objective if isinstance(objective, list | tuple) else [objective]
    bound = tuple(as_objective(part).bind(model, size) for part in many)
    if not bound:
        raise ArgumentError("Expected at least one objective; got an empty list.")
    through_ops = calls_through_ops(model.network)
    rate = default_learning_rate(model) if options.learning_rate is None else options.learning_rate
    return ImageRun(
        options,
        model,
        bound,
        starts=tuple(_starts(options.start, count_units(part), model, size) for part in bound),
        sizes=sizes,
        snapshots=_check_snapshots(options.snapshots, options.steps),
        param=param,
        transforms=_check_opacity(_as_transform(options.transforms), param, bound, model, size, options.transparency),
        regularizers=_as_regularizers(options.regularizers),
        learning_rate=float(rate),
        # A unit that is silent on the gray start would get no gradient, and its picture would stay gray.
        ops=options.ops or (REDIRECTED if through_ops else EXACT),
        is_fast=options.ops is None and through_ops and engine.is_cpu(options.mesh or engine.make_mesh()),
    )


def layer_names(layers: object, expected: str = "the name of a layer, or a list of names, as in model.layers()") -> Names:
    """Return one or more names of layers as a tuple.

    Raises:
        ArgumentError: anything else; the message says what was `expected`.
    """
    names: tuple[object, ...] = (layers,) if isinstance(layers, str) else ()
    if isinstance(layers, Iterable) and not names:
        names = tuple(cast("Iterable[object]", layers))
    if not names or not all(isinstance(name, str) for name in names):
        raise ArgumentError(f"Expected {expected}; got {layers!r}.")
    return cast(Names, names)


def default_learning_rate(model: Model) -> float:
    """Return the learning rate for a network's family of architectures, by `benchmarks/defaults.py`."""
    return 0.02 if has_batch_norm(model.network) is False else 0.01


def _check_size(size: object, model: Model) -> Size:
    pair: tuple[Any, ...] = ()
    if size is None:
        pair = model.input_size
    elif isinstance(size, int):
        pair = (size, size)
    elif isinstance(size, Sequence):
        pair = tuple(cast("Sequence[Any]", size))
    if len(pair) != 2 or not all(isinstance(side, int | np.integer) and side >= 1 for side in pair):
        raise ArgumentError(f"size is a number of pixels or (height, width), each at least 1; got {size!r}.")
    return int(pair[0]), int(pair[1])


def _check_counts(options: Options) -> None:
    chunk = 1 if options.chunk is None else options.chunk
    at_least_one = {"samples": options.samples, "restarts": options.restarts, "views": options.views, "chunk": chunk}
    for name, value, least in (("steps", options.steps, 0), *((name, value, 1) for name, value in at_least_one.items())):
        if value != int(value) or value < least:
            raise ArgumentError(f"{name} must be a whole number of at least {least}; got {value!r}.")


def _check_snapshots(snapshots: Sequence[int], steps: int) -> tuple[int, ...]:
    ascending = tuple(sorted({int(step) for step in snapshots}))
    if ascending and not 0 < ascending[0] <= ascending[-1] <= steps:
        raise ArgumentError(f"snapshots are numbers of steps from 1 to {steps}; got {list(snapshots)}.")
    return ascending


def _scale_sizes(scales: int | Sequence[float], size: Size) -> tuple[Size, ...]:
    """Return the sizes (height, width) of the scales, the last one `size`."""
    factors: list[float] = []
    try:
        if isinstance(scales, Sequence | np.ndarray):
            factors = [float(factor) for factor in scales]
        else:
            factors = [_OCTAVE**-i for i in reversed(range(int(scales)))]
    except (TypeError, ValueError):
        pass
    if not factors or factors[-1] != 1 or any(not 0 < a < b for a, b in pairwise(factors)):
        raise ArgumentError(f"scales is a number of octaves, or rising factors that end in 1 such as (0.5, 1); got {scales!r}.")
    return tuple((max(1, round(size[0] * factor)), max(1, round(size[1] * factor))) for factor in factors)


def _starts(start: ArrayLike | None, units: int, model: Model, size: Size) -> Array | None:
    """Return the images that K units start from, (K, H, W, C), or None."""
    if start is None:
        return None
    images = fitted(as_images(start), model, size)
    if images.ndim == 4 and len(images) != units:
        raise ArgumentError(f"Expected one image to start from, or one for each of {units} units; got {len(images)}.")
    return cast(Array, np.broadcast_to(images, (units, *images.shape[-3:])))


def _check_opacity(
    transforms: Compose, param: Param, bound: Sequence[Objective], model: Model, size: Size, transparency: bool
) -> Compose:
    """Return the transforms; for images with opacity, put them on a background first."""
    if not _has_opacity(param, (*size, len(model.mean))):
        return transforms
    if transparency:
        raise ArgumentError("Images of alpha() have their own opacity: use either alpha() or transparency.")
    if any(objective.reference() is not None for objective in bound):
        raise ArgumentError("An image with opacity cannot be compared with a photo: use a param other than alpha().")
    if any(isinstance(part, Composite) for part in transforms.parts):
        return transforms
    return compose(composite(), transforms)  # first: padding would fill the opacity too


def _has_opacity(param: Param, shape: tuple[int, int, int]) -> bool:
    """Say whether the images of `param` have one channel more than the network takes: their opacity."""
    sized = param.with_shape(shape)
    return jax.eval_shape(lambda key: sized.decode(sized.init(key)), jax.random.key(0)).shape[-1] == shape[-1] + 1


def _as_transform(transforms: Transform | Sequence[Transform] | None) -> Compose:
    if transforms is None:
        return standard()
    return compose(*transforms) if isinstance(transforms, list | tuple) else compose(cast(Transform, transforms))


def _as_regularizers(regularizers: Regularizer | Sequence[Regularizer]) -> tuple[Regularizer, ...]:
    many = regularizers if isinstance(regularizers, list | tuple) else (cast(Regularizer, regularizers),)
    return tuple(as_tree(regularizer) for regularizer in many)
