"""Non-negative matrix factorization of activations into parts."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._types import Array, ArrayLike


@dataclasses.dataclass(frozen=True, eq=False)
class Factors:
    """A factorization of `values` (n, C) into `weights @ vectors`, all at least 0, factors with the largest sum first.

    Attributes:
        weights: float32 (n, k), amount of each factor in each row.
        vectors: float32 (k, C), the factors, of length 1 (or 0 for factors that are not needed).
        loss: half the sum of the squared differences, ||values - weights @ vectors||^2 / 2.
        explained: 1 - ||values - weights @ vectors||^2 / ||values||^2; 1 where all values are 0.
        steps: number of iterations.
    """

    weights: np.ndarray
    vectors: np.ndarray
    loss: float
    explained: float
    steps: int


def nmf(values: ArrayLike, factors: int, *, steps: int = 500, tolerance: float = 1e-4, seed: int = 0) -> Factors:
    """Factorize non-negative values: minimize ||values - W H||^2 / 2 with W, H >= 0.

    Hierarchical alternating least squares (Cichocki and Phan, 2009) from the singular vectors (NNDSVD: Boutsidis and
    Gallopoulos, 2008), their zeros filled with small random numbers, as scikit-learn's `NMF(init="nndsvdar")` does. Stops when
    the projected gradient has fallen to `tolerance` times its value at the first step.

    Args:
        values: (n, C), finite and at least 0, such as the positions of a layer after its ReLU.
        factors: k, from 1 to min(n, C).
        steps: iterations at most; each updates H, then W.
        tolerance: at least 0.
        seed: of the random initialization.

    Raises:
        ArgumentError: negative or non-finite values, or an argument out of range.

    >>> nmf(np.eye(4), 2).weights.shape
    (4, 2)
    """
    array = np.asarray(values, np.float32)
    if array.ndim != 2 or not array.size or not np.isfinite(array).all() or array.min() < 0:
        low = f" with values from {array.min():.4g}" if array.size else ""
        raise ArgumentError(
            f"Expected finite values (n, C) of at least 0, as after a ReLU; got shape {array.shape}{low}. "
            "Of a layer with negative values, clip them first, or take the ReLU after it."
        )
    if not 1 <= factors <= min(array.shape) or steps < 1 or not tolerance >= 0:
        raise ArgumentError(
            f"Expected 1 to {min(array.shape)} factors, steps >= 1 and tolerance >= 0; got {factors}, {steps} and {tolerance}."
        )
    scale = float(array.max()) or 1.0  # uses the range of float32 best
    w, h = _start(array.astype(np.float64) / scale, factors, seed)
    arrays = (jnp.asarray(a, jnp.float32) for a in (array / scale, w, h))
    w, h, taken = (np.asarray(a) for a in _iterate(*arrays, np.int32(steps), np.float32(tolerance)))
    w, h = w.astype(np.float64), h.astype(np.float64)
    length = np.linalg.norm(h, axis=1)
    h /= np.where(length > 0, length, 1)[:, None]
    w *= length * scale
    order = np.argsort(-w.sum(0) * h.sum(1), kind="stable")
    w, h = w[:, order], h[order]
    lost, total = float(((array - w @ h) ** 2).sum()), float((array.astype(np.float64) ** 2).sum())
    explained = 1 - lost / total if total else 1.0
    return Factors(w.astype(np.float32), h.astype(np.float32), lost / 2, explained, int(taken))


def _start(values: np.ndarray, factors: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return W and H of NNDSVD: the positive or the negative parts of each pair of singular vectors, whichever are larger."""
    n, c = values.shape
    # Singular vectors from the Gram matrix of the smaller side: only the first few are needed, at low precision.
    gram = values.T @ values if c <= n else values @ values.T
    squares, vectors = np.linalg.eigh(gram)
    squares, vectors = np.maximum(squares[::-1][:factors], 0), vectors[:, ::-1][:, :factors]
    singular = np.sqrt(squares)
    other = (values if c <= n else values.T) @ vectors / np.where(singular > 1e-7 * (singular[0] or 1), singular, np.inf)
    left, right = (other, vectors) if c <= n else (vectors, other)
    w, h = np.zeros((n, factors)), np.zeros((factors, c))
    for j in range(factors):
        x, y = left[:, j], right[:, j]
        if j == 0:  # of one sign, up to rounding
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
        held = jnp.where(rows[k] == 0, jnp.minimum(gradient, 0), gradient)  # at the bound, only the inward gradient counts
        curve = gram[k, k]
        new = jnp.where(curve > 1e-12, jnp.maximum(rows[k] - gradient / jnp.maximum(curve, 1e-12), 0), rows[k])
        return rows.at[k].set(new), total + jnp.abs(held).sum()

    return jax.lax.fori_loop(0, rows.shape[0], one, (rows, jnp.float32(0)))
