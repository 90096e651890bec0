"""A small site of the tiny network, with photos in folders whose names would be code if they were not escaped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jaxviz
from tests.tiny import random_images, tiny_model

EVIL = "<img src=x onerror=alert(1)>"  # "/" cannot be in a file's name, so no closing tags
QUOTES = "a\"b'c & {{ 7 * 7 }}"
LAYERS = "conv1,relu_1:0-5,8,logit"
SETTINGS = {"size": 16, "steps": 3, "transforms": (), "samples": 2, "k": 3, "similar": 4}


def write_photos(folder: Path) -> Path:
    """Write twelve photos in three classes, and a file that is none."""
    for number, name in enumerate((EVIL, QUOTES, "church") * 4):
        path = folder / name / (f"{EVIL}{number}.png" if number < 6 else f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((random_images(20, 24, 3, seed=number) * 255).astype(np.uint8)).save(path)
    (folder / "church" / "notes.txt").write_text("no photo")
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session")
def site(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gallery") / "site"
    jaxviz.gallery.build(tiny_model(), LAYERS, examples=photos, out=out, **SETTINGS)
    return out
