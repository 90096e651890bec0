"""The folder of `jaxviz attribute`: each finished image at once, so that a run that was killed goes on where it was.

run.json             what was run; other settings are refused
images/NAME/         photo.png, a PNG for each method and target, and, written last, maps.npz: each method's raw map
index.json           of all images: file, scores, targets, diagnosis; and the files that were skipped
contact_sheet.png    the first images x methods x targets
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxviz import plot
from jaxviz._atomic import names_in, write_atomically
from jaxviz._errors import SaveError
from jaxviz._image_files import Skipped, stamp
from jaxviz._result_files import ADVICE, ARRAYS, RUN, SHEET, failures, jsonable, read_json, refuse_existing, versions, write_png
from jaxviz.attribution._attribution import Attribution
from jaxviz.attribution._comparison import layout
from jaxviz.attribution._files import describe
from jaxviz.engine import differences

FORMAT, KIND = 1, "attribute"
INDEX, IMAGES, MAPS, PHOTO = "index.json", "images", "maps.npz", "photo.png"
HINT = "What is finished is kept: the same command again continues."
ROWS = 32  # images of the contact sheet at most
ACROSS = 12  # pictures beside each other there, where one image has fewer


class Album:
    """One run's folder.

    Args:
        folder: made with the first image.
        identity: all that decides what the maps and pictures are, but for the images, as JSON.
        look: how the maps are drawn: `view`, `percentile`, `share`.
        overwrite: remove another run from the folder.

    Raises:
        SaveError: the folder holds something else, and `overwrite` is False.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], look: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.folder = folder
        self._identity = json.loads(json.dumps({"format": FORMAT, "kind": KIND, **jsonable({**identity, **look})}))
        self._look = dict(look)
        with failures(folder):
            run = read_json(folder / RUN)
            there = run.get("identity") if isinstance(run, dict) else None
            if run is not None and not (isinstance(there, dict) and there.get("kind") == KIND):
                raise SaveError(f"The folder '{folder}' holds a run of another command ({RUN}): choose another.")
            if run is not None and not overwrite and there != self._identity:
                found = list(differences(there, self._identity))
                listed = "; ".join(found[:6]) + ("; ..." if len(found) > 6 else "")
                raise SaveError(f"The folder '{folder}' holds a run with other settings ({listed}): {ADVICE}.")
            if run is None and not overwrite:
                refuse_existing(folder, [INDEX, SHEET, IMAGES, ARRAYS])
            if run is not None and overwrite:
                self._clear()
            self._sweep()
        self._records: dict[str, tuple[str, list[int]]] = {}  # of each image's place: its folder's name, its size and time
        for name in sorted(names_in(folder / IMAGES)):
            if (about := self._about(name)) is not None:
                self._records[about["path"]] = name, about["file"]
            else:
                self._remove(name)

    def has(self, path: Path) -> bool:
        """Whether the maps of this very file are there: of the same place, size and time."""
        known = self._records.get(str(path.resolve()))
        return known is not None and path.is_file() and known[1] == stamp(path)

    def open(self) -> None:
        """Make the folder, or tell at once, and not after the first batch, that it cannot be written."""
        with failures(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
            if not (self.folder / RUN).exists():
                record = {"format": FORMAT, "versions": versions(), "identity": self._identity}
                write_atomically(self.folder / RUN, lambda file: file.write(json.dumps(record, indent=1).encode()))

    def add(self, path: Path, photo: np.ndarray, attributions: Mapping[str, Attribution]) -> None:
        """Write the pictures and then the maps of one image; each attribution, by method, is of this image alone."""
        key, seen = str(path.resolve()), stamp(path)
        name = self._records[key][0] if key in self._records else self._free_name(path)
        folder = self.folder / IMAGES / name
        parts = layout(list(attributions.values()), photo[None], **self._look)
        files = [PHOTO, *_file_names(attributions)]
        about = {
            "path": key,
            "file": seen,
            "files": files,
            "methods": {method: describe(one) for method, one in attributions.items()},
            "columns": parts["columns"],
            "groups": parts["groups"],
            "captions": parts["captions"][0] if parts["captions"] else [""] * len(files),
            "bars": [[bar.name, bar.colours, list(bar.ends)] for bar in parts["bars"]],
        }
        arrays = {method: one.maps[0] for method, one in attributions.items()}
        words = np.array(json.dumps(about))
        with failures(self.folder, HINT):
            (folder / MAPS).unlink(missing_ok=True)  # of a file that has changed since
            for file, picture in zip(files, parts["pictures"][0], strict=True):
                write_png(folder / file, Image.fromarray(picture))
            write_atomically(
                folder / MAPS, lambda file: np.savez(file, allow_pickle=False, about=words, **arrays), durable=True
            )
        self._records[key] = name, seen

    def finish(self, skipped: Sequence[Skipped]) -> None:
        """Write the index of all images in the folder, and the contact sheet of the first."""
        with failures(self.folder, HINT):
            write_atomically(self.folder / INDEX, lambda file: file.writelines(self._index(skipped)))
            names = [self._records[path][0] for path in sorted(self._records)]
            write_png(self.folder / SHEET, Image.fromarray(self._sheet(names)))

    def _index(self, skipped: Sequence[Skipped]) -> Iterator[bytes]:
        """Yield the index as JSON, an image at a time."""
        head = {"format": FORMAT, "versions": versions(), "settings": self._identity}
        head["skipped"] = [{"path": str(one.path), "reason": one.reason} for one in skipped]
        yield json.dumps(head, indent=1).removesuffix("\n}").encode() + b',\n "images": ['
        comma = b"\n  "
        for path, (name, _) in sorted(self._records.items()):
            about = self._read(name)
            files = [f"{IMAGES}/{name}/{file}" for file in (*about["files"], MAPS)]
            yield comma + json.dumps({"path": path, "files": files, "methods": about["methods"]}).encode()
            comma = b",\n  "
        yield b"\n ]\n}\n"

    def _sheet(self, names: Sequence[str]) -> np.ndarray:
        abouts = {name: self._read(name) for name in names[:ROWS]}
        rows = [
            [np.asarray(Image.open(self.folder / IMAGES / name / file).convert("RGB")) for file in about["files"]]
            for name, about in abouts.items()
        ]
        first = abouts[names[0]]
        captions = [about["captions"] for about in abouts.values()]
        bars = {bar[0]: plot.Bar(*bar) for about in abouts.values() for bar in about["bars"]}
        # With few methods several images stand beside each other, as evenly as it goes; what stays empty is white.
        beside = min(len(rows), max(1, ACROSS // len(first["columns"])))
        lines = -(-len(rows) // beside)
        beside = -(-len(rows) // lines)
        rows += [[np.full_like(rows[0][0], 255)] * len(first["columns"])] * (lines * beside - len(rows))
        captions += [[""] * len(first["columns"])] * (len(rows) - len(captions))
        groups = [tuple(group) for group in first["groups"]] or [("", len(first["columns"]))]
        return plot.table(
            [list(chain(*rows[i::lines])) for i in range(lines)],
            columns=first["columns"] * beside,
            captions=[list(chain(*captions[i::lines])) for i in range(lines)] if any(map(any, captions)) else (),
            groups=groups * beside if beside > 1 or first["groups"] else (),
            bars=list(bars.values()),
            title=f"The first {ROWS} of {len(names)} images" if len(names) > ROWS else None,
            tile=min(128, max(96, rows[0][0].shape[0])),
        )

    def _read(self, name: str) -> dict[str, Any]:
        about = self._about(name)
        if about is None:
            raise SaveError(f"'{self.folder / IMAGES / name}' was changed by somebody else. {HINT}")
        return about

    def _about(self, name: str) -> dict[str, Any] | None:
        """Return the record of a finished image; None where it is missing or damaged, or one of its pictures is missing."""
        folder = self.folder / IMAGES / name
        try:
            with np.load(folder / MAPS, allow_pickle=False) as arrays:
                about = json.loads(str(arrays["about"]))
            return about if set(about["files"]) <= names_in(folder) else None
        except Exception:  # a damaged zip raises many types
            return None

    def _free_name(self, path: Path) -> str:
        """Return a folder name for an image: its file's; with a digest of its place where another image has it."""
        plain = re.sub(r"[^A-Za-z0-9._]+", "-", path.stem)[:80].strip("-._") or "image"
        used = {name.lower() for name, _ in self._records.values()}
        if plain.lower() not in used:
            return plain
        mark = hashlib.sha256(str(path.resolve()).encode(errors="surrogateescape")).hexdigest()
        return next(name for n in range(6, 65) if (name := f"{plain}-{mark[:n]}").lower() not in used)

    def _sweep(self) -> None:
        """Remove what writes that were killed have left."""
        for name in names_in(self.folder):
            if re.fullmatch(rf"\.({re.escape(RUN)}|{re.escape(INDEX)}|{re.escape(SHEET)})\.[a-z0-9_]{{8}}", name):
                (self.folder / name).unlink(missing_ok=True)

    def _remove(self, name: str) -> None:
        """Remove an image's files, and its folder if nothing else is in it."""
        folder = self.folder / IMAGES / name
        for file in names_in(folder):
            if file == MAPS or file.endswith(".png") or re.fullmatch(r"\..+\.[a-z0-9_]{8}", file):
                (folder / file).unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()

    def _clear(self) -> None:
        """Remove an older run, last what tells that it is one."""
        for name in names_in(self.folder / IMAGES):
            self._remove(name)
        with suppress(OSError):
            (self.folder / IMAGES).rmdir()
        for name in (INDEX, SHEET, RUN):
            (self.folder / name).unlink(missing_ok=True)


def _file_names(attributions: Mapping[str, Attribution]) -> list[str]:
    """Return the PNG names of all methods and targets of one image: `saliency.png`, `grad_cam-church.png`."""
    names: list[str] = []
    for method, one in attributions.items():
        if not one.many:
            names.append(f"{method}.png")
            continue
        plain = [re.sub(r"[^A-Za-z0-9._]+", "-", str(word))[:60].strip("-._") or "target" for word in one.targets[0]]
        for k, word in enumerate(plain):
            again = any(word.lower() == other.lower() for other in plain[:k])
            names.append(f"{method}-{word}{f'_{k + 1}' if again else ''}.png")
    return names
