"""Gradient ascent on the images of one unit of work: one objective and its group of S sample images.

Everything here is traced and knows nothing of batches, chunks or devices; `_execute` maps it over units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxviz._types import Array, PyTree
from jaxviz.models import Model, activations
from jaxviz.objectives import Objective, combine
from jaxviz.ops import EXACT, Ops
from jaxviz.param import Param, decode_group, project_group

BLOCK = 32  # steps at most between two reports of progress, and in one compiled loop


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Recipe:
    """All that every unit of a run has in common. Arrays are data; only the static fields are part of the program."""

    model: Model
    param: Param
    transform: Callable[[Array, Array], Array]
    regularizers: tuple[Callable[[Array], Array], ...]
    objective: Objective  # the leaves that all units share; None where each unit has its own
    learning_rate: Array
    layers: tuple[str, ...] = field(metadata={"static": True})
    optimizer: Callable[[Any], optax.GradientTransformation] = field(metadata={"static": True})
    ops: Ops = field(default=EXACT, metadata={"static": True})  # that the gradient goes through


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Unit:
    """One unit of work: the leaves of the objective that are its own, and a key per sample, (S,)."""

    objective: Objective
    keys: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Carry:
    """What a step changes: the parameters of S images and the optimiser's state of each."""

    params: PyTree
    opt_state: PyTree


def start(recipe: Recipe, unit: Unit) -> Carry:
    """Draw the S starting images from their keys."""
    params = jax.vmap(recipe.param.init)(jax.vmap(partial(jax.random.fold_in, data=0))(unit.keys))
    return Carry(params, jax.vmap(recipe.optimizer(recipe.learning_rate).init)(params))


def step(recipe: Recipe, unit: Unit, carry: Carry, number: Array) -> tuple[Carry, Array]:
    """Run step `number` (from 0); return the objective that was optimised too, (S,), with transforms and regularisers."""
    objective = combine(unit.objective, recipe.objective)
    keys = jax.vmap(lambda key: jax.random.fold_in(key, number + 1))(unit.keys)

    def loss(params: PyTree) -> tuple[Array, Array]:
        images = decode_group(recipe.param, params)
        views = jax.vmap(recipe.transform)(keys, images)
        value = objective(activations(recipe.model, views, recipe.layers, ops=recipe.ops), views)
        for regularizer in recipe.regularizers:
            value = value - jax.vmap(regularizer)(images)
        return -value.sum(), value

    gradient, value = jax.grad(loss, has_aux=True)(carry.params)
    # Per sample, so that an optimiser with a norm or a count never couples one image to another.
    update = recipe.optimizer(recipe.learning_rate).update
    updates, opt_state = jax.vmap(update)(gradient, carry.opt_state, carry.params)
    params = project_group(recipe.param, optax.apply_updates(carry.params, updates))
    return Carry(params, opt_state), value


def block(recipe: Recipe, unit: Unit, carry: Carry, first: Array, steps: Array) -> tuple[Carry, Array]:
    """Run `steps` (at most BLOCK) steps from number `first` in one compiled loop; the history is (S, BLOCK)."""

    def body(i: Array, state: tuple[Carry, Array]) -> tuple[Carry, Array]:
        carry, value = step(recipe, unit, state[0], first + i)
        return carry, jax.lax.dynamic_update_index_in_dim(state[1], value, i, axis=1)

    history = jnp.zeros((unit.keys.shape[0], BLOCK), jnp.float32)
    return jax.lax.fori_loop(0, steps, body, (carry, history))


def finish(recipe: Recipe, unit: Unit, carry: Carry) -> tuple[Array, Array]:
    """Return the S images in [0, 1] and the objective alone on each, untransformed, (S,)."""
    objective = combine(unit.objective, recipe.objective)
    images = decode_group(recipe.param, carry.params)
    return images, objective(activations(recipe.model, images, recipe.layers), images)
