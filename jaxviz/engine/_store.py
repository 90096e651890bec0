"""A run that is kept in a folder: each finished chunk at once, so that a run that was killed goes on where it was."""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import accumulate, chain
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxviz._atomic import map_array, write_atomically
from jaxviz._errors import SaveError
from jaxviz._result_files import (
    ADVICE,
    ARRAYS,
    FORMAT,
    IMAGES,
    PARTS,
    PICTURES,
    RECORD,
    RUN,
    SHEET,
    failures,
    file_names,
    jsonable,
    names_in,
    old_files,
    parts_of,
    read_json,
    refuse_existing,
    remove_run,
    write_images,
    write_png,
)
from jaxviz._types import StrPath
from jaxviz.engine._ascent import Unit
from jaxviz.engine._execute import Chunk, Stage
from jaxviz.engine._fingerprint import differences, digest
from jaxviz.image import to_pillow
from jaxviz.result import ARRAY_NAMES, Result, load_result, merge_settings, versions, write_result

WAITING = 2  # chunks at most that wait for the disk while the next one is computed
HINT = "What is finished is kept: the same call again continues."
MARK = "failed-"
PATIENCE = 120.0  # seconds that a network's file system may take to show what another machine has written


def share(number: int, units: int) -> range:
    """Return which units of objective `number` are this process's; who has the remainder changes with the objective."""
    processes = jax.process_count()
    turn = (jax.process_index() + number) % processes
    return range(units * turn // processes, units * (turn + 1) // processes)


class Store:
    """The sink on disk of one run of some objectives, each of some units.

    While it runs, the folder holds `run.json` (what is run), `parts/<objective>-<first unit>-<stop>.npz` (the arrays of a
    finished chunk, written in one step) and the pictures; in the end a saved `Result` in place of the parts. One thread
    writes while the next chunk is computed; its errors surface in the caller. Opening the folder refuses a run of other
    settings.

    With several processes (`jax.distributed`), each computes and writes its share of every objective's units, and process
    0 puts the parts together when all are there.

    Args:
        folder: made where it is missing.
        identity: all that decides what the images are, as JSON; chunks and devices are no part of it.
        labels: the names of the units of each objective.
        settings: for people, of each objective.
        samples: images a unit.
        overwrite: remove another run or result from the folder.

    Raises:
        SaveError: the folder cannot be written, or holds another run or result.
    """

    def __init__(
        self,
        folder: StrPath,
        identity: Mapping[str, Any],
        labels: Sequence[Sequence[str]],
        settings: Sequence[Mapping[str, Any]],
        samples: int,
        *,
        overwrite: bool = False,
    ) -> None:
        self.folder = Path(folder)
        units = [f"{len(names)} units, {names[0]} to {names[-1]}, {digest(names)}" for names in labels]
        self._identity = json.loads(json.dumps({"format": FORMAT, "units": units, **jsonable(identity)}))
        self._digest = digest(self._identity)
        self._labels, self._settings = labels, settings
        used: set[str] = set()
        self._files = [file_names(names, samples, used) for names in labels]
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="jaxviz-store")
        self._pending: deque[Future[None]] = deque()
        self._parts: dict[tuple[int, int, int], Path] = {}
        self._open(overwrite)
        self._parts = self._sound_parts()

    @property
    def is_finished(self) -> bool:
        """Whether the folder holds the result of this very run."""
        return self._result_of() == self._digest

    def results(self) -> Iterator[Result]:
        """Yield the finished result, an objective at a time; its images stay on disk."""
        result = load_result(self.folder)
        ends = list(accumulate(map(len, self._labels), initial=0))
        for first, stop, settings in zip(ends, ends[1:], self._settings, strict=False):
            yield replace(result[first:stop], settings=settings)

    def run(self, number: int, stages: Sequence[Stage], engine: Callable[..., Iterator[Chunk]]) -> Iterator[Chunk]:
        """Yield the chunks of objective `number` in order, those on disk too; compute and keep those that are missing.

        Args:
            number: of the objective.
            stages: of all of its units.
            engine: called with the stages of some units and `skip=`, as `run`, where any unit is missing.
        """
        mine, done = share(number, len(self._labels[number])), self._done(number)
        at = mine.start
        if not done[mine.start : mine.stop].all():
            part = [replace(stage, units=_rows(stage.units, mine)) for stage in stages]
            for chunk in engine(part, skip=lambda a, b: bool(done[mine.start + a : mine.start + b].all())):
                chunk = replace(chunk, first=mine.start + chunk.first)
                yield from self._stored(number, at, chunk.first)
                at = chunk.first + len(chunk.images)
                self._submit(number, chunk)
                yield chunk
        yield from self._stored(number, at, mine.stop)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None and jax.process_count() > 1:
            with suppress(OSError):
                write_atomically(self._mark(jax.process_index()), lambda file: file.write(str(error).encode()))
        self._close()

    def finish(self) -> None:
        """Put the parts together to the result, once all processes have written theirs."""
        self._close()
        with failures(self.folder, HINT):
            if jax.process_index() == 0:
                self._wait(self._is_complete, 0.0 if jax.process_count() == 1 else math.inf)
                self._assemble()
                remove_run(self.folder)
            else:
                self._wait(lambda: self.is_finished)

    def _close(self) -> None:
        """Wait until all that was computed is on disk."""
        try:
            while self._pending:
                self._pending.popleft().result()
        finally:
            self._pool.shutdown()

    # Opening ----------------------------------------------------------------------------------------------------------

    def _open(self, overwrite: bool) -> None:
        """Let process 0 prepare the folder; the others see what it made of it."""
        error: SaveError | None = None
        if jax.process_index() == 0:
            try:
                with failures(self.folder):
                    self._prepare(overwrite)
            except SaveError as caught:  # raised when the others have been told, or they would wait for ever
                error = caught
        elif (mark := self._mark(jax.process_index())).exists():
            mark.unlink()
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("jaxviz: the folder is prepared")
        if error:
            raise error
        if jax.process_index() != 0:
            self._wait(lambda: read_json(self.folder / RUN) is not None, PATIENCE)
            self._check(read_json(self.folder / RUN))

    def _prepare(self, overwrite: bool) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder):
            pass  # a folder that cannot be written is told now, not after an hour
        names = [name for objective in self._files for unit in objective for name in unit]
        if overwrite:
            self._clear(names)
        run = read_json(self.folder / RUN)
        if run is not None:
            self._check(run)
            self._sweep(names)
            if self.is_finished:  # and killed before the parts were removed
                remove_run(self.folder)
            return
        refuse_existing(self.folder, [] if overwrite else [ARRAYS, RUN, IMAGES, RECORD, SHEET, PARTS, *names])
        units = zip(chain(*self._labels), chain(*self._files), strict=True)
        record = {"format": FORMAT, "versions": versions(), "digest": self._digest, "identity": self._identity}
        record["units"] = [{"label": label, "files": files} for label, files in units]
        write_atomically(self.folder / RUN, lambda file: file.write(json.dumps(record, indent=1).encode()), durable=True)

    def _check(self, run: Any) -> None:
        """Refuse a run of other settings, or a result that another run or nobody's run has left."""
        if not isinstance(run, dict) or run.get("digest") != self._digest:
            found = list(differences(run.get("identity"), self._identity)) if isinstance(run, dict) else []
            listed = "; ".join(found[:6]) + ("; ..." if len(found) > 6 else "")
            raise SaveError(f"The folder '{self.folder}' holds a run with other settings ({listed or RUN}): {ADVICE}.")
        if self._result_of() not in (None, self._digest):
            raise SaveError(f"The folder '{self.folder}' holds another result already: {ADVICE}.")

    def _clear(self, names: Sequence[str]) -> None:
        """Remove an older run and result, first what would make a rest of it pass for whole, last what lists its files."""
        (self.folder / ARRAYS).unlink(missing_ok=True)
        remove_run(self.folder)
        for name in (*(old_files(self.folder) | set(names)), SHEET, IMAGES, RECORD, RUN):
            (self.folder / name).unlink(missing_ok=True)

    def _sweep(self, names: Sequence[str]) -> None:
        """Remove what writes that were killed have left."""
        mine = {name[:40] for name in (*names, RUN)}
        for name in names_in(self.folder):
            match = re.fullmatch(r"\.(.+)\.[a-z0-9_]{8}", name)
            if match and match[1] in mine:
                (self.folder / name).unlink(missing_ok=True)
            elif re.fullmatch(r"\.result\.[a-z0-9_]{8}", name):
                shutil.rmtree(self.folder / name, ignore_errors=True)
        for name in names_in(self.folder / PARTS):
            if name.startswith((".", MARK)):
                (self.folder / PARTS / name).unlink(missing_ok=True)

    def _result_of(self) -> str | None:
        """Return the digest of the run whose result is in the folder, "" for a result of no run, None where none is."""
        if not (self.folder / ARRAYS).is_file() or not (self.folder / IMAGES).is_file():
            return None
        try:
            with np.load(self.folder / ARRAYS, allow_pickle=False) as arrays:
                return str(json.loads(str(arrays["about"])).get("run", ""))
        except Exception:  # a damaged zip raises many types
            return ""

    # Chunks -----------------------------------------------------------------------------------------------------------

    def _submit(self, number: int, chunk: Chunk) -> None:
        while self._pending and (len(self._pending) >= WAITING or self._pending[0].done()):
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._write, number, chunk))

    def _write(self, number: int, chunk: Chunk) -> None:
        """Write the arrays of a chunk, by which it counts as finished, then its pictures."""
        stop = chunk.first + len(chunk.images)
        arrays = {name: getattr(chunk, name) for name in ARRAY_NAMES}
        path = self.folder / PARTS / f"{number}-{chunk.first}-{stop}.npz"
        with failures(self.folder, HINT):
            write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays), durable=True)
            self._draw(self._files[number][chunk.first : stop], chunk.images)

    def _draw(self, files: Sequence[Sequence[str]], images: np.ndarray, there: Container[str] = ()) -> None:
        for names, group in zip(files, images, strict=True):
            if group.shape[-1] in PICTURES:
                for name, image in zip(names, group, strict=True):
                    if name not in there:
                        write_png(self.folder / name, to_pillow(image))

    def _stored(self, number: int, at: int, stop: int, *, checked: bool = False) -> Iterator[Chunk]:
        """Yield the units `at` to `stop` from the parts that hold them; their images stay on disk unless `checked`."""
        while at < stop:
            which, first, end = max(
                (key for key in self._parts if key[0] == number and key[1] <= at < key[2]), key=itemgetter(2)
            )
            path = self._parts[which, first, end]
            rows = slice(at - first, min(end, stop) - first)
            try:
                with np.load(path, allow_pickle=False) as file:
                    arrays = {name: file[name] for name in ARRAY_NAMES if checked or name != "images"}
                images = {} if checked else {"images": map_array(path, "images")}
            except Exception as error:  # a damaged zip raises many types
                path.unlink(missing_ok=True)
                raise SaveError(f"'{path}' is damaged and was removed: the same call again computes its units anew.") from error
            yield Chunk(at, **{name: array[rows] for name, array in (arrays | images).items()})
            at = min(end, stop)

    def _done(self, number: int) -> np.ndarray:
        """Return for every unit of an objective whether a part holds it, (K,)."""
        done = np.zeros(len(self._labels[number]), bool)
        for which, first, stop in self._parts:
            done[first:stop] |= which == number
        return done

    def _sound_parts(self) -> dict[tuple[int, int, int], Path]:
        """Return the parts that are whole: a truncated one is not trusted, and its units are computed again."""
        return {key: path for key, path in parts_of(self.folder).items() if key in self._parts or _is_sound(path, key)}

    # The end ----------------------------------------------------------------------------------------------------------

    def _is_complete(self) -> bool:
        self._parts = self._sound_parts()
        return all(self._done(number).all() for number in range(len(self._labels)))

    def _assemble(self) -> None:
        """Write the images of all parts as one array, a part at a time, and with it the rest of the result."""
        rest: dict[str, list[np.ndarray]] = {name: [] for name in ARRAY_NAMES if name != "images"}

        def blocks() -> Iterator[np.ndarray]:
            for number, names in enumerate(self._labels):
                for chunk in self._stored(number, 0, len(names), checked=True):
                    for name, arrays in rest.items():
                        arrays.append(getattr(chunk, name))
                    yield chunk.images

        shape = (sum(map(len, self._labels)), *map_array(next(iter(self._parts.values())), "images").shape[1:])
        path = self.folder / PARTS / IMAGES
        write_atomically(path, lambda file: write_images(file, shape, blocks()), durable=True)
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        arrays = {name: np.concatenate(found) for name, found in rest.items()}
        settings = merge_settings([(len(a), b) for a, b in zip(self._labels, self._settings, strict=True)])
        result = Result(images=images, **arrays, labels=tuple(chain(*self._labels)), settings=settings)
        files = list(chain(*self._files))
        self._draw(files, images, names_in(self.folder))  # those that a killed run had no time for
        files = files if images.shape[-1] in PICTURES else [[] for _ in files]
        write_result(result, self.folder, files, images=path, run=self._digest)

    def _wait(self, ready: Callable[[], bool], patience: float = math.inf) -> None:
        """Wait for what other processes write."""
        start, pause = time.monotonic(), 0.05
        while not ready():
            failed = [name for name in names_in(self.folder / PARTS) if name.startswith(MARK)]
            if failed:
                who = failed[0].removeprefix(MARK)
                raise SaveError(f"Process {who} stopped before its units were finished. {HINT}")
            if time.monotonic() - start >= patience:
                raise SaveError(
                    f"Process {jax.process_index()} does not find in '{self.folder}' what it and the others wrote. "
                    "All need one folder, on a file system that they share, that nobody else changes."
                )
            time.sleep(pause)
            pause = min(2 * pause, 2.0)

    def _mark(self, process: int) -> Path:
        return self.folder / PARTS / f"{MARK}{process}"


def _rows(units: Unit, rows: range) -> Unit:
    return jax.tree.map(lambda leaf: leaf[rows.start : rows.stop], units)


def _is_sound(path: Path, key: tuple[int, int, int]) -> bool:
    try:
        return len(map_array(path, "images")) == key[2] - key[1]
    except Exception:  # a damaged zip raises many types
        return False
