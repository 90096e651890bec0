"""Gradient ascent on the images of one unit of work: one objective and its group of S sample images.

Everything here is traced, for one unit; `_execute` maps it over units, chunks and devices. A unit can start from R points at
once (`restarts`), of which `finish` keeps the best.
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
from jaxviz.models import activations
from jaxviz.models._network import Network
from jaxviz.objectives import Objective
from jaxviz.objectives._algebra import combine, reference_name
from jaxviz.ops import EXACT, Ops
from jaxviz.param import Param
from jaxviz.param._base import decode_group, enlarge, project_group

OPAQUE = 80  # percentile of an image's accumulated gradient above which it is opaque, as in Xplique and Horama
BLOCK = 32  # at most as many steps between two reports of progress, and in one compiled loop


@pytree
@dataclass(frozen=True)
class Recipe:
    """What all units of a run share. Arrays are data; only the static fields are part of the program."""

    network: Network
    param: Param
    transform: Callable[[Array, Array], Array]
    regularizers: tuple[Callable[[Array], Array], ...]
    objective: Objective  # the shared leaves; None where each unit has its own
    learning_rate: Array
    layers: tuple[str, ...] = field(metadata={"static": True})
    optimizer: Callable[[Any], optax.GradientTransformation] = field(metadata={"static": True})
    ops: Ops = field(default=EXACT, metadata={"static": True})  # of the network when it is differentiated
    views: int = field(default=1, metadata={"static": True})  # random transforms of each image per step
    transparency: bool = field(default=False, metadata={"static": True})  # whether images get an opacity from the gradient


@pytree
@dataclass(frozen=True)
class Unit:
    """One unit of work: its own leaves of the objective, a key per restart and sample, (R, S), and a starting image."""

    objective: Objective
    keys: Array
    image: Array | None = None  # (H, W, C) in [0, 1]; None draws the start


@pytree
@dataclass(frozen=True)
class Carry:
    """What a step updates, for R x S images."""

    params: PyTree
    opt_state: PyTree
    moved: Array  # bool (R, S): there has been a gradient
    finite: Array  # bool (R, S): there has been no NaN and no infinity; at one, an image keeps its value of the step before
    gradient_sum: Array | None = None  # (R, S, H, W): sum over steps of |gradient| of each pixel; None without `transparency`


@pytree
@dataclass(frozen=True)
class Finished:
    """The S images of a unit's best restart."""

    images: Array  # (S, H, W, C) in [0, 1], with `transparency` the opacity is one more channel
    scores: Array  # (S,): the objective of the untransformed images
    moved: Array  # (S,)
    finite: Array  # (S,)
    restart: Array  # (): index among the R


def start(recipe: Recipe, unit: Unit) -> Carry:
    """Draw the R x S starting images from their keys, or start all of them from the unit's image."""
    if unit.image is None:
        params = jax.vmap(jax.vmap(recipe.param.init))(jax.vmap(jax.vmap(partial(jax.random.fold_in, data=0)))(unit.keys))
    else:
        encoded = recipe.param.encode(unit.image)
        params = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*unit.keys.shape, *leaf.shape)), encoded)
    shape = unit.keys.shape
    total = jnp.zeros(jax.eval_shape(partial(_decode, recipe), params).shape[:-1]) if recipe.transparency else None
    return Carry(params, _new_state(recipe, params), jnp.zeros(shape, bool), jnp.ones(shape, bool), total)


def grow(recipes: tuple[Recipe, Recipe], units: tuple[Unit, Unit], carry: Carry) -> Carry:
    """Enlarge the images to the next scale, and reset the optimizer.

    With a starting image, the change to it is enlarged and added to the starting image at the new size, which keeps its fine
    detail.
    """
    (old, new), (small, large) = recipes, (unit.image for unit in units)

    def change(params: PyTree) -> PyTree:
        if small is None or large is None:
            return enlarge(old.param, new.param, params)
        difference = jax.image.resize(old.param.decode(params) - small, large.shape, "cubic")
        return new.param.encode(jnp.clip(large + difference, 0, 1))

    params = jax.vmap(jax.vmap(change))(carry.params)
    size = jax.eval_shape(partial(_decode, new), params).shape[2:4]
    total = carry.gradient_sum
    if total is not None:
        total = jax.image.resize(total, (*total.shape[:2], *size), "linear")
    return Carry(params, _new_state(new, params), carry.moved, carry.finite, total)


def score(recipe: Recipe, objective: Objective, images: Array, keys: Array | None = None, ops: Ops = EXACT) -> Array:
    """Return the objective of S images, (S,), under the transforms drawn from `keys`; untransformed where None.

    A reference image of the objective is transformed with the same keys, once per sample.
    """

    def view(images: Array) -> tuple[Array, dict[str, Array]]:
        views = images if keys is None else jax.vmap(recipe.transform)(keys, images)
        if views.shape[-1] == recipe.network.in_channels + 1:  # an opacity that no transform has blended
            views = 0.5 + views[..., -1:] * (views[..., :-1] - 0.5)
        return views, activations(recipe.network, views, recipe.layers, ops=ops)

    views, acts = view(images)
    reference = objective.reference()
    if reference is not None:
        reference_views, reference_acts = view(jnp.broadcast_to(reference, images.shape))
        acts |= {reference_name(): reference_views}
        acts |= {reference_name(layer): act for layer, act in reference_acts.items()}
    return objective(acts, views)


