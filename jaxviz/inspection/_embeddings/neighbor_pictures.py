"""Queries and their neighbors as a table of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxviz import plot
from jaxviz._errors import ArgumentError
from jaxviz._types import ArrayLike
from jaxviz.inspection._embeddings.embeddings import Embeddings
from jaxviz.inspection._embeddings.thumbnails import pictures

if TYPE_CHECKING:
    from jaxviz.inspection._embeddings.neighbors import Neighbors

OTHER = (214, 52, 48)  # the frame of a neighbor of another class


def draw(
    found: Neighbors,
    embeddings: Embeddings,
    queries: Embeddings | None,
    images: ArrayLike | None,
    query_images: ArrayLike | None,
    title: str | None,
    tile: int,
    dark: bool,
) -> np.ndarray:
    """See `Neighbors.picture`."""
    if queries is None:
        if (found.rows < 0).any():
            raise ArgumentError("Expected the queries' Embeddings too: these neighbors are of vectors from elsewhere.")
        queries, query_images = embeddings[found.rows], None if images is None else np.asarray(images)[found.rows]
    if len(queries) != len(found) or found.indices.max() >= len(embeddings):
        raise ArgumentError(
            f"Expected the {len(found)} queries, and the embeddings that were searched; "
            f"got {len(queries)} and {len(embeddings)}."
        )
    rows, captions = [], []
    asked = pictures(queries, range(len(queries)), tile, query_images)
    near = pictures(embeddings, [int(i) for i in found.indices.flat], tile, images)  # in the order in which they are drawn
    frame, framed = max(2, tile // 24), False
    classes = set(embeddings.labels) - {""}
    for q, picture in enumerate(asked):
        label = queries.labels[q] if queries.labels[q] in classes else ""  # a photo from elsewhere is of no class
        row, texts = [picture], [label or Path(queries.files[q]).name]
        for i, distance in zip(found.indices[q], found.distances[q], strict=True):
            shown = next(near)
            if label and embeddings.labels[i] and label != embeddings.labels[i]:
                shown, framed = _framed(shown, frame), True
            row.append(shown)
            number = f"{distance:.3f}" if distance < 10 else f"{distance:.4g}"
            texts.append(f"{number} {embeddings.labels[i]}".rstrip())
        rows.append(row)
        captions.append(texts)
    k = found.indices.shape[1]
    note = "; red frames: another class" if framed else ""
    return plot.table(
        rows,
        columns=["query", *(str(i + 1) for i in range(k))],
        groups=[("", 1), (f"nearest neighbors by {found.metric} distance{note}", k)],
        captions=captions,
        title=title,
        tile=tile,
        dark=dark,
    )


def _framed(picture: np.ndarray, width: int) -> np.ndarray:
    made = np.empty_like(picture)
    made[:] = OTHER
    made[width:-width, width:-width] = picture[width:-width, width:-width]
    return made
