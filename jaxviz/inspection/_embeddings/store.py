"""Where the vectors of a run are kept: in memory, or in a folder in which a run that was killed goes on.

run.json             what was run; other settings are refused
parts/NUMBER.npz     the vectors of some images, all layers, and which images they are; gone when all is done
LAYER.npz            the vectors of all images of one layer, with files, labels and settings
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from jaxviz._atomic import map_array, names_in, write_atomically
from jaxviz._errors import SaveError
from jaxviz._image_files import Skipped
from jaxviz._result_files import ADVICE, PARTS, RUN, failures, jsonable, read_json, refuse_existing, versions
from jaxviz.engine import differences
from jaxviz.inspection._embeddings.embeddings import Embeddings, read_embeddings, write_embeddings

FORMAT, KIND = 1, "embed"
SECONDS, BYTES = 10.0, 16e6  # of work, and of vectors, that a part holds: what a kill may lose
BLOCK = 16e6  # bytes of vectors that are copied at a time
HINT = "What is finished is kept: the same call again continues."

Vectors = Mapping[str, np.ndarray]


class Memory:
    """Vectors in memory."""

    def __init__(self, layers: Sequence[str]) -> None:
        self._keys: list[str] = []
        self._found: dict[str, list[np.ndarray]] = {name: [] for name in layers}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __len__(self) -> int:
        return len(self._keys)

    def has(self, key: str, stamp: Any) -> bool:
        return False

    def add(self, keys: Sequence[str], stamps: Sequence[Any], vectors: Vectors) -> None:
        self._keys += keys
        for name, found in self._found.items():
            found.append(np.asarray(vectors[name], np.float32))

    def finish(
        self, keys: Sequence[str], labels: Sequence[str], settings: Mapping[str, Any], skipped: Sequence[Skipped]
    ) -> dict[str, Embeddings]:
        label = dict(zip(keys, labels, strict=True))
        names = tuple(self._keys), tuple(label[key] for key in self._keys)
        return {
            layer: Embeddings(np.concatenate(found), *names, {**settings, "layer": layer}, tuple(skipped))
            for layer, found in self._found.items()
        }


class _Rows(Protocol):
    """A file's vectors by layer."""

    def __getitem__(self, layer: str, /) -> np.ndarray: ...


