"""The folder of a run: its settings, its lock and its files, so that a run that stopped in any way continues.

run.json         what is run: kind and settings, their digest, versions, the names of the run's files
.jaxviz.lock     while a process has the folder open: its host and number
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Any, Self

from jaxviz._atomic import names_in, remove_matching, sweep, temporary_stem, write_atomically
from jaxviz._errors import SaveError
from jaxviz._fingerprint import differences, digest
from jaxviz._lock import FolderLock
from jaxviz._result_files import ADVICE, RUN, failures, jsonable, read_json, refuse_existing, save_error, versions, write_json
from jaxviz._types import StrPath

GRACE = 2.0  # seconds that a killed process may take to let go of its lock
HINT = "What is finished is kept: the same call again continues."
_LISTED = 6  # differing settings that a message names
_SUFFIXES = (".png", ".npz", ".npy", ".json", ".html", ".js")  # of the files that a record may name for removal


def _no_files(folder: Path) -> Iterable[str]:
    return ()


@dataclass(frozen=True)
class RunKind:
    """What the runs of one command have in common.

    Attributes:
        name: of the command, such as `"embed"`.
        format: changes when older files can no longer be continued.
        folders: folders of the run's files: for each a pattern of their paths in it.
        older: called with the folder; names of files of an older result that no run recorded. `overwrite` removes them.
        replaces_unknown: whether `overwrite` may replace files in a folder that holds no run.
    """

    name: str
    format: int
    folders: Mapping[str, str] = field(default_factory=dict[str, str])
    older: Callable[[Path], Iterable[str]] = _no_files
    replaces_unknown: bool = True


class RunFolder:
    """The folder of one run, open in one process at a time.

    Opening it locks the folder, refuses another run or files of others, removes what killed writes left, and records the
    settings. A run of other settings that has not finished anything is replaced. A folder that cannot be written can be
    opened where it holds this run, to read what is finished. Closing removes the record of a run that has finished nothing.

    Args:
        folder: made where it is missing. A relative path counts from the working directory of now.
        kind: of the run.
        settings: all that decides what the run computes, anything `jsonable` takes.
        files: names of the files that the run writes directly in the folder; first the one that marks a result as whole.
        more: further entries for the record, such as what people want to know.
        overwrite: remove a run or result that the folder holds.

    Example:
        >>> from jaxviz._run_folder import RunFolder, RunKind
        >>> kind = RunKind("example", 1, {"parts": r"[0-9]+[.]txt"})
        >>> with RunFolder("out", kind, {"seed": 0}, ["all.npz"]) as run:
        ...     path = run.write("parts/0.txt", lambda file: file.write(b"finished"))
    """

    def __init__(
        self,
        folder: StrPath,
        kind: RunKind,
        settings: Mapping[str, Any],
        files: Sequence[str],
        *,
        more: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(folder).absolute()
        self.kind = kind
        self.identity: dict[str, Any] = json.loads(json.dumps({"kind": kind.name, "format": kind.format, **jsonable(settings)}))
        self.digest = digest(self.identity)
        self.previous: Mapping[str, Any] | None = None  # the record of this run that was there before
        self._files, self._more, self._overwrite = list(files), dict(more or {}), overwrite
        self._lock = FolderLock(self.path)
        self._made: list[Path] = []  # folders, the inner ones first
        self._is_recorded = False  # whether the record is new
        self._problem: SaveError | None = None  # why the folder cannot be written

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def open(self, *, wait: float = GRACE) -> None:
        """Lock the folder and make it ready for this run.

        Args:
            wait: seconds to wait for another process that has the folder open, at most.

        Raises:
            SaveError: another process has it, it holds another run or files of others, or it cannot be written.
        """
        try:
            self._make()
            self._lock.acquire(wait)
            with tempfile.TemporaryFile(dir=self.path):
                pass  # a folder that cannot be written is reported now, not after an hour
        except OSError as error:
            self.close(keep=True)
            self._problem = save_error(self.path, error)
            self.previous = self.record()
            if self._overwrite or self.previous is None or self.previous.get("identity") != self.identity:
                raise self._problem from error
            return
        try:
            with failures(self.path):
                self._prepare()
        except BaseException:
            self.close(keep=True)
            raise

    @property
    def is_writable(self) -> bool:
        """Whether files can be written: False where the folder was opened to read what is finished."""
        return self._problem is None

    def require_writable(self) -> None:
        """Raise the `SaveError` that says why the folder cannot be written, if it cannot."""
        if self._problem is not None:
            raise self._problem

    def write(self, name: str, fill: Callable[[IO[bytes]], object]) -> Path:
        """Write a file of the run in one step, and wait until the disk has it.

        Args:
            name: relative to the folder.
            fill: called with the open binary file.

        Raises:
            SaveError: the disk is full, or the folder cannot be written.
        """
        self.require_writable()
        with failures(self.path, HINT):
            return write_atomically(self.path / name, fill, durable=True)

    def record(self) -> Mapping[str, Any] | None:
        """Return what `run.json` holds now, or None."""
        record = read_json(self.path / RUN)
        return record if isinstance(record, dict) else None

    def update(self, more: Mapping[str, Any]) -> None:
        """Write the record anew, with other further entries."""
        self._more = dict(more)
        self.require_writable()
        with failures(self.path, HINT):
            self._write_record()

    def check(self, record: Mapping[str, Any] | None) -> None:
        """Refuse the record of another run.

        Raises:
            SaveError: it differs; the message names the settings that do.
        """
        identity = record.get("identity") if record is not None else None
        if not isinstance(identity, dict) or identity.get("kind") != self.kind.name:
            raise SaveError(f"The folder '{self.path}' holds a run of another command ({RUN}): choose another.")
        if identity != self.identity:
            names = list(differences(identity, self.identity))
            listed = "; ".join(names[:_LISTED]) + ("; ..." if len(names) > _LISTED else "")
            raise SaveError(f"The folder '{self.path}' holds a run with other settings ({listed}): {ADVICE}.")

    def close(self, *, keep: bool = False) -> None:
        """Free the lock; `keep` the record of a run that has finished nothing."""
        if self._is_recorded and not keep and not self._has_work(self._files):
            with suppress(OSError):
                self._remove(())
        self._is_recorded = False
        self._lock.release()
        for folder in self._made:
            with suppress(OSError):  # not empty
                folder.rmdir()
        self._made = []

    def _make(self) -> None:
        self._made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        self.path.mkdir(parents=True, exist_ok=True)

    def _prepare(self) -> None:
        record = self.record()
        if record is None:
            self._prepare_unknown()
        else:
            identity = record.get("identity")
            is_other = identity != self.identity
            is_ours = isinstance(identity, dict) and identity.get("kind") == self.kind.name
            if is_ours and (self._overwrite or (is_other and not self._has_work(_files_of(record)))):
                self._remove(_files_of(record))
                record = None
            else:
                self.check(record)
        self.previous = record
        self._sweep()
        if record is None:
            self._write_record()
            self._is_recorded = True

    def _prepare_unknown(self) -> None:
        """Refuse files of others in a folder without a record, or remove what may be replaced."""
        names = [*self._files[:1], RUN, *self._files[1:], *self.kind.folders]
        if not self._overwrite:
            refuse_existing(self.path, names)
        elif self.kind.replaces_unknown:
            self._remove(self.kind.older(self.path))
        elif taken := [name for name in names if name in names_in(self.path)]:
            raise SaveError(f"The folder '{self.path}' holds files of others ('{taken[0]}'): choose another.")

    def _write_record(self) -> None:
        about = {"versions": versions(), "digest": self.digest, "identity": self.identity}
        write_json(self.path / RUN, {**about, **self._more, "files": self._files}, durable=True)

    def _has_work(self, files: Sequence[str]) -> bool:
        """Whether anything of a run is there that would have to be computed again."""
        present = names_in(self.path)
        if any(name in present for name in files):
            return True
        paths = chain.from_iterable((self.path / name).rglob("*") for name in self.kind.folders)
        return any(path.is_file() for path in paths)

    def _remove(self, files: Iterable[str]) -> None:
        """Remove a run: first what would make a rest of it pass for whole, last its record."""
        for name in dict.fromkeys((*self._files, *files)):
            (self.path / name).unlink(missing_ok=True)
        for name, pattern in self.kind.folders.items():
            remove_matching(self.path / name, pattern)
        (self.path / RUN).unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove the temporary files of killed writes."""
        sweep(self.path, {temporary_stem(name) for name in (RUN, *self._files)})
        for name in self.kind.folders:
            for top in _folders_of(self.path / name):
                sweep(top)


def _files_of(record: Mapping[str, Any]) -> list[str]:
    """Return the names that a record lists: plain ones with the endings of a run's files, whatever it says."""
    listed = record.get("files")
    names = listed if isinstance(listed, list) else []
    return [name for name in names if isinstance(name, str) and name == Path(name).name and name.endswith(_SUFFIXES)]


def _folders_of(folder: Path) -> Iterator[Path]:
    yield from (Path(top) for top, _, _ in os.walk(folder))
