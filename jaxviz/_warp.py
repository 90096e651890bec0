"""Moving one image on an endless canvas: by whole pixels, or by any similarity with bilinear interpolation."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxviz._types import Array


def shift(image: Array, offset: Array, size: tuple[int, int], fill: float) -> Array:
    """Return the (h, w, C) window whose pixel (r, c) is `image[r - offset[0], c - offset[1]]`, or `fill` outside.

    Args:
        image: (H, W, C).
        offset: int32 (2,), traced.
        size: (h, w) of the window.
        fill: value outside the image.
    """
    rows = jnp.arange(size[0]) - offset[0]
    columns = jnp.arange(size[1]) - offset[1]
    # Negative indices count from the end in JAX, so move them out at the other one.
    rows = jnp.where(rows < 0, image.shape[0], rows)
    columns = jnp.where(columns < 0, image.shape[1], columns)
    image = jnp.take(image, rows, axis=0, mode="fill", fill_value=fill)
    return jnp.take(image, columns, axis=1, mode="fill", fill_value=fill)


def positions(matrix: Array, offset: Array, size: tuple[int, int], source: tuple[int, int]) -> tuple[Array, Array]:
    """Return the source row and column, each float32 (h, w), that every pixel of the window shows."""
    det = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
    r = jnp.arange(size[0], dtype=jnp.float32)[:, None] - np.float32((size[0] - 1) / 2) - offset[0]
    c = jnp.arange(size[1], dtype=jnp.float32)[None, :] - np.float32((size[1] - 1) / 2) - offset[1]
    rows = (matrix[1, 1] * r - matrix[0, 1] * c) / det + np.float32((source[0] - 1) / 2)
    columns = (matrix[0, 0] * c - matrix[1, 0] * r) / det + np.float32((source[1] - 1) / 2)
    return rows, columns


def warp(image: Array, matrix: Array, offset: Array, size: tuple[int, int], fill: float) -> Array:
    """Return the (h, w, C) window on `image` after moving each point p, counted from the centre, to `matrix @ p + offset`.

    Bilinear; outside the image, and half a pixel into its border, `fill` takes part.

    Args:
        image: (H, W, C).
        matrix: float32 (2, 2) in (row, column), invertible, traced.
        offset: float32 (2,), traced.
        size: (h, w) of the window, with the same centre.
        fill: value outside the image.
    """
    h, w, channels = image.shape
    rows, columns = positions(matrix, offset, size, (h, w))
    top, left = jnp.floor(rows), jnp.floor(columns)
    down, right = rows - top, columns - left
    pixels = image.reshape(h * w, channels) - fill
    out = jnp.zeros((*size, channels), image.dtype)
    for i, wr in ((0, 1 - down), (1, down)):
        for j, wc in ((0, 1 - right), (1, right)):
            r, c = top + i, left + j
            inside = (r >= 0) & (r < h) & (c >= 0) & (c < w)
            index = (jnp.clip(r, 0, h - 1) * w + jnp.clip(c, 0, w - 1)).astype(jnp.int32)
            weight = jnp.where(inside, wr * wc, 0).astype(image.dtype)
            out = out + pixels[index] * weight[..., None]
    return out + fill
