"""Activation maximisation: images that a network's units respond to most."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxviz import engine, objectives
from jaxviz._errors import ArgumentError
from jaxviz._pytree import as_static, as_tree
from jaxviz._types import Array, ArrayLike, StrPath
from jaxviz.engine import Progress, Recipe, Stage, Unit
from jaxviz.models import Model, calls_through_ops, from_function, is_normalised, prepared
from jaxviz.objectives import Objective
from jaxviz.ops import EXACT, REDIRECTED, Ops
from jaxviz.param import Param, fourier
from jaxviz.regularizers import Regularizer
from jaxviz.result import ARRAY_NAMES, Result, concatenate, load_result
from jaxviz.transforms import Compose, Composite, Transform, compose, composite, standard

_OCTAVE = 1.4  # between one scale and the next
Objectives = Objective | str | Callable | Sequence["Objective | str | Callable"]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during `visualize`; `result` holds the units that were finished, or is None; with `out=` the folder does."""

    def __init__(self, result: Result | None, finished: int = 0, out: StrPath | None = None) -> None:
        where = "see the exception's .result" if out is None else f"they are in '{out}', and the same call again continues"
        super().__init__(f"{finished} units were finished: {where}")
        self.result = result


def visualize(
    model: Model | Callable[[Array], Array], objective: Objectives, *, out: StrPath | None = None, **options: Any
) -> Result:
    """Render the images that maximise objectives, many units and samples at once.

    Args:
        model: from `load`, `from_torch` or `from_module`; or any pure function `images (N, H, W, 3) in [0, 1] -> array`, whose
            one layer is named `"output"`.
        objective: an objective (`jv.channel("layer3", range(256))`), a string (`"layer4:3,9,20-31"`, `"logit:golf ball"`), a
            function `(activations, images) -> (S,)`, or a list of these, each a program of its own.
        out: a folder that keeps what is finished and takes the result in the end: its arrays, a picture of each image and a
            contact sheet, as `Result.save` writes them. Killed at any moment, the same call again continues, with any chunk and
            devices; once finished, it returns the result at once. Memory stays flat: the result's images are read from the disk
            where they are looked at. (The disk holds them twice while the result is put together.)
        **options: as for `iter_visualize`.

    Returns:
        A `Result`: `images` float32 (K, S, H, W, C) in [0, 1], `scores` (K, S), the objective alone on the final image, and
        `history` (K, S, steps), what was optimised (with transforms and regularisers). `diagnosis` (K, S) says "ok", or why an
        image came to nothing: "not finite", "no gradient", "no rise". One unit's NaN never touches another's images.

    A unit that is silent on its starting image has no gradient. Networks that call their operations through `ops` then let it
    rise by Lucid's redirected ReLU gradient, for just those images; the gradients of all others are exact.

    Raises:
        ArgumentError: an argument is wrong; the message says what was expected.
        SaveError: `out` cannot be written, is full, or holds a run with other settings.
        MemoryLimitError: a device has too little memory for one unit. Chunks that are too large are halved, with a warning.
        Interrupted: Ctrl-C; its `result` keeps the units that were finished, or `out` does.

    Many machines: call `jax.distributed.initialize()` in every process, as JAX describes it for SLURM, TPU pods and others,
    then this with an `out` on a file system that all share. Every process computes its share of every objective's units on its
    own devices, sends nothing to the others, and returns the whole result. A process that stops stops the run, which then
    continues with any number of processes.

    Example:
        >>> result = jaxviz.visualize(jaxviz.load(), "logit:golf ball,church", steps=64)
        >>> result.save("out")
    """
    parts: list[Result] = []
    finished = 0
    try:
        for part in iter_visualize(model, objective, out=out, **options):
            finished += len(part)
            parts += [part] if out is None else []
    except KeyboardInterrupt:
        raise Interrupted(concatenate(parts) if parts else None, finished, out) from None
    return concatenate(parts) if out is None else load_result(out)


