"""Activation maximization: images that a network's units respond to most."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, Unpack

import jax
import optax
from jax.sharding import Mesh

from jaxviz import engine
from jaxviz._errors import ArgumentError
from jaxviz._types import Array, ArrayLike, StrPath
from jaxviz._visualize.options import Options, VisualizeOptions, show_options
from jaxviz._visualize.run import ImageRun, check_run
from jaxviz._visualize.stages import make_stages
from jaxviz.engine import Progress
from jaxviz.models import Model, from_function
from jaxviz.objectives import ObjectiveLike
from jaxviz.ops import Ops
from jaxviz.param import Param, fourier
from jaxviz.regularizers import Regularizer
from jaxviz.result import Result, concatenate, load_result, make_result
from jaxviz.transforms import Transform

Objectives: TypeAlias = ObjectiveLike | Sequence[ObjectiveLike]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during `visualize`. `result` holds the finished units, or is None; with `out=`, the folder holds them."""

    def __init__(self, result: Result | None, finished: int = 0, out: StrPath | None = None) -> None:
        where = "see the exception's .result" if out is None else f"they are in '{out}', and the same call again continues"
        super().__init__(f"{finished} units were finished: {where}")
        self.result = result


def visualize(
    model: Model | Callable[[Array], Array],
    objective: Objectives,
    *,
    param: Param | Callable[[], Param] = fourier,
    transforms: Transform | Sequence[Transform] | None = None,
    regularizers: Regularizer | Sequence[Regularizer] = (),
    optimizer: Callable[[Any], optax.GradientTransformation] = optax.adam,
    learning_rate: float | ArrayLike | None = None,
    steps: int = 256,
    size: int | tuple[int, int] | None = None,
    samples: int = 1,
    scales: int | Sequence[float] = 1,
    restarts: int = 1,
    views: int = 1,
    snapshots: Sequence[int] = (),
    transparency: bool = False,
    ops: Ops | None = None,
    seed: int = 0,
    start: ArrayLike | None = None,
    mesh: Mesh | None = None,
    chunk: int | None = None,
    precision: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    out: StrPath | None = None,
    overwrite: bool = False,
) -> Result:
    """Render images that maximize objectives, many units and samples at once.

    A unit that is silent on its starting image has no gradient. In networks that call their operations through `ops`, such
    images use Lucid's redirected ReLU gradient; the gradients of all others are exact.

    Args:
        model: from `load`, `from_torch` or `from_module`; or any pure function `images (N, H, W, 3) in [0, 1] -> array`, whose
            one layer is named `"output"`.
        objective: an objective (`jv.channel("layer3", range(256))`), a string (`"layer4:3,9,20-31"`, `"logit:golf ball"`), a
            function `(activations, images) -> (S,)`, or a list of these, each compiled as its own program.
        param: how an image is parameterized: `jv.param.fourier()`, `jv.param.pixel()`, ...
        transforms: random for every image and step; None for `jv.transforms.standard()`, `()` for none. Images with opacity
            (`jv.param.alpha()`) are put on a random background first, unless a `composite` is among the transforms.
        regularizers: penalties on the untransformed image, subtracted from the objective.
        optimizer: a factory `learning_rate -> optax.GradientTransformation`, such as `optax.adam`, `optax.sgd` or a
            `functools.partial` of one. The learning rate is data, so another one does not recompile.
        learning_rate: passed to the factory. None for the best value for similar networks: 0.02 without batch normalization
            (VGG), 0.01 with it (VGG-BN, ResNet), and for networks that do not use `ops`.
        steps: number of steps of gradient ascent.
        size: pixels of a side, or (height, width); None for the size at which the network's weights were evaluated.
        samples: images per unit, each from its own random start.
        scales: coarse to fine: a number of octaves, each 1.4 times as large as the one before (the last has `size`), or the
            factors themselves, such as `(0.25, 0.5, 1.0)`. The steps are divided among the scales; each starts from the
            enlarged images of the one before.
        restarts: starts per unit; the group of samples with the highest mean score is kept. The first start is that of
            `restarts=1`.
        views: random transforms of each image in each step; the objective is their mean.
        snapshots: numbers of steps after which the images are kept in `Result.snapshots`, such as `range(8, 257, 8)`.
        transparency: add a fourth channel, an opacity that shows where the objective had a gradient: the sum of |gradient| of
            each pixel over all steps, opaque from its 80th percentile on (as in MACO). `scores` are of the opaque images.
        ops: the operations that the gradient goes through. None: silent units use the redirected ReLU gradient, and on a CPU
            the network is `model.fast()`. `jv.ops.EXACT` for the exact gradient of the network itself, `jv.ops.RELAXED` also
            for a relaxed max-pooling gradient.
        seed: random keys depend on (seed, layer, unit, sample), never on the position in a batch.
        start: an image to start from, float32 (H, W, C) in [0, 1], or (K, H, W, C), one for each unit; resized to `size`. None
            for the random start of `param`. All samples of a unit start equal and differ by their transforms.
        mesh: the devices to use, any shape; None for all.
        chunk: units at once; None chooses by throughput on CPUs and by memory on accelerators.
        precision: of convolutions and products, as in `jax.default_matmul_precision` (`"highest"` for full float32 on every
            platform); None for the platform's default.
        progress: called with a `Progress` after every block of steps.
        out: a folder for every finished chunk and, at the end, the result: its arrays, a picture of each image and a contact
            sheet, as `Result.save` writes them. If the run is killed at any moment, the same call continues it, with any chunk
            and devices; once finished, the call returns the result at once. Memory stays flat: images are read from disk when
            they are used. (The disk holds them twice while the result is assembled.)
        overwrite: start again, whatever run or result `out` holds.

    Returns:
        A `Result`: `images` float32 (K, S, H, W, C) in [0, 1], `scores` (K, S), the objective alone on the final image, and
        `history` (K, S, steps), what was optimized (with transforms and regularizers). `diagnosis` (K, S) is "ok", or says why
        an image failed: "not finite", "no gradient", "no rise". A NaN in one unit never reaches the images of another.

    Raises:
        ArgumentError: an argument is wrong; the message says what was expected.
        SaveError: `out` cannot be written, is full, or holds a run with other settings.
        MemoryLimitError: a device has too little memory for one unit. Chunks that are too large are halved, with a warning.
        Interrupted: Ctrl-C; its `result` keeps the units that were finished, or `out` does.

    Many machines: call `jax.distributed.initialize()` in every process, as JAX describes it for SLURM, TPU pods and others,
    then this function with an `out` on a file system that all share. Every process computes its share of every objective's
    units on its own devices, sends nothing to the others, and returns the whole result. If one process stops, the run stops;
    it then continues with any number of processes.

    Example:
        >>> result = jv.visualize(model, "logit:golf ball,church", steps=1, size=32)
        >>> result.images.shape, result.labels
        ((2, 1, 32, 32, 3), ('logit:golf ball', 'logit:church'))
    """
    out = None if out is None else Path(out).absolute()  # wherever the working directory is in the end
    options = Options(
        param=param,
        transforms=transforms,
        regularizers=regularizers,
        optimizer=optimizer,
        learning_rate=learning_rate,
        steps=steps,
        size=size,
        samples=samples,
        scales=scales,
        restarts=restarts,
        views=views,
        snapshots=snapshots,
        transparency=transparency,
        ops=ops,
        seed=seed,
        start=start,
        mesh=mesh,
        chunk=chunk,
        precision=precision,
        progress=progress,
        out=out,
        overwrite=overwrite,
    )
    results: list[Result] = []
    finished = 0
    try:
        for result in _compute(_check(model, objective, options)):
            finished += len(result)
            results += [result] if out is None else []
    except KeyboardInterrupt:
        raise Interrupted(concatenate(results) if results else None, finished, out) from None
    return concatenate(results) if out is None else load_result(out)


