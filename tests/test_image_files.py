"""Image files of folders: which are found, in what order they come, what is told of the others."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxviz import _image_files as _folder
from jaxviz import image
from jaxviz._image_files import find_files, read_batches
from tests.tiny import random_images


def photos(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"p{i:03}.png" for i in range(count)]
    for i, path in enumerate(paths):
        Image.fromarray((random_images(10, 12, 3, seed=i) * 255).astype(np.uint8)).save(path)
    return paths


def test_files_are_found_in_order_and_once(tmp_path: Path) -> None:
    a, b = photos(tmp_path / "b", 2), photos(tmp_path / "a" / "deep", 2)
    (tmp_path / "a" / ".hidden.png").write_bytes(b"")
    (tmp_path / "a" / ".cache").mkdir()
    (tmp_path / "a" / ".cache" / "x.png").write_bytes(b"")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sheet.png").write_bytes(b"")
    (tmp_path / "a" / "again.png").symlink_to(a[0])
    files, skipped = find_files(tmp_path, tmp_path / "out")
    assert files == [tmp_path / "a" / "again.png", *b, a[1]] and skipped == []
    assert find_files([a[1], str(tmp_path / "b"), a[1]])[0] == [a[1], a[0]]
    assert find_files(tmp_path / "nowhere.png")[0] == [tmp_path / "nowhere.png"], "to be told as missing"
    assert find_files([])[0] == []


@pytest.mark.parametrize("threads", [1, 8])
@pytest.mark.parametrize("batch", [1, 4, 50])
def test_batches_keep_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, batch: int) -> None:
    monkeypatch.setattr(_folder, "THREADS", threads)
    monkeypatch.setattr(_folder, "_cores", lambda: threads)
    load = image.load
    monkeypatch.setattr(image, "load", lambda path, size: time.sleep(0.001 * (hash(path) % 5)) or load(path, size))
    paths = photos(tmp_path, 21)
    bad = [paths[0], paths[7], paths[8], paths[20]]
    for path in bad:
        path.write_text("no image")
    good = [path for path in paths if path not in bad]
    parts = list(read_batches(paths, batch, (8, 9)))
    assert [path for part in parts for path in part.paths] == good
    assert [one.path for part in parts for one in part.skipped] == bad
    assert all(len(part.paths) == len(part.images) == batch for part in parts[:-1]) and parts[0].images.shape[1:] == (8, 9, 3)
    np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), [image.load(path, (8, 9)) for path in good])
    assert all("cannot identify" in one.reason and str(one.path) not in one.reason for part in parts for one in part.skipped)


def test_gray_networks_get_one_channel(tmp_path: Path) -> None:
    paths = photos(tmp_path, 1)
    (part,) = read_batches(paths, 4, (8, 8), channels=1)
    np.testing.assert_allclose(part.images[0], image.load(paths[0], 8).mean(-1, keepdims=True))


def test_no_more_than_a_batch_is_decoded_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []
    monkeypatch.setattr(image, "load", lambda path, size, _load=image.load: seen.append(path) or _load(path, size))
    parts = read_batches(photos(tmp_path, 40), 4, (8, 8))
    next(parts)
    time.sleep(0.3)
    assert len(seen) <= 8
    parts.close()
    before = len(seen)
    time.sleep(0.1)
    assert len(seen) == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("jaxviz-decode") and thread.is_alive()]
