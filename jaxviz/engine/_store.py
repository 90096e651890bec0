"""A run of `visualize` in a folder: every finished chunk is kept, so that a run that stopped in any way continues."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import accumulate, chain
from types import TracebackType
from typing import Any

import jax
import numpy as np

from jaxviz._atomic import DamagedFile, names_in, reading, write_atomically
from jaxviz._errors import SaveError
from jaxviz._file_names import FileNames, picture_names
from jaxviz._fingerprint import digest
from jaxviz._result_files import (
    ADVICE,
    ARRAYS,
    FORMAT,
    IMAGES,
    PART_FILES,
    PARTS,
    PICTURES,
    RECORD,
    SHEET,
    failures,
    old_files,
    remove_run,
    write_images,
    write_png,
)
from jaxviz._run_folder import HINT, RunFolder, RunKind
from jaxviz._types import StrPath
from jaxviz.engine._ascent import Unit
from jaxviz.engine._execute import Chunk, Stage
from jaxviz.engine._parts import Parts
from jaxviz.engine._processes import PATIENCE, is_alone, mark_failed, prepare_together, share, wait_for
from jaxviz.image import to_pillow
from jaxviz.result import Arrays, Result, join_arrays, load_result, make_result, merge_settings, write_result

WAITING = 2  # chunks at most that wait for the disk while the next one is computed
KIND = RunKind("visualize", FORMAT, {PARTS: PART_FILES}, older=partial(old_files, records=(RECORD,)))


class Store:
    """The folder of one run of some objectives, each of some units.

    While it runs, the folder holds `run.json`, a file in `parts` for each finished chunk and the pictures; in the end a
    saved `Result` in place of the parts. One thread writes while the next chunk is computed; its errors surface in the
    caller. Of several processes (`jax.distributed`), process 0 holds the folder; each computes and writes its share of
    every objective's units, and process 0 puts the parts together when all are there.

    Args:
        folder: made where it is missing.
        identity: all that decides what the images are; chunks and devices are no part of it.
        labels: the names of the units of each objective.
        settings: for people, of each objective.
        samples: images a unit.
        overwrite: remove another run or result from the folder.

    Raises:
        SaveError: the folder cannot be written, is in use, or holds another run or result.
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
        units = [f"{len(names)} units, {names[0]} to {names[-1]}, {digest(names)}" for names in labels]
        self._labels, self._settings = labels, settings
        names = FileNames()
        self._files = [picture_names(units, samples, names) for units in labels]
        files = [ARRAYS, *chain(*chain(*self._files)), SHEET, IMAGES, RECORD]
        self._run = RunFolder(folder, KIND, {"units": units, **identity}, files, overwrite=overwrite)
        self.folder = self._run.path
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="jaxviz-store")
        self._pending: deque[Future[None]] = deque()
        prepare_together(self.folder, self._prepare)
        if jax.process_index() != 0:
            wait_for(self.folder, lambda: self._run.record() is not None, PATIENCE)
            self._run.check(self._run.record())
        self._parts = Parts(self._run, list(map(len, labels)))

    @property
    def is_finished(self) -> bool:
        """Whether the folder holds the result of this very run."""
        return self._result_digest() == self._run.digest

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
        mine, done = share(number, len(self._labels[number])), self._parts.done(number)
        at = mine.start
        if not done[mine.start : mine.stop].all():
            part = [replace(stage, units=_rows(stage.units, mine)) for stage in stages]
            for chunk in engine(part, skip=lambda a, b: bool(done[mine.start + a : mine.start + b].all())):
                chunk = replace(chunk, first=mine.start + chunk.first)
                yield from self._parts.read(number, at, chunk.first)
                at = chunk.stop
                self._submit(number, chunk)
                yield chunk
        yield from self._parts.read(number, at, mine.stop)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            mark_failed(self.folder, error)
        try:
            self._write_all()
        finally:
            self._run.close(keep=not is_alone())

    def finish(self) -> None:
        """Put the parts together to the result, once all processes have written theirs."""
        self._write_all()
        with failures(self.folder, HINT):
            if jax.process_index() == 0:
                wait_for(self.folder, self._is_complete, 0.0 if is_alone() else math.inf)
                self._assemble()
                remove_run(self.folder)
            else:
                wait_for(self.folder, lambda: self.is_finished)

    def _prepare(self) -> None:
        """Open the folder; where it holds the finished result, let go of it at once."""
        self._run.open()
        try:
            with failures(self.folder):
                if self.is_finished:
                    if self._run.is_writable:  # and was killed before the parts were removed
                        remove_run(self.folder)
                    self._run.close()
                    return
                self._run.require_writable()
                if self._result_digest() is not None:
                    raise SaveError(f"The folder '{self.folder}' holds another result already: {ADVICE}.")
        except BaseException:
            self._run.close()
            raise

    def _result_digest(self) -> str | None:
        """Return the digest of the run whose result is in the folder, "" for a result of no run, None where none is."""
        path = self.folder / ARRAYS
        if not path.is_file() or not (self.folder / IMAGES).is_file():
            return None
        try:
            with reading(path), np.load(path, allow_pickle=False) as arrays:
                return str(json.loads(str(arrays["about"])).get("run", ""))
        except DamagedFile:
            return ""

    def _is_complete(self) -> bool:
        self._parts.refresh()
        return self._parts.is_complete

    def _submit(self, number: int, chunk: Chunk) -> None:
        while self._pending and (len(self._pending) >= WAITING or self._pending[0].done()):
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._write, number, chunk))

    def _write_all(self) -> None:
        """Wait until all that was computed is on disk."""
        try:
            while self._pending:
                self._pending.popleft().result()
        finally:
            self._pool.shutdown()

    def _write(self, number: int, chunk: Chunk) -> None:
        """Write the arrays of a chunk, by which it counts as finished, then its pictures."""
        self._parts.write(number, chunk)
        with failures(self.folder, HINT):
            self._draw(self._files[number][chunk.first : chunk.stop], chunk.arrays.images)

    def _draw(self, files: Sequence[Sequence[str]], images: np.ndarray, present: Container[str] = ()) -> None:
        for names, group in zip(files, images, strict=True):
            if group.shape[-1] in PICTURES:
                for name, image in zip(names, group, strict=True):
                    if name not in present:
                        write_png(self.folder / name, to_pillow(image))

    def _assemble(self) -> None:
        """Write the images of all parts as one array, a part at a time, and with it the rest of the result."""
        parts: list[Arrays] = []  # without their images, which go to the disk a part at a time

        def blocks() -> Iterator[np.ndarray]:
            for number, names in enumerate(self._labels):
                for chunk in self._parts.read(number, 0, len(names), checked=True):
                    parts.append(chunk.arrays._replace(images=np.zeros(0)))
                    yield chunk.arrays.images

        shape = (sum(map(len, self._labels)), *self._parts.image_shape)
        path = self.folder / PARTS / IMAGES
        write_atomically(path, lambda file: write_images(file, shape, blocks()), durable=True)
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        settings = merge_settings([(len(a), b) for a, b in zip(self._labels, self._settings, strict=True)])
        result = make_result(join_arrays(parts)._replace(images=images), list(chain(*self._labels)), settings)
        files = list(chain(*self._files))
        self._draw(files, images, names_in(self.folder))  # those that a killed run had no time for
        files = files if images.shape[-1] in PICTURES else [[] for _ in files]
        write_result(result, self.folder, files, images=path, run=self._run.digest)


def _rows(units: Unit, rows: range) -> Unit:
    return jax.tree.map(lambda leaf: leaf[rows.start : rows.stop], units)
