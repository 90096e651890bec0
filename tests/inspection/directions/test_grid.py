"""Activation grids and groups: each picture is that of its own vector, in its own place."""

from __future__ import annotations

import numpy as np
import pytest

import jaxviz as jv
from jaxviz import plot
from jaxviz._errors import ArgumentError
from jaxviz.inspection import ActivationGrid, ActivationGroups, activation_grid, activation_groups, nmf
from jaxviz.inspection._directions.grid import BORDER
from jaxviz.objectives._whitening import whiten_with_ridge
from tests.tiny import random_images, tiny_model

MODEL = tiny_model()
IMAGES = random_images(2, 16, 16, 3)
ACTS = np.asarray(MODEL.activations(IMAGES, "relu_1")["relu_1"])
# One program for all: pixels without transforms compile fast.
QUICK = {"steps": 3, "seed": 5, "param": jv.param.pixel, "transforms": (), "chunk": 2, "mesh": jv.make_mesh(1)}
TILE = 4


@pytest.mark.parametrize("whiten", [False, True])
def test_a_tile_is_the_picture_of_its_positions_vector(whiten: bool) -> None:
    samples = random_images(50, 12, seed=3)
    found = activation_grid(MODEL, IMAGES, "relu_1", tile=TILE, whiten=samples if whiten else None, **QUICK)
    np.testing.assert_allclose(found.activations, ACTS, atol=1e-6)
    np.testing.assert_allclose(found.strengths, np.sqrt((ACTS.astype(np.float64) ** 2).sum(-1)), atol=1e-5)
    assert found.tiles.shape == (2, 4, 4, TILE, TILE, 3)
    vector = ACTS[1, 2, 2:]  # two of a row: a chunk, as there
    goal = jv.direction("relu_1", whiten_with_ridge(vector, samples) if whiten else vector, cossim_power=2.0)
    alone = jv.visualize(MODEL, goal, size=TILE + 2 * BORDER, **QUICK).images[1, 0, BORDER:-BORDER, BORDER:-BORDER]
    np.testing.assert_allclose(found.tiles[1, 2, 3], alone, atol=1e-3)
    assert np.abs(found.tiles[1, 2, 3] - found.tiles[1, 0, 0]).max() > 0.01, "other vectors, other pictures"
    assert found.picture(1).shape[-1] == 3


def test_tiles_stand_at_their_positions_and_have_sizes_as_strengths() -> None:
    tiles = np.zeros((1, 2, 3, 4, 4, 3), np.float32)
    tiles += np.linspace(0.1, 0.9, 6, dtype=np.float32).reshape(1, 2, 3, 1, 1, 1)
    strengths = np.array([[[4, 2, 1], [3, 0, 4]]], np.float32)
    made = ActivationGrid("layer", np.zeros((1, 8, 12, 3), np.float32), np.zeros((1, 2, 3, 5)), tiles, strengths)
    np.testing.assert_array_equal(made.draw(), np.kron(jv.image.to_uint8(tiles[0, :, :, 0, 0]), np.ones((4, 4, 1))))
    page = made.draw(scaled=True, tile=8)
    covered = (page != 255).all(-1).reshape(2, 8, 3, 8).sum((1, 3))
    np.testing.assert_array_equal(covered, [[64, 16, 4], [36, 1, 64]])  # squares of 8, 4, 2, 6, 1 and 8 pixels
    assert made.picture(scaled=True, dark=True).shape[-1] == 3
    with pytest.raises(ArgumentError, match="tile"):
        made.draw(tile=0)


def test_groups_put_together_are_the_activations_and_each_is_drawn_by_its_vector() -> None:
    found = activation_groups(MODEL, IMAGES, "relu_1", groups=8, size=TILE, **QUICK)
    assert found.masks.shape == (2, 8, 4, 4) and found.pictures.shape == (8, TILE, TILE, 3)
    together = np.einsum("nkhw,kc->nhwc", found.masks.astype(np.float64), found.vectors)
    lost = ((ACTS - together) ** 2).sum() / (ACTS.astype(np.float64) ** 2).sum()
    np.testing.assert_allclose(found.factors.explained, 1 - lost, atol=1e-4)
    assert lost < 0.05
    amounts = np.einsum("nkhw,kc->k", found.masks.astype(np.float64), found.vectors)
    np.testing.assert_allclose(found.shares, amounts / amounts.sum(), atol=1e-6)
    assert (np.diff(found.shares) <= 1e-7).all() and len(found) == 8
    goal = jv.direction("relu_1", found.vectors[2:4], cossim_power=2.0)
    alone = jv.visualize(MODEL, goal, size=TILE + 2 * BORDER, **QUICK)
    np.testing.assert_allclose(found.pictures[2:4], alone.images[:, 0, BORDER:-BORDER, BORDER:-BORDER], atol=1e-3)
    assert found.picture(tile=32).shape[-1] == 3


def test_an_overlay_has_the_groups_color_where_it_is_strong_and_a_paler_photo_elsewhere() -> None:
    factors = nmf(ACTS.reshape(-1, 12), 2)
    pictures = random_images(2, 8, 8, 3)
    masks = np.zeros((2, 2, 2, 2), np.float32)
    masks[0, 1, 0, 0] = 3  # the second group, at the top left of the first image
    masks[1, 0] = 1
    made = ActivationGroups("layer", IMAGES, masks, factors.vectors, pictures, factors)
    whole, first, second = made.overlay(0, alpha=1.0).astype(int)
    assert np.abs(second[:3, :3] - made.colors[1].astype(int)).max() <= 1
    assert np.abs(whole[:3, :3] - made.colors[1].astype(int)).max() <= 1
    photo = jv.image.to_uint8(IMAGES[0]).astype(float)
    pale = 0.25 * photo + 0.75 * (photo @ [0.299, 0.587, 0.114])[..., None]
    assert np.abs(first - pale).max() <= 1 and np.abs(second[8:, 13:] - pale[8:, 13:]).max() <= 1
    assert (made.colors == plot.category_colors(2)).all()


def test_wrong_use_is_told() -> None:
    with pytest.raises(ArgumentError, match="no positions"):
        activation_grid(MODEL, IMAGES, "fc")
    with pytest.raises(ArgumentError, match="tile"):
        activation_grid(MODEL, IMAGES, "relu_1", tile=0)
    with pytest.raises(ArgumentError, match="factors"):
        activation_groups(MODEL, IMAGES, "relu_1", groups=13)
