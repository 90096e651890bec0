"""Stores for the vectors of a run: memory, or a folder in which an interrupted or killed run continues.

run.json             settings of the run; other settings are refused
parts/NUMBER.npz     vectors of some images at all layers, and the images' names; removed at the end
LAYER.npz            vectors of all images at one layer, with files, labels and settings
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from jaxviz._atomic import DamagedFile, map_array, reading, remove_matching
from jaxviz._errors import SaveError
from jaxviz._file_names import FileNames
from jaxviz._image_files import Skipped
from jaxviz._result_files import PARTS, failures
from jaxviz._run_folder import RunFolder, RunKind
from jaxviz._types import StrPath
from jaxviz.inspection._embeddings.embeddings import Embeddings, load_embeddings, read_embeddings, write_embeddings

FORMAT = 1
SECONDS, BYTES = 10.0, 16e6  # work and vectors in a part at most: what a kill may lose
BLOCK = 16e6  # bytes of vectors copied at a time
PART_FILES = r"\d+\.npz"

Vectors = Mapping[str, np.ndarray]


class _Batch(NamedTuple):
    """Vectors of some images by layer, with names and stamps of the images."""

    keys: Sequence[str]
    stamps: Sequence[Any]
    vectors: Vectors


class _Place(NamedTuple):
    """Source and row of an image's vectors, and the stamp that shows whether the image has changed."""

    stamp: Any
    source: int
    row: int


class Memory:
    """Vectors in memory."""

    def __init__(self, layers: Sequence[str]) -> None:
        self._keys: list[str] = []
        self._vectors: dict[str, list[np.ndarray]] = {name: [] for name in layers}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __len__(self) -> int:
        return len(self._keys)

    def has(self, key: str, stamp: Any) -> bool:
        """Return False: memory starts empty."""
        return False

    def require_writable(self) -> None:
        """Do nothing: memory can always be written."""

    def add(self, keys: Sequence[str], stamps: Sequence[Any], vectors: Vectors) -> None:
        """Add the vectors of some images."""
        self._keys += keys
        for name, arrays in self._vectors.items():
            arrays.append(np.asarray(vectors[name], np.float32))

    def finish(
        self, keys: Sequence[str], labels: Sequence[str], settings: Mapping[str, Any], skipped: Sequence[Skipped]
    ) -> dict[str, Embeddings]:
        """Return all vectors by layer."""
        label = dict(zip(keys, labels, strict=True))
        names = tuple(self._keys), tuple(label[key] for key in self._keys)
        return {
            layer: Embeddings(np.concatenate(arrays), *names, {**settings, "layer": layer}, tuple(skipped))
            for layer, arrays in self._vectors.items()
        }


