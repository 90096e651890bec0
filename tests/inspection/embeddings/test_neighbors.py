"""The table of queries and neighbors: whose pictures stand where, and which are framed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jaxviz import ArgumentError
from jaxviz.inspection import Embeddings, neighbors
from jaxviz.inspection._embeddings.neighbors import OTHER

COLOURS = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0]], np.uint8)
IMAGES = np.broadcast_to(COLOURS[:, None, None], (4, 16, 20, 3))
KNOWN = Embeddings(np.array([[0.0, 0], [1, 0], [5, 0], [9, 0]], np.float32), tuple("0123"), ("a", "a", "b", "b"))


def test_a_query_then_its_neighbors_those_of_another_class_framed() -> None:
    found = neighbors(KNOWN, [1], 2, metric="l2")
    assert found.indices.tolist() == [[0, 2]]
    picture = found.picture(KNOWN, images=IMAGES, tile=96)
    middles = {i: (np.abs(picture.astype(int) - COLOURS[i]) < 4).all(-1) for i in range(4)}
    left = [np.argwhere(middles[i])[:, 1].min() for i in (1, 0, 2)]
    assert left == sorted(left) and not middles[3].any()
    assert middles[1].sum() == middles[0].sum() == 96 * 96
    assert middles[2].sum() == 88 * 88 and (picture == OTHER).all(-1).sum() == 96 * 96 - 88 * 88


def test_a_query_from_elsewhere_is_of_no_class() -> None:
    asked = Embeddings(np.array([[4.0, 0]], np.float32), ("/elsewhere/x.png",), ("elsewhere",))
    found = neighbors(KNOWN, asked, 3, metric="l2")
    shown = found.picture(KNOWN, asked, images=IMAGES, query_images=IMAGES[:1], tile=96)
    assert not (shown == OTHER).all(-1).any()
    same = found.picture(KNOWN, dataclasses.replace(asked, labels=("b",)), images=IMAGES, query_images=IMAGES[:1], tile=96)
    assert (same == OTHER).all(-1).any()


def test_what_does_not_fit_is_told() -> None:
    asked = Embeddings(np.zeros((1, 2), np.float32), ("x",), ("",))
    found = neighbors(KNOWN, asked, 1)
    with pytest.raises(ArgumentError, match="queries' Embeddings"):
        found.picture(KNOWN, images=IMAGES)
    with pytest.raises(ArgumentError, match="1 queries"):
        found.picture(KNOWN, KNOWN, images=IMAGES, query_images=IMAGES)
    with pytest.raises(ArgumentError, match="4 images"):
        neighbors(KNOWN, [0], 1).picture(KNOWN, images=IMAGES[:3])
