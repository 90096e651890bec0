"""Non-negative matrix factorisation of activations: what parts they are made of."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._types import Array, ArrayLike


@dataclasses.dataclass(frozen=True, eq=False)
class Factors:
    """`values` (n, C) as `weights @ vectors`, all at least 0; first the factor that makes up most of their sum.

    Attributes:
        weights: float32 (n, k), how much of each factor is in each row.
        vectors: float32 (k, C), the factors, each of length 1 (or 0 where fewer would have done).
        loss: half the sum of the squared differences, ||values - weights @ vectors||^2 / 2.
        explained: 1 - ||values - weights @ vectors||^2 / ||values||^2; 1 where all values are 0.
        steps: of the iteration that were needed.
    """

    weights: np.ndarray
    vectors: np.ndarray
    loss: float
    explained: float
    steps: int


def nmf(values: ArrayLike, factors: int, *, steps: int = 500, tolerance: float = 1e-4, seed: int = 0) -> Factors:
    """Factorise non-negative values, minimising ||values - W H||^2 / 2 with W, H >= 0.

    Hierarchical alternating least squares (Cichocki and Phan, 2009) from the singular vectors (NNDSVD: Boutsidis and
    Gallopoulos, 2008), their zeros filled with small random numbers, as scikit-learn's `NMF(init="nndsvdar")` does. Stops when
    the projected gradient has fallen to `tolerance` of what it was at the first step.

    Args:
        values: (n, C), finite and at least 0, such as the positions of a layer after its ReLU.
        factors: k, from 1 to min(n, C).
        steps: at most; each updates all of H, then all of W.
        tolerance: at least 0.
        seed: of the random numbers.

    Raises:
        ArgumentError: values that are negative or not finite, or numbers out of range.

    >>> nmf(np.eye(4), 2).weights.shape
    (4, 2)
    """
    given = np.asarray(values, np.float32)
    if given.ndim != 2 or not given.size or not np.isfinite(given).all() or given.min() < 0:
        low = f" with values from {given.min():.4g}" if given.size else ""
        raise ArgumentError(
            f"Expected finite values (n, C) of at least 0, as after a ReLU; got shape {given.shape}{low}. "
            "Of a layer with negative values, clip them first, or take the ReLU after it."
        )
    if not 1 <= factors <= min(given.shape) or steps < 1 or not tolerance >= 0:
        raise ArgumentError(
            f"Expected 1 to {min(given.shape)} factors, steps >= 1 and tolerance >= 0; got {factors}, {steps} and {tolerance}."
        )
    scale = float(given.max()) or 1.0  # so that float32 is at its best
    w, h = _start(given.astype(np.float64) / scale, factors, seed)
    arrays = (jnp.asarray(a, jnp.float32) for a in (given / scale, w, h))
    w, h, taken = (np.asarray(a) for a in _iterate(*arrays, np.int32(steps), np.float32(tolerance)))
    w, h = w.astype(np.float64), h.astype(np.float64)
    length = np.linalg.norm(h, axis=1)
    h /= np.where(length > 0, length, 1)[:, None]
    w *= length * scale
    order = np.argsort(-w.sum(0) * h.sum(1), kind="stable")
    w, h = w[:, order], h[order]
    lost, total = float(((given - w @ h) ** 2).sum()), float((given.astype(np.float64) ** 2).sum())
    explained = 1 - lost / total if total else 1.0
    return Factors(w.astype(np.float32), h.astype(np.float32), lost / 2, explained, int(taken))


def _start(values: np.ndarray, factors: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return W and H of NNDSVD: of each pair of singular vectors the positive or the negative parts, whichever are larger."""
    n, c = values.shape
    # The singular vectors of the smaller side from its Gram matrix: only the first few are needed, and roughly.
    gram = values.T @ values if c <= n else values @ values.T
    squares, vectors = np.linalg.eigh(gram)
    squares, vectors = np.maximum(squares[::-1][:factors], 0), vectors[:, ::-1][:, :factors]
    singular = np.sqrt(squares)
    other = (values if c <= n else values.T) @ vectors / np.where(singular > 1e-7 * (singular[0] or 1), singular, np.inf)
    left, right = (other, vectors) if c <= n else (vectors, other)
    w, h = np.zeros((n, factors)), np.zeros((factors, c))
    for j in range(factors):
        x, y = left[:, j], right[:, j]
        if j == 0:  # of one sign, but for rounding
            w[:, 0], h[0] = np.sqrt(singular[0]) * np.abs(x), np.sqrt(singular[0]) * np.abs(y)
            continue
        pairs = [(np.maximum(sign * x, 0), np.maximum(sign * y, 0)) for sign in (1, -1)]
        sizes = [(np.linalg.norm(a), np.linalg.norm(b)) for a, b in pairs]
        (a, b), (p, q) = max(zip(pairs, sizes, strict=True), key=lambda pair: pair[1][0] * pair[1][1])
        if p * q > 0:
            size = np.sqrt(singular[j] * p * q)
            w[:, j], h[j] = size * a / p, size * b / q
    random = np.random.default_rng(seed)
    small = values.mean() / 100
    w[w < 1e-6] = np.abs(small * random.standard_normal((w < 1e-6).sum()))
    h[h < 1e-6] = np.abs(small * random.standard_normal((h < 1e-6).sum()))
    return w, h


@jax.jit
def _iterate(values: Array, w: Array, h: Array, steps: Array, tolerance: Array) -> tuple[Array, Array, Array]:
    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        w, h, number, _, first = state
        h, along_h = _sweep(h, w.T @ values, w.T @ w)
        turned, along_w = _sweep(w.T, h @ values.T, h @ h.T)
        change = along_h + along_w
        return turned.T, h, number + 1, change, jnp.where(number == 0, change, first)

    def unfinished(state: tuple[Array, ...]) -> Array:
        _, _, number, change, first = state
        return (number < steps) & ((number == 0) | (change > tolerance * first))

    with jax.default_matmul_precision("highest"):
        w, h, number, _, _ = jax.lax.while_loop(unfinished, step, (w, h, jnp.int32(0), jnp.float32(0), jnp.float32(0)))
    return w, h, number


def _sweep(rows: Array, target: Array, gram: Array) -> tuple[Array, Array]:
    """Minimise over each row (of k) in turn, the others fixed; return the rows and the sum of |projected gradient|."""

    def one(k: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        rows, total = state
        gradient = gram[k] @ rows - target[k]
        held = jnp.where(rows[k] == 0, jnp.minimum(gradient, 0), gradient)  # at the bound only inward counts
        curve = gram[k, k]
        new = jnp.where(curve > 1e-12, jnp.maximum(rows[k] - gradient / jnp.maximum(curve, 1e-12), 0), rows[k])
        return rows.at[k].set(new), total + jnp.abs(held).sum()

    return jax.lax.fori_loop(0, rows.shape[0], one, (rows, jnp.float32(0)))