def iter_visualize(
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
) -> Iterator[Result]:
    """Like `visualize`, but yield each chunk of units as it is finished, so that nothing finished is lost.

    With `out`, chunks that are in the folder already are yielded too, in their place. Of several processes each yields the
    units that are its share.

    Args:
        model: as in `visualize`.
        objective: as in `visualize`.
        param: how an image is parameterised: `jv.param.fourier()`, `jv.param.pixel()`, ...
        transforms: drawn anew for every image and step; None for `jv.transforms.standard()`, `()` for none. Images with opacity
            (`jv.param.alpha()`) are laid on a random background first, unless a `composite` is among them.
        regularizers: subtracted from the objective; they see the untransformed image.
        optimizer: a factory `learning_rate -> optax.GradientTransformation`, such as `optax.adam`, `optax.sgd` or a
            `functools.partial` of one. The learning rate is data, so another one does not recompile.
        learning_rate: passed to the factory. None for what was found best for networks like this one: 0.02 without batch
            normalisation (VGG), 0.01 with it (VGG-BN, ResNet), and for those that do not use `ops`.
        steps: of gradient ascent.
        size: pixels of a side, or (height, width); None for the size that the network's weights were evaluated at.
        samples: images per unit, each from its own random start.
        scales: coarse to fine. A number of octaves, each 1.4 times as large as the one before (the last has `size`), or the
            factors themselves, such as `(0.25, 0.5, 1.0)`. The steps are divided among them, and each starts from what the one
            before made, enlarged.
        restarts: starts per unit; the group of samples with the highest mean score is kept. The first is what 1 gives.
        views: random transforms of each image at a step, of which the objective is the mean.
        snapshots: numbers of steps after which the images are kept in `Result.snapshots`, such as `range(8, 257, 8)`.
        transparency: give images a fourth channel, an opacity that shows what the objective asked for: the sum over all steps
            of |gradient| of each pixel, opaque from its 80th percentile on (MACO's). `scores` are of the opaque images.
        ops: the operations that the gradient goes through. None: a unit that is silent rises by the redirected ReLU gradient,
            and on a CPU the network is `model.fast()`. `jv.ops.EXACT` for the exact gradient of the network as given,
            `jv.ops.RELAXED` also for a relaxed max-pooling gradient.
        seed: the random keys come from (seed, layer, unit, sample) and never from the position in a batch.
        start: an image to start from, float32 (H, W, C) in [0, 1], or (K, H, W, C), one a unit; resized to `size`. None for the
            parameterisation's own random start. All samples of a unit start alike, and differ by their transforms.
        mesh: the devices to use, any shape; None for all.
        chunk: units at once; None for the throughput plateau on CPU and the memory on accelerators.
        precision: of convolutions and products, as in `jax.default_matmul_precision` (`"highest"` for full float32 on every
            platform); None for the platform's default.
        progress: called with a `Progress` after every block of steps.
        out: as in `visualize`.
        overwrite: start anew, whatever run or result `out` holds.
    """
    if not isinstance(model, Model):
        model = from_function(model)
    height, width = _check_size(size, model)
    whole = {"samples": samples, "restarts": restarts, "views": views, "chunk": 1 if chunk is None else chunk}
    for name, value, least in (("steps", steps, 0), *((name, value, 1) for name, value in whole.items())):
        if value != int(value) or value < least:
            raise ArgumentError(f"{name} must be a whole number of at least {least}; got {value!r}.")
    sizes = _octaves(scales, (height, width))
    looks = sorted({int(look) for look in snapshots})
    if looks and not 0 < looks[0] <= looks[-1] <= steps:
        raise ArgumentError(f"snapshots are numbers of steps from 1 to {steps}; got {list(snapshots)}.")
    if not isinstance(param, Param):
        param = param()
    many = objective if isinstance(objective, list | tuple) else [objective]
    learning_rate = default_learning_rate(model) if learning_rate is None else learning_rate
    bound = [objectives.as_objective(one).bind(model, (height, width)) for one in many]  # every error before the first step
    if not bound:
        raise ArgumentError("Expected at least one objective; got an empty list.")
    transform, penalties = _as_transform(transforms), _as_regularizers(regularizers)
    if _has_opacity(param, (height, width, len(model.mean))):
        if transparency:
            raise ArgumentError("Images of alpha() have an opacity of their own: leave alpha() or transparency away.")
        if any(one.reference() is not None for one in bound):
            raise ArgumentError("An image with opacity cannot be compared with a photo: leave alpha() away.")
        if not any(isinstance(part, Composite) for part in transform.parts):
            transform = compose(composite(), transform)  # first, for padding would fill the opacity too
    starts = [_starts(start, objectives.count(one), model, (height, width)) for one in bound]
    settings = {
        "model": model.name,
        "steps": steps,
        "size": [height, width],
        "samples": samples,
        "scales": [list(s) for s in sizes],
        "restarts": restarts,
        "views": views,
        "snapshots": looks,
        "transparency": bool(transparency),
        "seed": seed,
        "start": None if start is None else list(np.shape(start)),
        "learning_rate": float(learning_rate),
        "optimizer": getattr(optimizer, "__name__", str(optimizer)),
        "param": repr(param),
        "transforms": repr(transform),  # not as given: None and standard() are the same run
        "regularizers": repr(penalties),
        "precision": precision,
    }
    through_ops = calls_through_ops(model)
    recipe = partial(
        Recipe,
        transform=transform,
        regularizers=penalties,
        learning_rate=jnp.asarray(learning_rate, jnp.float32),
        optimizer=as_static(optimizer),
        # A unit that is silent on the grey start would get no gradient, and its picture stay grey.
        ops=ops or (REDIRECTED if through_ops else EXACT),
        views=int(views),
        transparency=bool(transparency),
    )
    # Images made on a CPU and on a GPU differ by more than this, and a run may go from one to the other: not in the identity.
    is_fast = ops is None and through_ops and engine.is_cpu(mesh or engine.make_mesh())
    labels = [one.labels(model) for one in bound]
    details = [settings | {"objective": list(names)} for names in labels]
    store = None
    if out is not None:
        made = {"param": param, "start": start, "objectives": list(bound), **recipe.keywords}
        store = engine.Store(out, _identity(model, made, settings), labels, details, samples, overwrite=overwrite)
        if store.is_finished:
            yield from store.results()
            return
    elif jax.process_count() > 1:
        raise ArgumentError(f"With {jax.process_count()} processes, give out=, a folder that all of them share.")
    run = partial(engine.run, snapshots=looks, mesh=mesh, chunk=chunk, precision=precision, progress=progress)
    with store or contextlib.nullcontext():
        for number, (one, images) in enumerate(zip(bound, starts, strict=True)):
            keys = sample_keys(seed, objectives.work_ids(one, model), restarts * samples).reshape(-1, restarts, samples)
            network = prepared(model, one.layers(), (height, width)).bare() if is_fast else model.bare()
            stages = []
            for at, count in zip(sizes, _divide(steps, len(sizes)), strict=True):
                here = one if at == (height, width) else one.at_size(model, (height, width), at).bind(model, at)
                each, rest = objectives.partition(here)
                shaped = param.with_shape((*at, len(model.mean)))
                program = recipe(param=shaped, objective=rest, layers=one.layers(), model=network)
                first = None if images is None else jnp.asarray(objectives.fitted(images, model, at))
                stages.append(Stage(program, Unit(each, keys, first), count))
            for part in run(stages) if store is None else store.run(number, stages, run):
                names = labels[number][part.first : part.first + len(part.images)]
                arrays = {name: getattr(part, name) for name in ARRAY_NAMES}
                yield Result(**arrays, labels=names, settings=details[number])
        if store is not None:
            store.finish()


