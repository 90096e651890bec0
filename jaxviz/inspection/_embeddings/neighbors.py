"""Nearest neighbors of queries, and the table of pictures that shows them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from jaxviz import plot
from jaxviz._errors import ArgumentError
from jaxviz._types import ArrayLike
from jaxviz.inspection._embeddings.embeddings import Embeddings
from jaxviz.inspection._embeddings.thumbnails import pictures

Metric: TypeAlias = Literal["cosine", "l2", "l1"]

OTHER = (214, 52, 48)  # the frame around a neighbor of another class


@dataclasses.dataclass(frozen=True)
class Neighbors:
    """The k nearest neighbors of Q queries, nearest first.

    Attributes:
        indices: int32 (Q, k), rows of the searched vectors.
        distances: float32 (Q, k), ascending; ties are ordered by row.
        rows: int32 (Q,), the row of each query in the searched vectors, or -1 if it is not one of them.
        metric: "cosine" (1 - cosine similarity), "l2" or "l1".
    """

    indices: np.ndarray
    distances: np.ndarray
    rows: np.ndarray
    metric: Metric = "cosine"

    def __len__(self) -> int:
        return len(self.indices)

    def picture(
        self,
        embeddings: Embeddings,
        queries: Embeddings | None = None,
        *,
        images: ArrayLike | None = None,
        query_images: ArrayLike | None = None,
        title: str | None = None,
        tile: int = 112,
        dark: bool = False,
    ) -> np.ndarray:
        """Draw one row per query: its image, then its neighbors with their distances and classes.

        A red frame marks neighbors of another class than the query.

        Args:
            embeddings: the embeddings that were searched; their files are read again.
            queries: the embeddings of the queries, if they are not rows of `embeddings`.
            images, query_images: the images (N, H, W, C) and (Q, H, W, C), if they are not files.
            title: a line above the table.
            tile: height and width of an image in pixels.
            dark: white on black.

        Returns:
            uint8 (height, width, 3).

        Raises:
            ArgumentError: `queries` has another length, or is missing.
        """
        if queries is None:
            if (self.rows < 0).any():
                raise ArgumentError("Expected the queries' Embeddings too: these queries are not rows of the embeddings.")
            queries = embeddings[self.rows]
            query_images = None if images is None else np.asarray(images)[self.rows]
        if len(queries) != len(self) or self.indices.max() >= len(embeddings):
            raise ArgumentError(
                f"Expected the {len(self)} queries, and the embeddings that were searched; "
                f"got {len(queries)} and {len(embeddings)}."
            )
        rows: list[list[np.ndarray]] = []
        captions: list[list[str]] = []
        neighbor_pictures = pictures(embeddings, [int(i) for i in self.indices.flat], tile, images)  # in drawing order
        frame, has_frames = max(2, tile // 24), False
        classes = set(embeddings.labels) - {""}
        for q, query_picture in enumerate(pictures(queries, range(len(queries)), tile, query_images)):
            label = queries.labels[q] if queries.labels[q] in classes else ""  # other folders need not be classes
            row, texts = [query_picture], [label or Path(queries.files[q]).name]
            for i, distance in zip(self.indices[q], self.distances[q], strict=True):
                picture = next(neighbor_pictures)
                if label and embeddings.labels[i] and label != embeddings.labels[i]:
                    picture, has_frames = _with_frame(picture, frame), True
                row.append(picture)
                number = f"{distance:.3f}" if distance < 10 else f"{distance:.4g}"
                texts.append(f"{number} {embeddings.labels[i]}".rstrip())
            rows.append(row)
            captions.append(texts)
        k = self.indices.shape[1]
        note = "; red frames: another class" if has_frames else ""
        return plot.table(
            rows,
            columns=["query", *(str(i + 1) for i in range(k))],
            groups=[("", 1), (f"nearest neighbors by {self.metric} distance{note}", k)],
            captions=captions,
            title=title,
            tile=tile,
            dark=dark,
        )


def _with_frame(picture: np.ndarray, width: int) -> np.ndarray:
    framed = np.empty_like(picture)
    framed[:] = OTHER
    framed[width:-width, width:-width] = picture[width:-width, width:-width]
    return framed