def step(recipe: Recipe, unit: Unit, carry: Carry, number: Array) -> tuple[Carry, Array]:
    """Run step `number` (from 0); also return the optimized value (R, S): the objective under transforms minus regularizers."""
    return jax.vmap(partial(_step, recipe, combine(unit.objective, recipe.objective), number))(unit.keys, carry)


def _step(recipe: Recipe, objective: Objective, number: Array, keys: Array, carry: Carry) -> tuple[Carry, Array]:
    """Run one step of one group of S images."""
    keys = jax.vmap(lambda key: jax.random.fold_in(key, number + 1))(keys)

    def transformed_score(images: Array, keys: Array) -> Array:
        return score(recipe, objective, images, keys, recipe.ops)

    def loss(images: Array) -> tuple[Array, Array]:
        if recipe.views == 1:
            value = transformed_score(images, keys)
        else:
            views = jax.vmap(partial(jax.random.split, num=recipe.views))(keys)
            value = jax.vmap(transformed_score, (None, 1))(images, views).mean(0)
        for regularizer in recipe.regularizers:
            value = value - jax.vmap(regularizer)(images)
        return -value.sum(), value

    decoded, pull_back = jax.vjp(partial(decode_group, recipe.param), carry.params)
    slope, value = jax.grad(loss, has_aux=True)(decoded)
    (gradient,) = pull_back(slope)
    # Per sample, so that an optimizer with a norm or a count never couples one image to another.
    updates, opt_state = jax.vmap(recipe.optimizer(recipe.learning_rate).update)(gradient, carry.opt_state, carry.params)
    params = project_group(recipe.param, optax.apply_updates(carry.params, updates))
    finite = carry.finite & jnp.isfinite(value) & jax.vmap(_finite)(params)
    total = None if carry.gradient_sum is None else carry.gradient_sum + jnp.abs(slope).mean(-1)
    old = (carry.params, carry.opt_state, carry.gradient_sum)
    params, opt_state, total = jax.vmap(_choose)(finite, (params, opt_state, total), old)
    return Carry(params, opt_state, carry.moved | jax.vmap(_any)(gradient), finite, total), value


def block(recipe: Recipe, unit: Unit, carry: Carry, first: Array, steps: Array) -> tuple[Carry, Array]:
    """Run `steps` (at most BLOCK) steps from number `first` in one compiled loop; the history is (R, S, BLOCK)."""

    def body(i: Array, state: tuple[Carry, Array]) -> tuple[Carry, Array]:
        carry, value = step(recipe, unit, state[0], first + i)
        return carry, jax.lax.dynamic_update_index_in_dim(state[1], value, i, axis=2)

    history = jnp.zeros((*unit.keys.shape, BLOCK), jnp.float32)
    return jax.lax.fori_loop(0, steps, body, (carry, history))


def images(recipe: Recipe, carry: Carry) -> Array:
    """Return the current images (R, S, H, W, C) in [0, 1]; with `transparency`, opacity is the last channel."""
    colors, total = _decode(recipe, carry.params), carry.gradient_sum
    if total is None:
        return colors
    most = jnp.percentile(total, OPAQUE, axis=(2, 3), keepdims=True)
    opacity = jnp.where(most > 0, jnp.clip(total / jnp.where(most > 0, most, 1), 0, 1), 1)
    return jnp.concatenate([colors, opacity[..., None]], axis=-1)


def finish(recipe: Recipe, unit: Unit, carry: Carry) -> Finished:
    """Return the images of the restart with the highest mean score."""
    objective = combine(unit.objective, recipe.objective)
    final = images(recipe, carry)
    scores = jax.vmap(partial(score, recipe, objective))(final if carry.gradient_sum is None else final[..., :-1])
    mean = scores.mean(1)
    best = jnp.argmax(jnp.where(jnp.isfinite(mean) & carry.finite.all(1), mean, -jnp.inf))
    return Finished(final[best], scores[best], carry.moved[best], carry.finite[best], best)


def _decode(recipe: Recipe, params: PyTree) -> Array:
    return jax.vmap(partial(decode_group, recipe.param))(params)


def _new_state(recipe: Recipe, params: PyTree) -> PyTree:
    return jax.vmap(jax.vmap(recipe.optimizer(recipe.learning_rate).init))(params)


def _finite(tree: PyTree) -> Array:
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _any(tree: PyTree) -> Array:
    return jnp.array([(leaf != 0).any() for leaf in jax.tree.leaves(tree)]).any()


def _choose(first: Array, a: PyTree, b: PyTree) -> PyTree:
    return jax.tree.map(partial(jnp.where, first), a, b)