def default_learning_rate(model: Model) -> float:
    """Return the learning rate for a network's family of architectures, by `benchmarks/defaults.py`."""
    return 0.02 if is_normalised(model) is False else 0.01


def _identity(model: Model, made: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that decides what the images are: of a kept run, only the same may continue it."""
    named = {"weights": engine.digest(jax.tree.leaves(model)), "network": engine.digest(model.graphdef)}
    return {**settings, **{name: engine.describe(value) for name, value in made.items() if name != "model"}, **named}


def sample_keys(seed: int, ids: np.ndarray, samples: int) -> Array:
    """Return the random keys (K, S) of (seed, id, sample): `ids` is uint32 (K, n), folded in one column after the other."""

    def key(words: Array, sample: Array) -> Array:
        folded = jax.random.key(seed)
        for word in words:
            folded = jax.random.fold_in(folded, word)
        return jax.random.fold_in(folded, sample)

    return jax.vmap(jax.vmap(key, (None, 0)), (0, None))(jnp.asarray(ids), jnp.arange(samples, dtype=jnp.uint32))


def _check_size(size: int | tuple[int, int] | None, model: Model) -> tuple[int, int]:
    pair = model.input_size if size is None else (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(side, int | np.integer) and side >= 1 for side in pair):
        raise ArgumentError(f"size is a number of pixels or (height, width), each at least 1; got {size!r}.")
    return int(pair[0]), int(pair[1])


def _octaves(scales: int | Sequence[float], size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the sizes (height, width) of the scales, the last one `size`."""
    try:
        factors = [_OCTAVE**-i for i in reversed(range(int(scales)))] if np.ndim(scales) == 0 else [float(f) for f in scales]  # type: ignore[arg-type, union-attr]
    except (TypeError, ValueError):
        factors = []
    if not factors or factors[-1] != 1 or any(not 0 < a < b for a, b in pairwise(factors)):
        raise ArgumentError(f"scales is a number of octaves, or rising factors that end in 1 such as (0.5, 1); got {scales!r}.")
    return [(max(1, round(size[0] * f)), max(1, round(size[1] * f))) for f in factors]


def _divide(steps: int, parts: int) -> list[int]:
    """Divide the steps evenly; the last parts get one more where it does not come out even."""
    return [steps * (i + 1) // parts - steps * i // parts for i in range(parts)]


def _starts(start: ArrayLike | None, units: int, model: Model, size: tuple[int, int]) -> Array | None:
    """Return an image to start from for each unit, (K, H, W, C), or None."""
    if start is None:
        return None
    images = objectives.fitted(objectives.as_images(start), model, size)
    if images.ndim == 4 and len(images) != units:
        raise ArgumentError(f"Expected one image to start from, or one for each of {units} units; got {len(images)}.")
    return cast(Array, np.broadcast_to(images, (units, *images.shape[-3:])))


def _has_opacity(param: Param, shape: tuple[int, int, int]) -> bool:
    """Whether its images have a channel more than the network takes: their opacity."""
    sized = param.with_shape(shape)
    return jax.eval_shape(lambda key: sized.decode(sized.init(key)), jax.random.key(0)).shape[-1] == shape[-1] + 1


def _as_transform(given: Any) -> Compose:
    if given is None:
        return standard()
    return compose(*given) if isinstance(given, list | tuple) else compose(given)


def _as_regularizers(given: Any) -> tuple:
    return tuple(as_tree(one) for one in (given if isinstance(given, list | tuple) else (given,)))
