"""Embeddings: one vector per image, and their file."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from jaxviz._atomic import map_array, reading, write_atomically
from jaxviz._errors import ArgumentError, SaveError
from jaxviz._image_files import Skipped
from jaxviz._result_files import failures, jsonable
from jaxviz._types import ArrayLike, StrPath

FORMAT, KIND = 1, "embeddings"


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """Vectors of N images, in the order of their files.

    Attributes:
        vectors: float32 (N, D); a memory map where they were read from disk.
        files: N file names, or row numbers for an array.
        labels: N class names, "" if unknown; names of the files' folders by default.
        settings: model, layer, pooling, size, ...
        skipped: files that could not be read, with the reason.
    """

    vectors: np.ndarray
    files: tuple[str, ...]
    labels: tuple[str, ...]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()

    def __post_init__(self) -> None:
        shape = np.shape(self.vectors)
        if len(shape) != 2 or {len(self.files), len(self.labels)} != {shape[0]}:
            counts = f"{len(self.files)} files and {len(self.labels)} labels"
            raise ArgumentError(f"Expected vectors (N, D) with N files and N labels; got {shape}, {counts}.")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: slice | Sequence[int] | np.ndarray) -> Embeddings:
        """Return a selection by a slice, a list of rows, or a boolean mask (N,)."""
        rows = np.arange(len(self))[key if isinstance(key, slice) else np.asarray(key)]
        if rows.ndim != 1:
            raise ArgumentError(f"Expected a slice, a list of rows or a mask of {len(self)}; got {key!r}.")
        files, labels = (tuple(names[i] for i in rows) for names in (self.files, self.labels))
        return dataclasses.replace(self, vectors=self.vectors[rows], files=files, labels=labels)

    def __repr__(self) -> str:
        kinds = len(set(self.labels))
        where = f", {self.settings['layer']}" if "layer" in self.settings else ""
        return f"Embeddings({len(self)} images x {self.vectors.shape[1]} numbers{where}, {kinds} labels)"

    def save(self, path: StrPath) -> Path:
        """Write an `.npz` file with the vectors, and the rest as JSON without pickle; return its path.

        Raises:
            SaveError: the file cannot be written.
        """
        path = Path(path)
        with failures(path.parent):
            return write_atomically(path, lambda file: write_embeddings(file, self, [self.vectors]), durable=True)


def load_embeddings(path: StrPath) -> Embeddings:
    """Read what `Embeddings.save` or `embed(..., out=)` wrote; the vectors stay on disk, as a memory map.

    Raises:
        SaveError: no such file, or one that is damaged or something else.
    """
    return read_embeddings(Path(path))[0]


def write_embeddings(
    file: IO[bytes], about: Embeddings, blocks: Iterable[np.ndarray], more: Mapping[str, Any] | None = None
) -> None:
    """Write vectors in blocks of rows, and the rest of `about`; `more` is added to the JSON."""
    words = {
        "format": FORMAT,
        "kind": KIND,
        "files": about.files,
        "labels": about.labels,
        "settings": jsonable(about.settings),
        "skipped": [[str(file.path), file.reason] for file in about.skipped],
        **(more or {}),
    }
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("vectors.npy", "w", force_zip64=True) as member:
            shape = tuple(map(int, about.vectors.shape))
            np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": shape})  # type: ignore[arg-type]
            for block in blocks:
                member.write(np.ascontiguousarray(block, "<f4").data.cast("B") if block.size else b"")
        with archive.open("about.npy", "w") as member:
            np.lib.format.write_array(member, np.array(json.dumps(words)), allow_pickle=False)  # type: ignore[arg-type]


def read_embeddings(path: Path) -> tuple[Embeddings, dict[str, Any]]:
    """Return the embeddings in a file, and its JSON."""
    if not path.is_file():
        raise SaveError(f"There are no embeddings in '{path}': expected an .npz file of Embeddings.save or embed(..., out=).")
    with reading(path, "embeddings"):
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
        if about["kind"] != KIND or about["format"] > FORMAT:
            raise ValueError(f"it holds {about['kind']!r}, format {about['format']}")
        skipped = tuple(Skipped(Path(file), reason) for file, reason in about["skipped"])
        vectors = map_array(path, "vectors")
        return Embeddings(vectors, tuple(about["files"]), tuple(about["labels"]), about["settings"], skipped), about


def as_vectors(embeddings: Embeddings | ArrayLike) -> np.ndarray:
    """Return vectors (N, D), float32 or as they are on disk.

    Raises:
        ArgumentError: not a matrix of numbers.
    """
    if isinstance(embeddings, Embeddings):
        return embeddings.vectors
    array = np.asarray(embeddings)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu":
        raise ArgumentError(f"Expected Embeddings, or vectors (N, D) of numbers; got {array.dtype} {array.shape}.")
    return array if array.dtype == np.float32 else array.astype(np.float32)