class Parts:
    """Vectors in a folder, which `with` opens. Added vectors are written in parts, every few seconds.

    Args:
        folder: created if it does not exist.
        command: name of the command, such as `"embed"`.
        settings: everything that determines the vectors, except for the images.
        layers: names of the layers.
        overwrite: replace another run in the folder.
    """

    def __init__(
        self, folder: StrPath, command: str, settings: Mapping[str, Any], layers: Sequence[str], *, overwrite: bool = False
    ) -> None:
        names = FileNames()
        files = {layer: f"{names(layer, 'layer')}.npz" for layer in layers}
        kind = RunKind(command, FORMAT, {PARTS: PART_FILES})
        self._run = RunFolder(folder, kind, settings, list(files.values()), overwrite=overwrite)
        self._files = {layer: self._run.path / name for layer, name in files.items()}
        self._sources: list[Mapping[str, np.ndarray]] = []  # vectors by layer, one entry per file; a finished run comes first
        self._known: dict[str, _Place] = {}
        self._final: dict[str, Any] | None = None  # files, labels and skipped files of a finished run
        self._next = 0
        self._waiting: list[_Batch] = []
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        """Open the folder and read its contents.

        Raises:
            SaveError: the folder cannot be written, is in use, or holds something else.
        """
        self._run.open()
        try:
            self._final = self._read_final()
            for path in sorted((self._run.path / PARTS).glob("*.npz")):
                self._read_part(path)
        except BaseException:
            self._run.close()
            raise
        self._since = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None or not issubclass(kind, SaveError):  # a SaveError means that the disk failed
                self._flush()  # keep what was finished before Ctrl-C or an error
        finally:
            self._run.close()

    def __len__(self) -> int:
        return len(self._known) + sum(len(batch.keys) for batch in self._waiting)

    def has(self, key: str, stamp: Any) -> bool:
        """Return whether the vectors of an image with this name, size and time are stored."""
        return stamp is not None and key in self._known and self._known[key].stamp == stamp

    def require_writable(self) -> None:
        """Raise a `SaveError` if the folder cannot be written."""
        self._run.require_writable()

    def add(self, keys: Sequence[str], stamps: Sequence[Any], vectors: Vectors) -> None:
        """Add the vectors of some images.

        Raises:
            SaveError: the disk is full, or the folder cannot be written.
        """
        self._waiting.append(_Batch(keys, stamps, vectors))
        size = sum(array.nbytes for batch in self._waiting for array in batch.vectors.values())
        if size >= BYTES or time.monotonic() - self._since >= SECONDS:
            self._flush()

    def finish(
        self, keys: Sequence[str], labels: Sequence[str], settings: Mapping[str, Any], skipped: Sequence[Skipped]
    ) -> dict[str, Embeddings]:
        """Write the vectors of all images in the order of `keys`, and remove the parts."""
        self._flush()
        missing = {str(file.path) for file in skipped}
        rows = [i for i, key in enumerate(keys) if key in self._known and key not in missing]
        names = {"files": [keys[i] for i in rows], "labels": [labels[i] for i in rows]}
        about = {**names, "skipped": [[str(file.path), file.reason] for file in skipped]}
        places = [self._known[key] for key in names["files"]]
        is_same = self._final is not None and all(self._final[name] == value for name, value in about.items())
        if not is_same or any(place.source for place in places):
            for layer in self._files:
                width = self._sources[places[0].source][layer].shape[1]
                like = np.broadcast_to(np.float32(0), (len(places), width))
                described = {**settings, "layer": layer}
                files, classes = map(tuple, names.values())
                self._write_layer(Embeddings(like, files, classes, described, tuple(skipped)), layer, places)
        if self._run.is_writable:
            with failures(self._run.path):
                remove_matching(self._run.path / PARTS, PART_FILES)
        return {layer: load_embeddings(path) for layer, path in self._files.items()}

    def _write_layer(self, about: Embeddings, layer: str, places: Sequence[_Place]) -> None:
        blocks = self._gather(layer, places, max(1, int(BLOCK // (4 * about.vectors.shape[1]))))
        stamps = {"stamps": [place.stamp for place in places]}
        self._run.write(self._files[layer].name, lambda file: write_embeddings(file, about, blocks, stamps))

    def _gather(self, layer: str, places: Sequence[_Place], size: int) -> Iterator[np.ndarray]:
        """Yield the vectors at the places, at most `size` at a time."""
        for first in range(0, len(places), size):
            some = places[first : first + size]
            sources, rows = np.array([place.source for place in some]), np.array([place.row for place in some])
            block = np.empty((len(some), self._sources[sources[0]][layer].shape[1]), np.float32)
            for source in np.unique(sources):
                block[sources == source] = self._sources[source][layer][rows[sources == source]]
            yield block

    def _flush(self) -> None:
        """Write the waiting vectors as one part."""
        if not self._waiting:
            return
        keys = [key for batch in self._waiting for key in batch.keys]
        stamps = [stamp for batch in self._waiting for stamp in batch.stamps]
        about = np.array(json.dumps({"keys": keys, "stamps": stamps}))
        arrays = {f"v{i}": np.concatenate([batch.vectors[n] for batch in self._waiting]) for i, n in enumerate(self._files)}
        name = f"{PARTS}/{self._next:08d}.npz"
        path = self._run.write(name, lambda file: np.savez(file, allow_pickle=False, about=about, **arrays))
        self._waiting = []
        self._since = time.monotonic()
        self._read_part(path)

    def _read_part(self, path: Path) -> None:
        """Register a part; remove a damaged one, so that its images are computed again."""
        try:
            with reading(path):
                number = int(path.stem)
                with np.load(path, allow_pickle=False) as arrays:
                    about = json.loads(str(arrays["about"]))
                vectors = {layer: map_array(path, f"v{i}") for i, layer in enumerate(self._files)}
                if {len(about["stamps"]), *map(len, vectors.values())} != {len(about["keys"])}:
                    raise ValueError("other numbers of vectors than images")
        except (DamagedFile, FileNotFoundError):
            if self._run.is_writable:
                path.unlink(missing_ok=True)
            return
        self._next = max(self._next, number + 1)
        self._learn(about["keys"], about["stamps"], vectors)

    def _read_final(self) -> dict[str, Any] | None:
        """Register the vectors of a finished run, if any, as the first source."""
        try:
            read = {layer: read_embeddings(path) for layer, path in self._files.items()}
            abouts = [about for _, about in read.values()]
            if any((about["files"], about["stamps"]) != (abouts[0]["files"], abouts[0]["stamps"]) for about in abouts):
                raise SaveError("Killed between two layers.")
        except (SaveError, KeyError):
            self._sources.append({})
            return None
        vectors = {layer: embeddings.vectors for layer, (embeddings, _) in read.items()}
        self._learn(abouts[0]["files"], abouts[0]["stamps"], vectors)
        return abouts[0]

    def _learn(self, keys: Sequence[str], stamps: Sequence[Any], vectors: Vectors) -> None:
        source = len(self._sources)
        self._known |= {key: _Place(stamp, source, i) for i, (key, stamp) in enumerate(zip(keys, stamps, strict=True))}
        self._sources.append(vectors)
