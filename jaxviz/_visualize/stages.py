"""The stages of an image run: one for each scale, with the recipe that all units share and the units themselves."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._pytree import as_static
from jaxviz._types import Array
from jaxviz._visualize.run import ImageRun
from jaxviz.engine import Recipe, Stage, Unit
from jaxviz.models import prepare_kernels
from jaxviz.objectives._algebra import partition
from jaxviz.objectives._basic import work_ids
from jaxviz.objectives._match import fitted


def make_stages(run: ImageRun, number: int) -> list[Stage]:
    """Return the stages of objective `number`, from coarse to fine."""
    objective, starts, options = run.objectives[number], run.starts[number], run.options
    ids = work_ids(objective, run.model)
    keys = sample_keys(options.seed, ids, options.restarts * options.samples)
    keys = keys.reshape(-1, options.restarts, options.samples)
    layers = objective.layers()
    network = prepare_kernels(run.model.network, layers, run.size) if run.is_fast else run.model.network
    stages: list[Stage] = []
    for size, steps in zip(run.sizes, _divide(options.steps, len(run.sizes)), strict=True):
        here = objective if size == run.size else objective.at_size(run.model, run.size, size).bind(run.model, size)
        each, shared = partition(here)
        recipe = Recipe(
            network=network,
            param=run.param.with_shape((*size, len(run.model.mean))),
            transform=run.transforms,
            regularizers=run.regularizers,
            objective=shared,
            learning_rate=jnp.asarray(run.learning_rate, jnp.float32),
            layers=layers,
            optimizer=as_static(options.optimizer),
            ops=run.ops,
            views=int(options.views),
            transparency=bool(options.transparency),
        )
        first = None if starts is None else jnp.asarray(fitted(starts, run.model, size))
        stages.append(Stage(recipe, Unit(each, keys, first), steps))
    return stages


def sample_keys(seed: int, ids: np.ndarray, samples: int) -> Array:
    """Return the random keys (K, S) of (seed, ids, sample): the columns of `ids`, uint32 (K, n), are folded in one by one."""

    def key(words: Array, sample: Array) -> Array:
        folded = jax.random.key(seed)
        for word in words:
            folded = jax.random.fold_in(folded, word)
        return jax.random.fold_in(folded, sample)

    return jax.vmap(jax.vmap(key, (None, 0)), (0, None))(jnp.asarray(ids), jnp.arange(samples, dtype=jnp.uint32))


def _divide(steps: int, parts: int) -> list[int]:
    """Divide the steps into equal parts; the remainder goes to the last parts."""
    return [steps * (i + 1) // parts - steps * i // parts for i in range(parts)]