class Parts:
    """Vectors in a folder; what is added counts once its part is on the disk, and a part is written every few seconds.

    Args:
        folder: made with the first part.
        identity: all that decides what the vectors are, but for the images, as JSON.
        layers: whose vectors they are.
        overwrite: remove another run from the folder.

    Raises:
        SaveError: the folder holds something else, and `overwrite` is False.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], layers: Sequence[str], *, overwrite: bool = False) -> None:
        self.folder = folder
        self._identity = json.loads(json.dumps({"format": FORMAT, "kind": KIND, **jsonable(identity)}))
        self._files = {name: folder / f"{plain}.npz" for name, plain in zip(layers, _file_names(layers), strict=True)}
        with failures(folder):
            run = read_json(folder / RUN)
            there = run.get("identity") if isinstance(run, dict) else None
            if run is not None and not (isinstance(there, dict) and there.get("kind") == KIND):
                raise SaveError(f"The folder '{folder}' holds a run of another command ({RUN}): choose another.")
            if there is not None and there != self._identity and not overwrite:
                found = list(differences(there, self._identity))
                listed = "; ".join(found[:6]) + ("; ..." if len(found) > 6 else "")
                raise SaveError(f"The folder '{folder}' holds a run with other settings ({listed}): {ADVICE}.")
            if there is not None and overwrite:
                self._clear(there.get("layers", ()))
            elif run is None and not overwrite:
                refuse_existing(folder, [PARTS, *(path.name for path in self._files.values())])
            self._sweep()
        self._sources: list[dict[str, np.ndarray]] = []  # a file's vectors by layer
        self._known: dict[str, tuple[Any, int, int]] = {}  # of an image: its stamp, the source, the row
        self._final = self._read_final()
        self._next = 0
        for path in sorted((folder / PARTS).glob("*.npz")):
            self._read_part(path)
        self._waiting: list[tuple[Sequence[str], Sequence[Any], Vectors]] = []
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        """Make the folder, or tell at once, and not after the first part, that it cannot be written."""
        with failures(self.folder):
            (self.folder / PARTS).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
            if not (self.folder / RUN).exists():
                record = {"format": FORMAT, "versions": versions(), "identity": self._identity}
                write_atomically(self.folder / RUN, lambda file: file.write(json.dumps(record, indent=1).encode()))
        self._since = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None and issubclass(kind, SaveError):
            return  # the disk is what failed
        self._flush()  # what was finished before Ctrl-C, or an error

    def __len__(self) -> int:
        return len(self._known) + sum(len(keys) for keys, _, _ in self._waiting)

    def has(self, key: str, stamp: Any) -> bool:
        """Whether the vectors of this very image are there: of the same name, size and time."""
        return stamp is not None and key in self._known and self._known[key][0] == stamp

    def add(self, keys: Sequence[str], stamps: Sequence[Any], vectors: Vectors) -> None:
        self._waiting.append((keys, stamps, vectors))
        size = sum(array.nbytes for _, _, arrays in self._waiting for array in arrays.values())
        if size >= BYTES or time.monotonic() - self._since >= SECONDS:
            self._flush()

    def finish(
        self, keys: Sequence[str], labels: Sequence[str], settings: Mapping[str, Any], skipped: Sequence[Skipped]
    ) -> dict[str, Embeddings]:
        """Put the vectors of all images together, in the order of `keys`, and remove the parts."""
        self._flush()
        away = {str(one.path) for one in skipped}
        rows = [i for i, key in enumerate(keys) if key in self._known and key not in away]
        about = {"files": [keys[i] for i in rows], "labels": [labels[i] for i in rows]}
        told = [[str(one.path), one.reason] for one in skipped]
        same = self._final is not None and all(self._final[name] == value for name, value in {**about, "skipped": told}.items())
        at = [self._known[key] for key in about["files"]]
        stamps, places = [stamp for stamp, _, _ in at], [place for _, *place in at]
        if not same or any(source for source, _ in places):
            with failures(self.folder, HINT):
                for layer, path in self._files.items():
                    width = self._sources[places[0][0]][layer].shape[1]
                    like = np.broadcast_to(np.float32(0), (len(places), width))
                    names = tuple(about["files"]), tuple(about["labels"])
                    made = Embeddings(like, *names, {**settings, "layer": layer}, tuple(skipped))
                    blocks = self._gather(layer, places, max(1, int(BLOCK // (4 * width))))
                    write_atomically(
                        path,
                        lambda file, made=made, blocks=blocks: write_embeddings(file, made, blocks, {"stamps": stamps}),
                        durable=True,
                    )
        with failures(self.folder):
            for path in (self.folder / PARTS).glob("*.npz"):
                path.unlink(missing_ok=True)
            with suppress(OSError):
                (self.folder / PARTS).rmdir()
        return {layer: Embeddings.load(path) for layer, path in self._files.items()}

    def _gather(self, layer: str, places: Sequence[Sequence[int]], size: int) -> Iterator[np.ndarray]:
        for first in range(0, len(places), size):
            part = np.asarray(places[first : first + size])
            block = np.empty((len(part), self._sources[part[0, 0]][layer].shape[1]), np.float32)
            for source in np.unique(part[:, 0]):
                mine = part[:, 0] == source
                block[mine] = self._sources[source][layer][part[mine, 1]]
            yield block

    def _flush(self) -> None:
        """Write what waits as one part."""
        if not self._waiting:
            return
        keys = [key for some, _, _ in self._waiting for key in some]
        stamps = [stamp for _, some, _ in self._waiting for stamp in some]
        words = np.array(json.dumps({"keys": keys, "stamps": stamps}))
        arrays = {f"v{i}": np.concatenate([some[n] for _, _, some in self._waiting]) for i, n in enumerate(self._files)}
        path = self.folder / PARTS / f"{self._next:08d}.npz"
        with failures(self.folder, HINT):
            write_atomically(path, lambda file: np.savez(file, allow_pickle=False, about=words, **arrays), durable=True)
        self._waiting = []
        self._since = time.monotonic()
        self._read_part(path)

    def _read_part(self, path: Path) -> None:
        """Learn what a part holds; one that is damaged is removed, and its images are computed again."""
        try:
            number = int(path.stem)
            with np.load(path, allow_pickle=False) as arrays:
                words = json.loads(str(arrays["about"]))
            found = {name: map_array(path, f"v{i}") for i, name in enumerate(self._files)}
            if {len(words["stamps"]), *map(len, found.values())} != {len(words["keys"])}:
                raise ValueError("other numbers of vectors than images")
        except Exception:  # a damaged zip raises many types
            path.unlink(missing_ok=True)
            return
        self._next = max(self._next, number + 1)
        self._learn(words["keys"], words["stamps"], found)

    def _read_final(self) -> dict[str, Any] | None:
        """Learn what a run that was finished has left: the first source, whether or not there is one."""
        try:
            read = {name: read_embeddings(path) for name, path in self._files.items()}
            words = [one for _, one in read.values()]
            if any((one["files"], one["stamps"]) != (words[0]["files"], words[0]["stamps"]) for one in words):
                raise SaveError("Killed between two layers.")
        except (SaveError, KeyError):
            self._sources.append({})
            return None
        self._learn(words[0]["files"], words[0]["stamps"], {name: one.vectors for name, (one, _) in read.items()})
        return words[0]

    def _learn(self, keys: Sequence[str], stamps: Sequence[Any], vectors: dict[str, np.ndarray]) -> None:
        self._known |= {
            key: (stamp, len(self._sources), row) for row, (key, stamp) in enumerate(zip(keys, stamps, strict=True))
        }
        self._sources.append(vectors)

    def _sweep(self) -> None:
        """Remove what writes that were killed have left."""
        mine = {name[:40] for name in (RUN, *(path.name for path in self._files.values()))}
        for name in names_in(self.folder):
            match = re.fullmatch(r"\.(.+)\.[a-z0-9_]{8}", name)
            if match and match[1] in mine:
                (self.folder / name).unlink(missing_ok=True)
        for name in names_in(self.folder / PARTS):
            if re.fullmatch(r"\.\d+\.npz\.[a-z0-9_]{8}", name):
                (self.folder / PARTS / name).unlink(missing_ok=True)

    def _clear(self, layers: Sequence[str]) -> None:
        """Remove an older run, last what tells that it is one."""
        for path in (self.folder / PARTS).glob("*.npz"):
            path.unlink(missing_ok=True)
        for name in (*(f"{plain}.npz" for plain in _file_names(layers)), RUN):
            (self.folder / name).unlink(missing_ok=True)


def _file_names(layers: Sequence[str]) -> list[str]:
    """Return a name for each layer's file, unique also where upper and lower case are one."""
    names: list[str] = []
    for layer in layers:
        plain = re.sub(r"[^A-Za-z0-9._]+", "-", layer)[:80].strip("-._") or "layer"
        again = sum(plain.lower() == other.lower().rsplit("~", 1)[0] for other in names)
        names.append(f"{plain}~{again + 1}" if again else plain)
    return names
