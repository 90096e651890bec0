"""Many versions of each image in one batch: how methods with many steps lay them out, draw for them and evaluate them.

Axes of versions are (s, n, ...), s steps of n images; a network sees them as one batch of s * n.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._pytree import leaf
from jaxviz._types import Array, ArrayLike, PyTree
from jaxviz.attribution._target import Target
from jaxviz.models import activations
from jaxviz.models._network import Network

_FEW = 16  # versions, which a CPU has: added one by one, they are read once and in order


def repeated(tree: PyTree, s: int) -> PyTree:
    """Return what belongs to n images, (n, ...), for s versions of each, (s * n, ...)."""
    return jax.tree.map(lambda x: together(jnp.broadcast_to(x[None], (s, *x.shape))), tree)


def together(versions: Array) -> Array:
    """Return (s, n, ...) as one batch (s * n, ...)."""
    return versions.reshape(-1, *versions.shape[2:])


def apart(batch: Array, s: int, axis: int = 0) -> Array:
    """Return a batch with its axis of s * n, such as (s * n, ...), taken apart into (s, n, ...)."""
    return batch.reshape(*batch.shape[:axis], s, -1, *batch.shape[axis + 1 :])


def along(values: Array, versions: Array, axis: int = 0) -> Array:
    """Return values (s,) with axes of length 1, so that they run along an axis of `versions`."""
    return values.reshape(*(-1 if i == axis else 1 for i in range(versions.ndim)))


def weighted_sum(weights: Array, versions: Array, axis: int = 0) -> Array:
    """Return the sum of versions, along an axis, by weights (s,).

    XLA's own sum over an axis that is not the last takes fifty times as long on CPUs.
    """
    if len(weights) > _FEW:
        return jnp.tensordot(weights, versions, (0, axis), precision="highest")
    versions = jnp.moveaxis(jax.lax.optimization_barrier(versions), axis, 0)
    return functools.reduce(jnp.add, [weights[i] * versions[i] for i in range(len(weights))])


def draw_keys(seed: Array, ids: Array, numbers: Array) -> Array:
    """Return keys (s, n) of the samples `numbers` int32 (s,) and the images' own `ids` int32 (n,): of nothing else."""
    of_image = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(ids)
    return jax.vmap(lambda s: jax.vmap(lambda key: jax.random.fold_in(key, s))(of_image))(numbers)


def as_ids(ids: ArrayLike | Sequence[int] | None, count: int) -> np.ndarray:
    """Return the number of each image that its draws come from, int32 (N,); 0 for all unless given.

    Raises:
        ArgumentError: not N whole numbers from 0 to 2^31 - 1.
    """
    if ids is None:
        return np.zeros(count, np.int32)
    given = np.asarray(ids)
    whole = np.issubdtype(given.dtype, np.integer)
    if given.shape != (count,) or not whole or given.min() < 0 or given.max() >= 2**31:
        raise ArgumentError(f"Expected ids, {count} whole numbers from 0 to 2^31 - 1, one for each image; got {ids!r}.")
    return given.astype(np.int32)


def as_seed(seed: int) -> Array:
    """Return a seed as a leaf of a program, or raise an ArgumentError."""
    return leaf(seed, "seed", low=0, high=2**31 - 1, dtype=np.int32)


def as_count(value: Any, what: str, low: int = 1) -> int:
    """Return a whole number of at least `low`, or raise an ArgumentError."""
    return int(leaf(value, what, low=low, high=2**31 - 1, dtype=np.int32))


def evaluate(network: Network, target: Target, images: Array, index: Array | None) -> dict[str, Array | None]:
    """Return, of a batch of n images, `scores` (n, K), `index`, the classes (n, K) they are of, and `predicted`.

    `predicted` int32 (n,) is the class with the highest logit; None where the scores need no logits, so that the network can
    stop where they are known.
    """
    return judged(target, activations(network, images, target.layers()), images, index)


def judged(target: Target, acts: dict[str, Array], images: Array, index: Array | None) -> dict[str, Array | None]:
    """Return what `evaluate` does, where the values of the target's layers are known."""
    chosen = target.choose(acts, index)
    logits = acts.get("output")
    predicted = None if logits is None or logits.ndim != 2 else logits.argmax(-1).astype(jnp.int32)
    return {"scores": target.scores(acts, images, chosen).T, "index": chosen, "predicted": predicted}
