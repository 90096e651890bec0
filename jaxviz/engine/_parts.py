"""The finished chunks of a run on disk: which units they hold, written in one step, read back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxviz._atomic import DamagedFile, map_array, names_in, reading
from jaxviz._errors import SaveError
from jaxviz._result_files import PARTS
from jaxviz._run_folder import RunFolder
from jaxviz.engine._execute import Chunk
from jaxviz.result import Arrays


class PartKey(NamedTuple):
    """Which units a part holds: `first` to `stop` of an objective."""

    objective: int
    first: int
    stop: int


class Parts:
    """The parts `parts/<objective>-<first unit>-<stop>.npz` of a run.

    Args:
        run: the folder.
        units: how many each objective has.
    """

    def __init__(self, run: RunFolder, units: Sequence[int]) -> None:
        self._run, self._units = run, units
        self._paths: dict[PartKey, Path] = {}
        self.refresh()

    def refresh(self) -> None:
        """Look for parts on disk; a truncated one is left out, so that its units are computed again."""
        paths = _part_paths(self._run.path / PARTS)
        self._paths = {key: path for key, path in paths.items() if key in self._paths or _is_sound(path, key)}

    @property
    def is_complete(self) -> bool:
        """Whether the parts hold all units."""
        return all(self.done(number).all() for number in range(len(self._units)))

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of a unit's images, (S, H, W, C)."""
        return map_array(next(iter(self._paths.values())), "images").shape[1:]

    def done(self, number: int) -> np.ndarray:
        """Return for every unit of an objective whether a part holds it, bool (K,)."""
        done = np.zeros(self._units[number], bool)
        for objective, first, stop in self._paths:
            done[first:stop] |= objective == number
        return done

    def write(self, number: int, chunk: Chunk) -> None:
        """Write a chunk, which from then on counts as finished.

        Raises:
            SaveError: the disk is full, or the folder cannot be written.
        """
        name = f"{PARTS}/{number}-{chunk.first}-{chunk.stop}.npz"
        self._run.write(name, lambda file: np.savez(file, allow_pickle=False, **chunk.arrays._asdict()))

    def read(self, number: int, first: int, stop: int, *, checked: bool = False) -> Iterator[Chunk]:
        """Yield the units `first` to `stop` of an objective, a part at a time.

        Args:
            number: of the objective.
            first, stop: units that parts hold.
            checked: read and check the images too; otherwise they stay on disk.

        Raises:
            SaveError: a part is damaged.
        """
        while first < stop:
            key = max((key for key in self._paths if key.objective == number and key.first <= first < key.stop), key=_stop_of)
            path = self._paths[key]
            rows = slice(first - key.first, min(key.stop, stop) - key.first)
            try:
                with reading(path), np.load(path, allow_pickle=False) as file:
                    images = file["images"] if checked else map_array(path, "images")
                    arrays = Arrays(images, *(file[name] for name in Arrays._fields[1:]))
            except (DamagedFile, FileNotFoundError) as error:
                path.unlink(missing_ok=True)
                raise SaveError(f"'{path}' is damaged and was removed: the same call again computes its units anew.") from error
            yield Chunk(first, arrays.rows(rows))
            first = min(key.stop, stop)


def _stop_of(key: PartKey) -> int:
    return key.stop


def _part_paths(folder: Path) -> dict[PartKey, Path]:
    matches = [re.fullmatch(r"(\d+)-(\d+)-(\d+)\.npz", name) for name in names_in(folder)]
    return {PartKey(int(m[1]), int(m[2]), int(m[3])): folder / m[0] for m in matches if m}


def _is_sound(path: Path, key: PartKey) -> bool:
    try:
        with reading(path):
            return len(map_array(path, "images")) == key.stop - key.first
    except (DamagedFile, FileNotFoundError):
        return False
