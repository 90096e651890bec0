"""Downloading weights: resumed, checked against their hash, converted once; the cache only ever holds whole files."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO

import numpy as np
import platformdirs

from jaxviz._errors import CheckpointError, DownloadError
from jaxviz._types import StrPath
from jaxviz.models._files import checkpoint as _checkpoint
from jaxviz.models._zoo.registry import BUNDLED, Weights

Progress = Callable[[int, int | None], None]
"""Called with the bytes received so far and the total, or None where the server does not say."""

_BLOCK = 2**18
_ATTEMPTS = 4
_ORPHANED = 3600.0  # seconds without a write, after which a temporary file is nobody's any more
_SLOWEST = 1024.0  # bytes a second, over twice the timeout; below that the connection counts as dead


class _Retry(Exception):
    """A failure that another attempt may cure."""


def cache_folder(cache: StrPath | None = None) -> Path:
    """Return the folder of downloaded weights: `cache`, or the user's cache folder of this operating system."""
    return Path(cache) if cache is not None else Path(platformdirs.user_cache_dir("jaxviz")) / "weights"


def fetch(
    weights: Weights, *, cache: StrPath | None = None, progress: Progress | None = None, timeout: float = 30.0
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the tensors of some of torchvision's weights, from the cache or else from torchvision's server.

    The `.pth` file is downloaded under a temporary name, checked against its hash, converted to `.safetensors` (same
    names and layouts) and deleted. A cached file carries a checksum of its data that is checked each time; a damaged one
    is downloaded anew. Several processes may do this at once: whoever finishes last replaces an equal file.

    Args:
        weights: an entry of the registry.
        cache: folder; the user's cache folder unless given.
        progress: called as the bytes arrive.
        timeout: seconds without any data after which a connection counts as dead.

    Returns:
        The tensors by torchvision's name, and the metadata of the cached file.

    Raises:
        DownloadError: no network, wrong hash, the cache cannot be written, ...; names the network that needs no
            download.
    """
    folder = cache_folder(cache)
    cached = folder / f"{Path(weights.file).stem}.safetensors"
    if cached.is_file():
        with contextlib.suppress(CheckpointError):
            tensors, metadata = _checkpoint.read(cached)
            if metadata.get("source") == weights.url and _checkpoint.CRC in metadata:
                return tensors, metadata
    source = download(weights.url, folder, weights.hash_prefix, progress=progress, timeout=timeout)
    try:
        tensors, _ = _checkpoint.read(source)
        metadata = {"source": weights.url, "architecture": weights.architecture, "weights": weights.name}
        with _disk_errors(folder):
            _checkpoint.write(cached, tensors, metadata)
    finally:
        source.unlink(missing_ok=True)
    return tensors, metadata


def download(
    url: str,
    folder: StrPath,
    hash_prefix: str,
    *,
    progress: Progress | None = None,
    timeout: float = 30.0,
    pause: float = 1.0,
) -> Path:
    """Download a file under a temporary name of its own and check its hash.

    An interrupted download leaves `<name>.part`, which the next one continues. A failing server or connection is tried
    again a few times, a missing file (404) is not.

    Args:
        url: http or https.
        folder: where to put the file; made if necessary.
        hash_prefix: the first hexadecimal digits of the SHA-256 of the content.
        progress: called as the bytes arrive.
        timeout: seconds without any data after which a connection counts as dead.
        pause: seconds before the second attempt; doubled for each further one.

    Returns:
        The path of the whole and checked file, of which the caller disposes.

    Raises:
        DownloadError: as in `fetch`.
    """
    if not url.startswith(("https://", "http://")):
        raise DownloadError(f"Expected an http or https address; got {url!r}.")
    folder = Path(folder)
    name = url.rpartition("/")[2]
    with _disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        own = _claim(folder, name)
    kept, reason = False, ""
    try:
        for attempt in range(_ATTEMPTS):
            try:
                resumed = own.stat().st_size
                with _disk_errors(folder):
                    _transfer(url, own, progress, timeout)
                digest = _sha256(own)
                if digest.startswith(hash_prefix):
                    kept = True
                    return own
                own.write_bytes(b"")  # nothing of it can be trusted
                reason = f"the SHA-256 of the content begins with {digest[: len(hash_prefix)]}, not {hash_prefix}"
                if not resumed:
                    raise DownloadError(_message(url, reason))
            except _Retry as failure:
                reason = str(failure)
            if attempt + 1 < _ATTEMPTS:
                time.sleep(pause * 2**attempt)
        raise DownloadError(_message(url, f"{reason} ({_ATTEMPTS} attempts)"))
    finally:
        if not kept:  # leave what has come for the next attempt, under the name it will look for
            with contextlib.suppress(OSError):
                if own.stat().st_size:
                    own.replace(folder / f"{name}.part")
                else:
                    own.unlink()


def _claim(folder: Path, name: str) -> Path:
    """Make a temporary file that only this call writes to, out of an interrupted download where there is one.

    Renaming is atomic, so that of two processes only one gets what was left behind; the other starts from nothing.
    """
    own = folder / f"{name}.{uuid.uuid4().hex}.part"
    orphans = [folder / f"{name}.part"]
    for other in folder.glob(f"{name}.*.part"):  # of processes that were killed
        with contextlib.suppress(OSError):
            if time.time() - other.stat().st_mtime > _ORPHANED:
                orphans.append(other)
    for orphan in orphans:
        with contextlib.suppress(OSError):
            if own.exists():
                orphan.unlink()
            else:
                orphan.rename(own)
                os.utime(own)
    own.touch()
    return own


def _transfer(url: str, path: Path, progress: Progress | None, timeout: float) -> None:
    """Bring the file to its full length, continuing where it ends; _Retry where the connection does not hold."""
    start = path.stat().st_size
    request = urllib.request.Request(url, headers={"User-Agent": "jaxviz", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the part is as long as the file, or longer: it may be whole, which the hash will tell
            return
        if error.code >= 500 or error.code in (408, 429):
            raise _Retry(f"the server answered {error.code} {error.reason}") from error
        raise DownloadError(_message(url, f"the server answered {error.code} {error.reason}")) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, (TimeoutError, ConnectionResetError)):
            raise _Retry(f"no connection: {error.reason}") from error
        raise DownloadError(_message(url, f"no connection: {error.reason}")) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Retry(f"no connection: {type(error).__name__} {error}".rstrip()) from error
    with response:
        if start and not _continues(response, start):
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length is not None and length.isdigit() else None
        if total is not None and shutil.disk_usage(path.parent).free < total - start:
            raise DownloadError(_message(url, f"{path.parent} has no room for its {total / 2**20:.0f} MiB"))
        with path.open("r+b") as file:
            file.truncate(start)
            file.seek(start)
            received = _copy(response, file, start, total, progress, timeout)
    if total is not None and received != total:
        raise _Retry(f"the connection broke off after {received} of {total} bytes")


def _continues(response: http.client.HTTPResponse, start: int) -> bool:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return response.status == 206 and found is not None and int(found[1]) == start


def _copy(
    response: http.client.HTTPResponse,
    file: IO[bytes],
    done: int,
    total: int | None,
    progress: Progress | None,
    timeout: float,
) -> int:
    window, window_start = 0, time.monotonic()
    while True:
        try:
            block = response.read1(_BLOCK)  # returns what has come; `read` would wait for the whole block
        except (OSError, http.client.HTTPException) as error:
            raise _Retry(f"the connection broke off: {type(error).__name__} {error}".rstrip()) from error
        if not block:
            return done
        file.write(block)
        done += len(block)
        window += len(block)
        if progress is not None:
            progress(done, total)
        elapsed = time.monotonic() - window_start
        if elapsed > 2 * timeout:
            if window < _SLOWEST * elapsed:
                raise _Retry(f"only {window} bytes came in {elapsed:.0f} s")
            window, window_start = 0, time.monotonic()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Generator[None]:
    try:
        yield
    except (OSError, CheckpointError) as error:
        raise DownloadError(
            f"Cannot write to the cache folder {folder}: {error}. Free some space there, or pass another folder as `cache`."
        ) from error


def _message(url: str, reason: str) -> str:
    return (
        f"Could not download {url}: {reason}. Where there is no network, bring the file here by other means and pass its "
        f"path as `weights`, or use the network that needs no download: jaxviz.load({BUNDLED!r})."
    )