@show_options(VisualizeOptions)
def iter_visualize(
    model: Model | Callable[[Array], Array], objective: Objectives, **options: Unpack[VisualizeOptions]
) -> Iterator[Result]:
    """Like `visualize`, but yield each chunk of units as it finishes.

    With `out`, chunks that are already in the folder are yielded too, in order. With several processes, each yields its share
    of the units.

    Args:
        model: as in `visualize`.
        objective: as in `visualize`.
        **options: those of `visualize`, with the same defaults.

    Raises:
        ArgumentError, SaveError, MemoryLimitError: as for `visualize`.

    Example:
        >>> for result in jv.iter_visualize(model, "layer4:0-3", steps=1, size=32, chunk=2, mesh=jv.make_mesh(1)):
        ...     print(result.labels)
        ('layer4:0', 'layer4:1')
        ('layer4:2', 'layer4:3')
    """
    return _compute(_check(model, objective, Options(**options)))


def _check(model: Model | Callable[[Array], Array], objective: Objectives, options: Options) -> ImageRun:
    return check_run(model if isinstance(model, Model) else from_function(model), objective, options)


def _compute(run: ImageRun) -> Iterator[Result]:
    """Yield the results of a run, a chunk of units at a time; with `out`, keep them on disk."""
    options = run.options
    labels = [objective.labels(run.model) for objective in run.objectives]
    settings = [run.settings | {"objective": list(names)} for names in labels]
    store = None
    if options.out is not None:
        store = engine.Store(options.out, run.identity, labels, settings, options.samples, overwrite=options.overwrite)
        if store.is_finished:
            yield from store.results()
            return
    elif jax.process_count() > 1:
        raise ArgumentError(f"{jax.process_count()} processes need out=, a folder that all of them share.")
    compute = partial(
        engine.run,
        snapshots=run.snapshots,
        mesh=options.mesh,
        chunk=options.chunk,
        precision=options.precision,
        progress=options.progress,
    )
    with store or contextlib.nullcontext():
        for number, names in enumerate(labels):
            stages = make_stages(run, number)
            for chunk in compute(stages) if store is None else store.run(number, stages, compute):
                yield make_result(chunk.arrays, names[chunk.first : chunk.stop], settings[number])
        if store is not None:
            store.finish()
