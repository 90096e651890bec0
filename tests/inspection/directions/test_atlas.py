"""Activation atlases: what is sampled, which cell it falls into, what the cell's picture is of."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jaxviz as jv
from jaxviz._errors import ArgumentError, ImageError, SaveError, UnsupportedError
from jaxviz.inspection import activation_atlas, sample_activations
from jaxviz.inspection._directions.atlas import lay_out
from jaxviz.inspection._directions.grid import BORDER
from jaxviz.objectives._whitening import whiten_with_ridge
from tests.tiny import random_images, tiny_model

MODEL = tiny_model()
IMAGES = random_images(40, 16, 16, 3)
# One program for all: pixels without transforms compile fast.
QUICK = {"tile": 4, "param": jv.param.pixel, "transforms": (), "chunk": 2, "mesh": jv.make_mesh(1)}
AS_VISUALIZE = {name: value for name, value in QUICK.items() if name != "tile"}
ONE = {"mesh": jv.make_mesh(1), "chunk": 16}
ACTS = np.asarray(MODEL.activations(IMAGES, "conv1")["conv1"])


def photos(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(jv.image.to_uint8(random_images(16, 16, 3, seed=i))).save(folder / f"p{i:02d}.png")
    return [folder / f"p{i:02d}.png" for i in range(count)]


def test_each_sample_is_of_an_inner_position_of_its_image() -> None:
    found = sample_activations(MODEL, IMAGES, "conv1", **ONE)
    assert found.vectors.shape == (40, 8)
    np.testing.assert_allclose(found.logits, MODEL(IMAGES), atol=1e-5)
    places = []
    for vector, act in zip(found.vectors, ACTS, strict=True):
        away = np.abs(act - vector).max(-1)
        assert away.min() < 1e-5
        places.append(np.unravel_index(away.argmin(), away.shape))
    places = np.array(places)
    assert places.min() >= 1 and places.max() <= 6 and len({tuple(p) for p in places.tolist()}) > 15
    other = sample_activations(MODEL, IMAGES, "conv1", seed=1, **ONE)
    assert np.abs(other.vectors - found.vectors).max() > 0.01


def test_neither_the_batch_nor_other_files_move_a_position(tmp_path: Path) -> None:
    files = photos(tmp_path / "in", 7)
    (tmp_path / "in" / "broken.png").write_bytes(b"no image")
    whole = sample_activations(MODEL, tmp_path / "in", "conv1", chunk=3)
    assert [Path(one).name for one in whole.files] == [path.name for path in files]
    assert [one.path.name for one in whole.skipped] == ["broken.png"]
    alone = sample_activations(MODEL, [files[5]], "conv1", mesh=jv.make_mesh(1))
    np.testing.assert_allclose(alone.vectors[0], whole.vectors[5], atol=1e-5)


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(tmp_path / "in", 9)
    call = (MODEL, tmp_path / "in", "conv1")

    def stop(now: jv.Progress) -> None:
        if now.images_done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample_activations(*call, chunk=2, out=tmp_path / "out", progress=stop)
    seen: list[int] = []
    found = sample_activations(*call, chunk=2, out=tmp_path / "out", progress=lambda now: seen.append(now.images_done))
    assert seen[0] >= 4, "what was done is not done again"
    fresh = sample_activations(*call)
    np.testing.assert_allclose(found.vectors, fresh.vectors, atol=1e-5)
    np.testing.assert_allclose(found.logits, fresh.logits, atol=1e-5)
    with pytest.raises(SaveError, match="seed"):
        sample_activations(*call, out=tmp_path / "out", seed=1)


def test_cells_are_means_of_what_lies_in_them_and_are_drawn_by_their_vectors() -> None:
    samples = sample_activations(MODEL, IMAGES, "conv1", **ONE)
    where = np.random.default_rng(0).uniform(size=(40, 2)).astype(np.float32)
    found = activation_atlas(MODEL, samples, layout=where, cells=3, members=4, steps=2, seed=2, **QUICK)
    low, high = np.percentile(where.astype(float), [0.5, 99.5], axis=0)
    expected: dict[tuple[int, int], list[int]] = {}
    for i, (x, y) in enumerate((where - low) / (high - low)):
        if 0 <= x <= 1 and 0 <= y <= 1:
            expected.setdefault((min(2, int(y * 3)), min(2, int(x * 3))), []).append(i)
    kept = {cell: rows for cell, rows in expected.items() if len(rows) >= 4}
    assert 2 <= len(kept) < 9 and sorted(kept) == [tuple(cell) for cell in found.cells.tolist()]
    for m, cell in enumerate(sorted(kept)):
        rows = kept[cell]
        assert found.counts[m] == len(rows) and np.flatnonzero(found.members == m).tolist() == rows
        np.testing.assert_allclose(found.vectors[m], samples.vectors[rows].mean(0), atol=1e-6)
        np.testing.assert_allclose(found.logits[m], samples.logits[rows].mean(0), atol=1e-6)
        assert found.classes[m] == samples.logits[rows].mean(0).argmax()
    goal = jv.direction("conv1", whiten_with_ridge(found.vectors[:2], samples.vectors), cossim_power=2.0)
    alone = jv.visualize(MODEL, goal, size=4 + 2 * BORDER, steps=2, seed=2, **AS_VISUALIZE).images[
        :, 0, BORDER:-BORDER, BORDER:-BORDER
    ]
    np.testing.assert_allclose(found.pictures[:2], alone, atol=1e-3)
    tinted = {tuple(color) for color in found.picture(labels=True).reshape(-1, 3).tolist()}
    said = np.unique(found.classes)
    assert {tuple(color) for color in jv.plot.class_colors(said, 5).tolist()} <= tinted
    assert found.picture(dark=True, tile=16).shape[-1] == 3


def test_layouts() -> None:
    found = activation_atlas(MODEL, IMAGES, "conv1", layout="pca", cells=2, members=2, steps=1, whiten=False, **QUICK)
    centerd = found.samples.vectors - found.samples.vectors.mean(0)
    _, _, axes = np.linalg.svd(centerd.astype(np.float64), full_matrices=False)
    np.testing.assert_allclose(np.abs(found.coordinates), np.abs(centerd @ axes[:2].T), atol=1e-4)
    pytest.importorskip("sklearn")
    places = lay_out(found.samples.vectors[:8], "tsne", 0)
    assert places.shape == (8, 2) and np.isfinite(places).all() and np.ptp(places, axis=0).min() > 0


def test_the_whole_atlas_goes_on_in_its_folder(tmp_path: Path) -> None:
    photos(tmp_path / "in", 12)
    call = {"layout": "pca", "cells": 2, "members": 1, "steps": 2, "out": tmp_path / "out", **QUICK}
    first = activation_atlas(MODEL, tmp_path / "in", "conv1", **call)
    reports: list[jv.Progress] = []
    again = activation_atlas(MODEL, tmp_path / "in", "conv1", **call, progress=reports.append)
    assert not reports, "all of it was there"
    np.testing.assert_allclose(again.pictures, first.pictures, atol=1e-6)
    with pytest.raises(SaveError, match="steps"):
        activation_atlas(MODEL, tmp_path / "in", "conv1", **{**call, "steps": 3})


def test_wrong_use_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = sample_activations(MODEL, IMAGES[:6], "conv1")
    with pytest.raises(ArgumentError, match="No cell has 5"):
        activation_atlas(MODEL, samples, layout="pca")
    with pytest.raises(ArgumentError, match="layout"):
        activation_atlas(MODEL, samples, layout="umap")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"\(6, 2\)"):
        activation_atlas(MODEL, samples, layout=np.zeros((5, 2)))
    with pytest.raises(ArgumentError, match="conv1"):
        activation_atlas(MODEL, samples, "relu")
    with pytest.raises(ArgumentError, match="Expected a layer"):
        activation_atlas(MODEL, IMAGES)
    with pytest.raises(ArgumentError, match="no positions"):
        sample_activations(MODEL, IMAGES, "avgpool")
    with pytest.raises(ArgumentError, match="chunk"):
        sample_activations(MODEL, IMAGES, "conv1", chunk=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no files"):
        sample_activations(MODEL, tmp_path / "empty", "conv1")
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(UnsupportedError, match=r"jaxviz\[embed\]"):
        activation_atlas(MODEL, samples, members=1)
