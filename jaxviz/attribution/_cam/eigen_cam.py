"""Eigen-CAM: the first principal component of a layer's values over the positions."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxviz._types import Array


def first_component(values: Array) -> Array:
    """Return the projection of each position on the first principal direction of the channels: (..., h, w).

    Muhammad and Yeasin, "Eigen-CAM: Class Activation Map using Principal Components", 2020. The values are centred over the
    positions. The direction comes from the smaller of the two matrices of inner products (positions or channels), so that a map
    of 112 x 112 needs no matrix of 12544 x 12544, nor a decomposition on the host.

    A principal direction has no sign of its own. Here it has the one whose projection rises with the sum of the channels, high
    where the layer is active, on every machine and in every batch.

    Args:
        values: float (..., h, w, C).

    Returns:
        float (..., h, w), of mean 0; zero where all positions are alike.
    """
    *lead, h, w, channels = values.shape
    rows = values.reshape(*lead, h * w, channels)
    rows = rows - rows.mean(-2, keepdims=True)
    # The scale, so that squares of small gradients do not vanish.
    size = jnp.abs(rows).max((-2, -1), keepdims=True)
    unit = rows / jnp.where(size > 0, size, 1)
    if h * w <= channels:
        first = _largest(jnp.einsum("...pc,...qc->...pq", unit, unit))
        direction = jnp.einsum("...pc,...p->...c", unit, first)
        length = jnp.sqrt(jnp.square(direction).sum(-1, keepdims=True))
        direction = direction / jnp.where(length > 0, length, 1)
    else:
        direction = _largest(jnp.einsum("...pc,...pd->...cd", unit, unit))
    found = jnp.einsum("...pc,...c->...p", rows, direction)
    agreement = (found * rows.sum(-1)).sum(-1, keepdims=True)
    return jnp.where(agreement < 0, -found, found).reshape(*lead, h, w)


def _largest(matrices: Array) -> Array:
    """Return the eigenvector of the largest eigenvalue of symmetric matrices (..., n, n): (..., n).

    On CPU one matrix after the other. XLA's decomposition of a batch of them there waits for threads of the pool that it runs
    in; with as many devices as cores, which all decompose at once, none is left, and it waits for ever (jaxlib 0.10.2).
    """
    flat = matrices.reshape(-1, *matrices.shape[-2:])

    def one(matrix: Array) -> Array:
        return jnp.linalg.eigh(matrix)[1][:, -1]

    def in_turn(flat: Array) -> Array:
        return jax.lax.map(one, flat)

    found = jax.lax.platform_dependent(flat, cpu=in_turn, default=jax.vmap(one))
    return found.reshape(matrices.shape[:-1])
