"""Gradient ascent on the images of one unit of work: one objective and its group of S sample images.

Everything here is traced and knows nothing of batches, chunks or devices; `_execute` maps it over units. A unit may be
tried from R starting points at once (`restarts`); `finish` keeps the best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxviz._pytree import pytree
from jaxviz._types import Array, PyTree
from jaxviz.models import Model, activations
from jaxviz.objectives import Objective, combine, reference_name
from jaxviz.ops import EXACT, Ops
from jaxviz.param import Param, decode_group, enlarge, project_group

OPAQUE = 80  # the percentile of a picture's accumulated gradient from which on it is opaque, as in Xplique and Horama
BLOCK = 32  # steps at most between two reports of progress, and in one compiled loop


@pytree
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
    views: int = field(default=1, metadata={"static": True})  # random transforms of each image at a step
    transparency: bool = field(default=False, metadata={"static": True})  # whether images get an opacity from their gradients


@pytree
@dataclass(frozen=True)
class Unit:
    """One unit of work: the leaves of the objective that are its own, a key per restart and sample, (R, S), and a start."""

    objective: Objective
    keys: Array
    image: Array | None = None  # (H, W, C) in [0, 1]; None to draw the start


@pytree
@dataclass(frozen=True)
class Carry:
    """What a step changes, of R x S images: the parameters, the optimiser's state, and how the ascent is getting on."""

    params: PyTree
    opt_state: PyTree
    moved: Array  # bool: there has been a gradient
    finite: Array  # bool: there has been no NaN and no infinity; an image that met one stays as it was before
    asked: Array | None = None  # (R, S, H, W): the sum over steps of |gradient| of each pixel, where it is asked for


@pytree
@dataclass(frozen=True)
class Finished:
    """A unit's best restart: S images and how they came about."""

    images: Array  # (S, H, W, C) in [0, 1], with opacity as one channel more where that is asked for
    scores: Array  # (S,): the objective alone on the images, untransformed
    moved: Array  # (S,)
    finite: Array  # (S,)
    restart: Array  # (): which of the R


def start(recipe: Recipe, unit: Unit) -> Carry:
    """Draw the R x S starting images from their keys, or start all of them from the unit's image."""
    if unit.image is None:
        params = jax.vmap(jax.vmap(recipe.param.init))(jax.vmap(jax.vmap(partial(jax.random.fold_in, data=0)))(unit.keys))
    else:
        given = recipe.param.encode(unit.image)
        params = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*unit.keys.shape, *leaf.shape)), given)
    shape = unit.keys.shape
    asked = jnp.zeros(jax.eval_shape(partial(_decoded, recipe), params).shape[:-1]) if recipe.transparency else None
    return Carry(params, _new_state(recipe, params), jnp.zeros(shape, bool), jnp.ones(shape, bool), asked)


def grow(recipes: tuple[Recipe, Recipe], units: tuple[Unit, Unit], carry: Carry) -> Carry:
    """Carry the images over to the next scale, where the optimiser starts anew.

    What was made of an image to start from is added to that image at its new size, so that its fine detail comes back.
    """
    (old, new), (small, large) = recipes, (unit.image for unit in units)

    def change(params: PyTree) -> PyTree:
        if small is None or large is None:
            return enlarge(old.param, new.param, params)
        made = jax.image.resize(old.param.decode(params) - small, large.shape, "cubic")
        return new.param.encode(jnp.clip(large + made, 0, 1))

    params = jax.vmap(jax.vmap(change))(carry.params)
    size = jax.eval_shape(partial(_decoded, new), params).shape[2:4]
    asked = carry.asked if carry.asked is None else jax.image.resize(carry.asked, (*carry.asked.shape[:2], *size), "linear")
    return Carry(params, _new_state(new, params), carry.moved, carry.finite, asked)


def score(recipe: Recipe, objective: Objective, images: Array, keys: Array | None = None, ops: Ops = EXACT) -> Array:
    """Return the objective of S images, (S,), as the transforms of `keys` show them; untransformed where None.

    The objective's reference image, where it has one, is shown with the same keys: one view of it for each sample.
    """

    def show(images: Array) -> tuple[Array, dict[str, Array]]:
        views = images if keys is None else jax.vmap(recipe.transform)(keys, images)
        if views.shape[-1] == recipe.model.in_channels + 1:  # an image with opacity, where no transform has seen to it
            views = 0.5 + views[..., -1:] * (views[..., :-1] - 0.5)
        return views, activations(recipe.model, views, recipe.layers, ops=ops)

    views, acts = show(images)
    reference = objective.reference()
    if reference is not None:
        seen, others = show(jnp.broadcast_to(reference, images.shape))
        acts |= {reference_name(): seen} | {reference_name(layer): act for layer, act in others.items()}
    return objective(acts, views)


