"""The folder of `iter_attribute`: each finished photo at once, so that a run that stopped in any way continues.

run.json             what is run; other settings are refused
images/NAME/         photo.png, a PNG for each method and target, and, written last, maps.npz: the raw maps and all else
index.json           of all photos: file, scores, targets, diagnosis; and the files that were skipped
contact_sheet.png    the first photos x methods x targets
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from PIL import Image

from jaxviz._atomic import DamagedFile, names_in, reading, remove_matching, write_atomically
from jaxviz._errors import SaveError
from jaxviz._file_names import FileNames
from jaxviz._image_files import Skipped, stamp
from jaxviz._result_files import SHEET, failures, versions, write_png
from jaxviz._run_folder import HINT, RunFolder, RunKind
from jaxviz._types import StrPath
from jaxviz.attribution._album_sheet import PHOTO, Row, draw_sheet, lay_out
from jaxviz.attribution._attribution import Attribution
from jaxviz.attribution._files import describe
from jaxviz.attribution._pictures import Look

FORMAT = 1
INDEX, IMAGES, MAPS = "index.json", "images", "maps.npz"
IMAGE_FILES = r"maps\.npz|[^/]+\.png"  # of one photo
KIND = RunKind("attribute", FORMAT, {IMAGES: rf"[^/]+/({IMAGE_FILES})"})
ROWS = 32  # photos of the contact sheet at most
_DTYPES = {"targets": None, "classes": np.int32, "scores": np.float32, "delta": np.float32, "diagnosis": None}


class _Entry(NamedTuple):
    """A finished photo: the name of its folder, and its size and time, by which it is known again."""

    name: str
    stamp: list[int]


class Album:
    """One run's folder, which `with` opens.

    Args:
        folder: made where it is missing.
        settings: all that decides what the maps are, but for the photos.
        look: how the maps are drawn.
        overwrite: remove another run from the folder.
    """

    def __init__(self, folder: StrPath, settings: Mapping[str, Any], look: Look, *, overwrite: bool = False) -> None:
        self._run = RunFolder(folder, KIND, {**settings, **look}, [INDEX, SHEET], overwrite=overwrite)
        self._folder = self._run.path / IMAGES
        self._look = look
        self._entries: dict[str, _Entry] = {}  # by the photo's place
        self._names = FileNames()

    def __enter__(self) -> Self:
        """Open the folder and look at what it holds; what was left of an unfinished photo is removed.

        Raises:
            SaveError: it cannot be written, is in use, or holds something else.
        """
        self._run.open()
        try:
            for name in sorted(names_in(self._folder)):
                about = self._about(name)
                if about is not None:
                    self._entries[about["path"]] = _Entry(name, about["file"])
                elif self._run.is_writable:
                    remove_matching(self._folder / name, IMAGE_FILES)
        except BaseException:
            self._run.close()
            raise
        self._names = FileNames(entry.name for entry in self._entries.values())
        return self

    def __exit__(self, *error: object) -> None:
        self._run.close()

    def require_writable(self) -> None:
        """Raise the `SaveError` that says why no photo can be added, if none can."""
        self._run.require_writable()

    def has(self, path: Path) -> bool:
        """Whether the maps of this very file are there: of the same place, size and time."""
        entry = self._entries.get(str(path.resolve()))
        return entry is not None and path.is_file() and entry.stamp == stamp(path)

    def add(self, path: Path, photo: np.ndarray, attributions: Mapping[str, Attribution]) -> None:
        """Write the pictures and then the maps of one photo.

        Args:
            path: of the photo.
            photo: as the network saw it, float32 (H, W, C).
            attributions: by method, of this photo alone.

        Raises:
            SaveError: the disk is full, or the folder cannot be written.
        """
        key, file = str(path.resolve()), stamp(path)
        entry = self._entries.get(key)
        name = entry.name if entry is not None else self._names(path.stem, "image")
        row = lay_out(attributions, photo, self._look)
        about = {
            "path": key,
            "file": file,
            "methods": {method: describe(each) for method, each in attributions.items()},
            "how": {
                method: {"layer": each.layer, "spatial": each.spatial, "settings": dict(each.settings)}
                for method, each in attributions.items()
            },
            **row.to_json(),
        }
        arrays = {method: each.maps[0] for method, each in attributions.items()}
        for method, each in attributions.items():
            arrays |= {f"{method}/{name}": np.asarray(array)[0] for name, array in each.extra.items()}
        words = np.array(json.dumps(about))
        with failures(self._run.path, HINT):
            (self._folder / name / MAPS).unlink(missing_ok=True)  # of a file that has changed since
            for file_name, picture in zip(row.files, row.pictures, strict=True):
                write_png(self._folder / name / file_name, Image.fromarray(picture))
        self._run.write(f"{IMAGES}/{name}/{MAPS}", lambda file: np.savez(file, allow_pickle=False, about=words, **arrays))
        self._entries[key] = _Entry(name, file)

    def load(self, path: Path) -> dict[str, Attribution]:
        """Return what `add` was given for a photo.

        Raises:
            SaveError: its files were changed or removed.
        """
        name = self._entries[str(path.resolve())].name
        about = self._read(name)
        with reading(self._folder / name / MAPS, "maps"), np.load(self._folder / name / MAPS, allow_pickle=False) as file:
            arrays: dict[str, np.ndarray] = {key: file[key] for key in file if key != "about"}
        return {method: _restore(method, about, arrays) for method in about["methods"]}

    def finish(self, skipped: Sequence[Skipped]) -> None:
        """Write the index of all photos in the folder, and the contact sheet of the first."""
        if not self._run.is_writable:
            return
        names = [entry.name for _, entry in sorted(self._entries.items())]
        with failures(self._run.path, HINT):
            write_atomically(self._run.path / INDEX, lambda file: file.writelines(self._index(skipped)))
            rows = [Row.from_json(self._read(name), self._folder / name) for name in names[:ROWS]]
            title = f"The first {ROWS} of {len(names)} images" if len(names) > ROWS else None
            write_png(self._run.path / SHEET, Image.fromarray(draw_sheet(rows, title)))

    def _index(self, skipped: Sequence[Skipped]) -> Iterator[bytes]:
        """Yield the index as JSON, a photo at a time."""
        head: dict[str, Any] = {"format": FORMAT, "versions": versions(), "settings": self._run.identity}
        head["skipped"] = [{"path": str(file.path), "reason": file.reason} for file in skipped]
        yield json.dumps(head, indent=1).removesuffix("\n}").encode() + b',\n "images": ['
        comma = b"\n  "
        for path, entry in sorted(self._entries.items()):
            about = self._read(entry.name)
            files = [f"{IMAGES}/{entry.name}/{file}" for file in (*about["files"], MAPS)]
            yield comma + json.dumps({"path": path, "files": files, "methods": about["methods"]}).encode()
            comma = b",\n  "
        yield b"\n ]\n}\n"

    def _read(self, name: str) -> dict[str, Any]:
        about = self._about(name)
        if about is None:
            raise SaveError(f"'{self._folder / name}' was changed by somebody else. {HINT}")
        return about

    def _about(self, name: str) -> dict[str, Any] | None:
        """Return the record of a finished photo; None where it is missing or damaged, or one of its pictures is missing."""
        path = self._folder / name / MAPS
        try:
            with reading(path):
                with np.load(path, allow_pickle=False) as arrays:
                    about: dict[str, Any] = json.loads(str(arrays["about"]))
                is_whole = {PHOTO, *about["files"]} <= names_in(path.parent) and {"path", "file", "how"} <= about.keys()
                return about if is_whole else None
        except (DamagedFile, FileNotFoundError, NotADirectoryError):
            return None


def _restore(method: str, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Attribution:
    values = about["methods"][method]
    fields = {name: np.asarray([values[name]], dtype) for name, dtype in _DTYPES.items() if name in values}
    fields.setdefault("classes", None)  # type: ignore[arg-type]
    extra = {name.removeprefix(f"{method}/"): array[None] for name, array in arrays.items() if name.startswith(f"{method}/")}
    return Attribution(maps=arrays[method][None], method=method, extra=extra, **fields, **about["how"][method])
