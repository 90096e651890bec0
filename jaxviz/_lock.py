"""The lock of a folder: one process at a time, freed by the kernel when that process ends in whatever way."""

from __future__ import annotations

import errno
import json
import os
import socket
import warnings
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from jaxviz._errors import SaveError

LOCK = ".jaxviz.lock"
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class FolderLock:
    """A lock on a folder, kept in a file that names its holder's host and process and is removed with the lock.

    A file that a killed process left behind holds nothing: the lock is the kernel's, the file only carries it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._lock = FileLock(self._path, thread_local=False, fallback_to_soft=False)

    def acquire(self, wait: float) -> None:
        """Take the lock.

        Args:
            wait: seconds to wait for another process, at most.

        Raises:
            SaveError: another process has it; the message names it.
            OSError: the folder cannot be written.
        """
        try:
            self._lock.acquire(timeout=wait)
        except Timeout:
            raise SaveError(f"The folder '{self._path.parent}' is in use by {self._holder()}.") from None
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
            text = f"The file system of '{self._path.parent}' has no locks: run one process at a time there."
            warnings.warn(text, stacklevel=2)
            return
        with self._path.open("r+b") as file:
            file.seek(1)  # Windows lets nobody else read the first byte of a locked file
            file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
            file.truncate()

    def release(self) -> None:
        """Remove the file, then free the lock; who waits for it notices that the file is another one, and takes that."""
        if self._lock.is_locked:
            with suppress(OSError):
                self._path.unlink()
            self._lock.release()

    def _holder(self) -> str:
        try:
            with self._path.open("rb") as file:
                file.seek(1)
                holder = json.loads(file.read(4096))
            host, pid = str(holder["host"]), int(holder["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"
        if (host, pid) == (socket.gethostname(), os.getpid()):
            return f"this very process ({pid} on {host}): close its other run first, such as an iterator that was left"
        return f"process {pid} on {host}: wait until it has ended, or choose another folder"