def step(recipe: Recipe, unit: Unit, carry: Carry, number: Array) -> tuple[Carry, Array]:
    """Run step `number` (from 0); return the objective that was optimised too, (R, S), with transforms and regularisers."""
    return jax.vmap(partial(_step, recipe, combine(unit.objective, recipe.objective), number))(unit.keys, carry)


def _step(recipe: Recipe, objective: Objective, number: Array, keys: Array, carry: Carry) -> tuple[Carry, Array]:
    """Run one step of one group of S images."""
    keys = jax.vmap(lambda key: jax.random.fold_in(key, number + 1))(keys)

    def look(images: Array, keys: Array) -> Array:
        return score(recipe, objective, images, keys, recipe.ops)

    def loss(images: Array) -> tuple[Array, Array]:
        if recipe.views == 1:
            value = look(images, keys)
        else:
            value = jax.vmap(look, (None, 1))(images, jax.vmap(partial(jax.random.split, num=recipe.views))(keys)).mean(0)
        for regularizer in recipe.regularizers:
            value = value - jax.vmap(regularizer)(images)
        return -value.sum(), value

    made, pull = jax.vjp(partial(decode_group, recipe.param), carry.params)
    slope, value = jax.grad(loss, has_aux=True)(made)
    (gradient,) = pull(slope)
    # Per sample, so that an optimiser with a norm or a count never couples one image to another.
    updates, opt_state = jax.vmap(recipe.optimizer(recipe.learning_rate).update)(gradient, carry.opt_state, carry.params)
    params = project_group(recipe.param, optax.apply_updates(carry.params, updates))
    finite = carry.finite & jnp.isfinite(value) & jax.vmap(_finite)(params)
    asked = carry.asked if carry.asked is None else carry.asked + jnp.abs(slope).mean(-1)
    old = (carry.params, carry.opt_state, carry.asked)
    params, opt_state, asked = jax.vmap(_choose)(finite, (params, opt_state, asked), old)
    return Carry(params, opt_state, carry.moved | jax.vmap(_any)(gradient), finite, asked), value


def block(recipe: Recipe, unit: Unit, carry: Carry, first: Array, steps: Array) -> tuple[Carry, Array]:
    """Run `steps` (at most BLOCK) steps from number `first` in one compiled loop; the history is (R, S, BLOCK)."""

    def body(i: Array, state: tuple[Carry, Array]) -> tuple[Carry, Array]:
        carry, value = step(recipe, unit, state[0], first + i)
        return carry, jax.lax.dynamic_update_index_in_dim(state[1], value, i, axis=2)

    history = jnp.zeros((*unit.keys.shape, BLOCK), jnp.float32)
    return jax.lax.fori_loop(0, steps, body, (carry, history))


def images(recipe: Recipe, carry: Carry) -> Array:
    """Return the R x S images as they are now, (R, S, H, W, C) in [0, 1], with opacity where that is asked for."""
    made = _decoded(recipe, carry.params)
    if carry.asked is None:
        return made
    most = jnp.percentile(carry.asked, OPAQUE, axis=(2, 3), keepdims=True)
    opacity = jnp.where(most > 0, jnp.clip(carry.asked / jnp.where(most > 0, most, 1), 0, 1), 1)
    return jnp.concatenate([made, opacity[..., None]], axis=-1)


def finish(recipe: Recipe, unit: Unit, carry: Carry) -> Finished:
    """Return the images of the restart whose mean score is the highest."""
    objective = combine(unit.objective, recipe.objective)
    found = images(recipe, carry)
    scores = jax.vmap(partial(score, recipe, objective))(found if carry.asked is None else found[..., :-1])
    mean = scores.mean(1)
    best = jnp.argmax(jnp.where(jnp.isfinite(mean) & carry.finite.all(1), mean, -jnp.inf))
    return Finished(found[best], scores[best], carry.moved[best], carry.finite[best], best)


def _decoded(recipe: Recipe, params: PyTree) -> Array:
    return jax.vmap(partial(decode_group, recipe.param))(params)


def _new_state(recipe: Recipe, params: PyTree) -> PyTree:
    return jax.vmap(jax.vmap(recipe.optimizer(recipe.learning_rate).init))(params)


def _finite(tree: PyTree) -> Array:
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _any(tree: PyTree) -> Array:
    return jnp.array([(leaf != 0).any() for leaf in jax.tree.leaves(tree)]).any()


def _choose(first: Array, a: PyTree, b: PyTree) -> PyTree:
    return jax.tree.map(partial(jnp.where, first), a, b)
