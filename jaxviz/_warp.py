"""Moving one image on an infinite canvas: by whole pixels, or by any similarity with bilinear interpolation.

Both are linear in the image, with exact adjoints written by hand. The gradient that JAX derives scatters into the image, which
is several times slower than the motion on CPU, and adds in no fixed order on GPU; here the gradient gathers, as the motion
does. There is no gradient with respect to positions.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import jax
import jax.numpy as jnp

from jaxviz._types import Array

Size = tuple[int, int]


def shift(image: Array, offset: Array, size: Size, fill: float) -> Array:
    """Return the (h, w, C) window whose pixel (r, c) is `image[r - offset[0], c - offset[1]]`, or `fill` outside.

    Args:
        image: (H, W, C).
        offset: int32 (2,), traced.
        size: (h, w) of the window.
        fill: value outside the image.
    """
    return cast(Array, _shift(size, image.shape[:2], fill, image, offset))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _shift(size: Size, source: Size, fill: float, image: Array, offset: Array) -> Array:
    for axis in (0, 1):
        index = jnp.arange(size[axis]) - offset[axis]
        # Negative indices would count from the end.
        index = jnp.where(index < 0, source[axis], index)
        image = jnp.take(image, index, axis=axis, mode="fill", fill_value=fill)
    return image


_shift.defvjp(
    lambda size, source, fill, image, offset: (_shift(size, source, fill, image, offset), offset),
    lambda size, source, fill, offset, cotangent: (_shift(source, size, 0.0, cotangent, -offset), None),
)


def warp(image: Array, matrix: Array, offset: Array, size: Size, fill: float, reach: Array) -> Array:
    """Return the (h, w, C) window on `image` after moving each point p, counted from the center, to `matrix @ p + offset`.

    Interpolation is bilinear; outside the image is `fill`, into which its border blends over one pixel.

    Args:
        image: (H, W, C).
        matrix: float32 (2, 2) in (row, column), invertible, traced.
        offset: float32 (2,), traced.
        size: (h, w) of the window, with the same center.
        fill: value outside the image.
        reach: an upper bound of the sum of absolute values in each row of `matrix`, traced: how far, in pixels, one pixel of
            the image spreads in the window. The gradient's time grows with its square. Use one bound for all images of a batch:
            with a value per image, their maximum is computed, across devices too.
    """
    return cast(Array, _sample(size, image.shape[:2], image - fill, (matrix, offset, reach))) + fill


Motion = tuple[Array, Array, Array]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sample(size: Size, source: Size, image: Array, motion: Motion) -> Array:
    """Interpolate `image`, of `source` size and 0 around it, at the position of each pixel of the window."""
    matrix, offset, _ = motion
    rows, columns = _apply(_inverse(matrix), *_grid(size, offset))
    rows, columns = rows + (source[0] - 1) / 2, columns + (source[1] - 1) / 2
    top, left = jnp.floor(rows), jnp.floor(columns)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    # With a border of two zeros, each position far outside can be moved to where all its four neighbors are 0.
    width = source[1] + 4
    pixels = jnp.pad(image, ((2, 2), (2, 2), (0, 0))).reshape(-1, image.shape[-1])
    corner = _index(jnp.clip(top, -2, source[0]) + 2, jnp.clip(left, -2, source[1]) + 2, width)
    above = _take(pixels, corner) * (1 - right) + _take(pixels, corner + 1) * right
    below = _take(pixels, corner + width) * (1 - right) + _take(pixels, corner + width + 1) * right
    return (above * (1 - down) + below * down).astype(image.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _spread(size: Size, source: Size, window: Array, motion: Motion) -> Array:
    """The adjoint of `_sample`: each pixel of the source sums over the pixels of the window that interpolate it.

    These are the pixels o for which `inverse(matrix) @ (o - p)` is within 1 in row and column, p being the source pixel's
    position in the window; they lie within `reach` of p. A loop covers that square in blocks of 3 x 3, one block for a reach up
    to 1.5.
    """
    matrix, offset, reach = motion
    inverse = _inverse(matrix)
    rows, columns = _apply(matrix, *_grid(source, jnp.zeros(2)))
    rows, columns = rows + offset[0] + (size[0] - 1) / 2, columns + offset[1] + (size[1] - 1) / 2
    blocks = jnp.ceil(2 * reach / 3)
    first_row, first_column = jnp.floor(rows - 1.5 * blocks) + 1, jnp.floor(columns - 1.5 * blocks) + 1
    pixels = window.reshape(-1, window.shape[-1])

    def block(number: Array, total: Array) -> Array:
        top = first_row + 3 * jnp.floor(number / blocks)
        left = first_column + 3 * (number % blocks)
        for i in range(3):
            for j in range(3):
                r, c = top + i, left + j
                y, x = _apply(inverse, r - rows, c - columns)
                inside = (r >= 0) & (r < size[0]) & (c >= 0) & (c < size[1])
                weight = jnp.where(inside, jnp.maximum(1 - jnp.abs(y), 0) * jnp.maximum(1 - jnp.abs(x), 0), 0)
                index = _index(jnp.clip(r, 0, size[0] - 1), jnp.clip(c, 0, size[1] - 1), size[1])
                total = total + _take(pixels, index) * weight[..., None]
        return total

    total = jnp.zeros((*source, window.shape[-1]), jnp.float32)
    return jax.lax.fori_loop(0, (blocks * blocks).astype(jnp.int32), block, total).astype(window.dtype)


_sample.defvjp(
    lambda size, source, image, motion: (_sample(size, source, image, motion), motion),
    lambda size, source, motion, cotangent: (_spread(size, source, cotangent, motion), None),
)
_spread.defvjp(
    lambda size, source, window, motion: (_spread(size, source, window, motion), motion),
    lambda size, source, motion, cotangent: (_sample(size, source, cotangent, motion), None),
)


def _grid(size: Size, offset: Array) -> tuple[Array, Array]:
    """Return rows (h, 1) and columns (1, w), counted from the center, minus an offset."""
    rows = jnp.arange(size[0], dtype=jnp.float32) - (size[0] - 1) / 2 - offset[0]
    columns = jnp.arange(size[1], dtype=jnp.float32) - (size[1] - 1) / 2 - offset[1]
    return rows[:, None], columns[None, :]


def _apply(matrix: Array, rows: Array, columns: Array) -> tuple[Array, Array]:
    # Written out, not as a matrix product: that has reduced precision on some accelerators, and these are positions.
    return matrix[0, 0] * rows + matrix[0, 1] * columns, matrix[1, 0] * rows + matrix[1, 1] * columns


def _inverse(matrix: Array) -> Array:
    (a, b), (c, d) = matrix
    return jnp.stack([jnp.stack([d, -b]), jnp.stack([-c, a])]) / (a * d - b * c)


def _index(rows: Array, columns: Array, width: int) -> Array:
    return rows.astype(jnp.int32) * width + columns.astype(jnp.int32)


def _take(pixels: Array, index: Array) -> Array:
    return pixels.at[index].get(mode="promise_in_bounds")
