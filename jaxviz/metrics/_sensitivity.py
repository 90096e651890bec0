"""Maximum sensitivity: the largest change of a map under small changes of the image."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._errors import ArgumentError, near_matches
from jaxviz._pytree import leaf
from jaxviz._types import Array, ArrayLike
from jaxviz.attribution._attribute import METHODS
from jaxviz.attribution._attribution import Attribution
from jaxviz.attribution._sampling import as_count, as_ids, as_seed, draw_keys
from jaxviz.attribution._target import AsTarget
from jaxviz.engine import RunOptions
from jaxviz.metrics._arguments import as_user_target, resolve_target
from jaxviz.models import Model

Method: TypeAlias = str | Callable[..., Attribution]
IN_FLIGHT = 2**28  # the most values of perturbed images in memory


def as_method(method: Method, options: Mapping[str, Any] | None) -> Callable[..., Attribution]:
    """Return the function of a method: a name of `METHODS`, or `fn(model, images, target) -> Attribution`.

    Raises:
        ArgumentError: there is no such method or option.
    """
    if not isinstance(method, str):
        if not callable(method):
            raise ArgumentError(f"Expected a method's name or a function (model, images, target); got {method!r}.")
        return partial(method, **dict(options or {}))
    if method not in METHODS:
        raise ArgumentError(f"There is no method {method!r}.{near_matches(method, METHODS)} Known are {', '.join(METHODS)}.")
    known = inspect.signature(METHODS[method]).parameters
    for name in options or {}:
        if name not in known:
            raise ArgumentError(f"{method} has no option {name!r}.{near_matches(name, known)}")
    return partial(METHODS[method], **dict(options or {}))


def max_sensitivity(
    model: Model,
    images: ArrayLike,
    method: Method = "saliency",
    target: AsTarget = None,
    *,
    radius: float = 0.02,
    samples: int = 10,
    seed: int = 0,
    ids: ArrayLike | Sequence[int] | None = None,
    options: Mapping[str, Any] | None = None,
    **run: Unpack[RunOptions],
) -> np.ndarray:
    """Return max_k ||map(x_k) - map(x)|| / ||map(x)|| over images x_k near x; lower is better (Yeh et al., 2019).

    Equals Captum's `sensitivity_max`. The x_k are uniform within `radius` of x in every value, clipped to [0, 1]. The target of
    x_k is that of x. A map of norm 0 counts as a map of norm 1.

    Args:
        model: the network.
        images: float32 (N, H, W, C) in [0, 1].
        method: a name of `jaxviz.attribution.METHODS`, or a function `(model, images, target) -> Attribution`, such as one of
            `jaxviz.attribution`.
        target: see `attribute`.
        radius: in units of the image in [0, 1]; Captum's is in units of normalized images.
        samples: number of x_k.
        seed: seed of the x_k.
        ids: int (N,); images with the same id get the same draws. All images do by default.
        options: options of the method.
        **run: see `jaxviz.RunOptions`; passed to the method.

    Returns:
        float32 (N,), or (N, K) for K targets.

    Raises:
        ArgumentError: arguments that do not fit each other.

    >>> jv.metrics.max_sensitivity(model, images, "saliency", samples=2).shape == (len(images),)
    True
    """
    explain = as_method(method, options)
    x = model.check_images(images)
    samples = as_count(samples, "samples")
    amount, start = leaf(radius, "radius", low=0.0), as_seed(seed)
    resolved, index = resolve_target(model, target, x, run)
    image_ids, count = as_ids(ids, len(x)), len(x)
    original = explain(model, x, as_user_target(target, resolved, index), **run).maps
    together = max(1, min(count, IN_FLIGHT // (samples * int(np.prod(x.shape[1:])))))
    changes: list[np.ndarray] = []
    for first in range(0, count, together):
        rows = np.minimum(np.arange(first, first + together), count - 1)  # groups of one size: one program
        near = nearby(x[rows], image_ids[rows], amount, start, samples)
        classes = None if index is None else np.repeat(index[rows], samples, 0)
        maps = explain(model, near, as_user_target(target, resolved, classes), **run).maps
        changes.append(np.asarray(_largest_change(original[rows], maps, samples, resolved.many)))
    values = np.concatenate(changes)[:count]
    return values if resolved.many else values[:, 0]


@partial(jax.jit, static_argnums=4)
def nearby(images: Array, ids: ArrayLike, radius: Array, seed: Array, samples: int) -> Array:
    """Return `samples` images near each of n images, (n * samples, H, W, C), those of one image in a row."""
    keys = draw_keys(seed, jnp.asarray(ids), jnp.arange(samples)).T.reshape(-1)
    size = int(np.prod(images.shape[1:]))
    draws = jax.vmap(lambda key: jax.random.uniform(key, (size,), minval=-1.0, maxval=1.0))(keys)
    moved = jnp.repeat(images, samples, 0) + radius * draws.reshape(-1, *images.shape[1:])
    return jnp.clip(moved, 0, 1)


@partial(jax.jit, static_argnums=(2, 3))
def _largest_change(original: ArrayLike, maps: ArrayLike, samples: int, many: bool) -> Array:
    n, k = original.shape[0], original.shape[1] if many else 1
    before, after = jnp.reshape(original, (n, 1, k, -1)), jnp.reshape(maps, (n, samples, k, -1))
    norm = jnp.linalg.norm(before, axis=-1)
    return (jnp.linalg.norm(after - before, axis=-1) / jnp.where(norm == 0, 1, norm)).max(1)
