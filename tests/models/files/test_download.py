"""Downloads against a server on this machine that misbehaves in every way a server can."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from jaxviz._errors import DownloadError
from jaxviz.models._files import checkpoint as _checkpoint
from jaxviz.models._files import download as _download
from jaxviz.models._zoo.registry import Weights

CONTENT = np.random.default_rng(0).bytes(300_000)
PREFIX = hashlib.sha256(CONTENT).hexdigest()[:8]


class Server(ThreadingHTTPServer):
    """Answers each request by the next of `script` (the last one stays), and records what was asked for."""

    daemon_threads = True

    def __init__(self, content: bytes, script: list[str]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.script = content, script
        self.ranges: list[str | None] = []
        self.released = threading.Event()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/net-{PREFIX}.pth"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format, *args):
        pass

    def do_GET(self):
        server = self.server
        how = server.script[min(len(server.ranges), len(server.script) - 1)]
        asked = self.headers.get("Range")
        server.ranges.append(asked)
        if how.isdigit():
            self.send_error(int(how))
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and how != "no ranges" else 0
        body = server.content[start:]
        if asked and how != "no ranges" and not body:
            self.send_error(416)
            return
        if how == "wrong":
            body = bytes(len(body))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        if how != "no length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if how == "half":
            body = body[: len(body) // 2]
        if how in ("hang", "drip"):
            self.wfile.write(body[:1000])
            self.wfile.flush()
            for _ in range(1200):
                if server.released.wait(0.05):
                    break
                if how == "drip":
                    self.wfile.write(b".")
                    self.wfile.flush()
            return
        self.wfile.write(body)


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers = []

    def start(*script: str, content: bytes = CONTENT) -> Server:
        servers.append(Server(content, list(script)))
        return servers[-1]

    yield start
    for server in servers:
        server.released.set()
        server.shutdown()
        server.server_close()


def get(server: Server, folder: Path, prefix: str = PREFIX, **options) -> Path:
    return _download.download(server.address, folder, prefix, **{"timeout": 5.0, "pause": 0.0, **options})


@pytest.mark.parametrize("how", ["ok", "no length"])
def test_plain_download_reports_progress(serve, tmp_path, how):
    seen = []
    path = get(serve(how), tmp_path / "new" / "folder", progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT) if how == "ok" else None)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_broken_connection_is_resumed(serve, tmp_path):
    server = serve("half", "ok")
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={len(CONTENT) // 2}-"]


def test_server_without_ranges_starts_again(serve, tmp_path):
    server = serve("half", "no ranges")
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert len(server.ranges) == 2


def test_next_call_continues_what_the_last_one_left(serve, tmp_path):
    broken = serve("half", "404")
    with pytest.raises(DownloadError, match="404"):
        get(broken, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [f"net-{PREFIX}.pth.part"]
    server = serve("ok")
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT) // 2}-"]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("left", [b"something else", CONTENT[:-1] + b"!", CONTENT + b"more", CONTENT])
def test_leftovers_never_end_up_in_the_file(serve, tmp_path, left):
    (tmp_path / f"net-{PREFIX}.pth.part").write_bytes(left)
    assert get(serve("ok"), tmp_path).read_bytes() == CONTENT
    assert len(list(tmp_path.iterdir())) == 1


def test_old_leftover_of_a_killed_process_is_adopted_a_fresh_one_is_not(serve, tmp_path):
    fresh, old = (tmp_path / f"net-{PREFIX}.pth.{n}.part" for n in ("fresh", "old"))
    fresh.write_bytes(CONTENT[:10])
    old.write_bytes(CONTENT[:20])
    os.utime(old, (1, 1))
    server = serve("ok")
    get(server, tmp_path)
    assert server.ranges == ["bytes=20-"]
    assert fresh.exists() and not old.exists()


def test_wrong_hash_is_refused_at_once_and_leaves_nothing(serve, tmp_path):
    server = serve("wrong")
    with pytest.raises(DownloadError, match=f"begins with [0-9a-f]{{8}}, not {PREFIX}"):
        get(server, tmp_path)
    assert len(server.ranges) == 1
    assert not list(tmp_path.iterdir())


def test_failing_server_is_tried_again_a_few_times(serve, tmp_path):
    server = serve("500", "503", "ok")
    assert get(server, tmp_path).read_bytes() == CONTENT
    down = serve("500")
    with pytest.raises(DownloadError, match=r"500 .*4 attempts"):
        get(down, tmp_path)
    assert len(down.ranges) == 4


def test_missing_file_is_not_tried_again_and_the_error_names_the_bundled_network(serve, tmp_path):
    server = serve("404")
    with pytest.raises(DownloadError, match=r"404.*jaxviz\.load\('resnet18-imagenette'\)"):
        get(server, tmp_path)
    assert len(server.ranges) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("how", ["hang", "drip"])
def test_dead_connection_times_out(serve, tmp_path, how):
    started = time.monotonic()
    with pytest.raises(DownloadError, match=r"broke off|only .* bytes came"):
        get(serve(how), tmp_path, timeout=0.15)
    assert time.monotonic() - started < 30


def test_no_server(tmp_path):
    with pytest.raises(DownloadError, match=r"no connection.*resnet18-imagenette"):
        _download.download(f"http://127.0.0.1:9/net-{PREFIX}.pth", tmp_path, PREFIX, pause=0.0)


def test_only_http(tmp_path):
    with pytest.raises(DownloadError, match="http or https"):
        _download.download("file:///etc/passwd", tmp_path, PREFIX)


def test_cache_that_cannot_be_written(serve, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="Cannot write to the cache folder"):
        get(serve("ok"), tmp_path / "file" / "cache")


def test_interrupt_keeps_what_has_come(serve, tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(serve("ok"), tmp_path, progress=interrupt)
    (part,) = tmp_path.iterdir()
    assert part.name == f"net-{PREFIX}.pth.part"
    assert CONTENT.startswith(part.read_bytes()) and part.stat().st_size > 0


def test_two_at_once_do_not_disturb_each_other(serve, tmp_path):
    (tmp_path / f"net-{PREFIX}.pth.part").write_bytes(CONTENT[:1000])
    server, results = serve("half", "half", "ok"), []
    threads = [threading.Thread(target=lambda: results.append(get(server, tmp_path).read_bytes())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [CONTENT] * 4


@pytest.fixture
def weights(tmp_path):
    """A tiny weight file of torch's, and a registry entry that has its hash."""
    torch = pytest.importorskip("torch")
    path = tmp_path / "source.pth"
    torch.save({"fc.weight": torch.arange(6.0).reshape(2, 3).t()}, path)
    content = path.read_bytes()
    return Weights("net", "V1", f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth", None), content


def fetch_from(server: Server, weights: Weights, cache: Path, monkeypatch):
    monkeypatch.setattr(Weights, "url", property(lambda self: server.address.rpartition("/")[0] + "/" + self.file))
    return _download.fetch(weights, cache=cache, timeout=5.0)


def test_fetch_converts_once_and_checks_the_cache(serve, weights, tmp_path, monkeypatch):
    entry, content = weights
    server, cache = serve("ok", content=content), tmp_path / "cache"
    expected = np.arange(6, dtype=np.float32).reshape(2, 3).T
    for _ in range(2):
        tensors, metadata = fetch_from(server, entry, cache, monkeypatch)
        np.testing.assert_array_equal(tensors["fc.weight"], expected)
        assert metadata["architecture"] == "net"
    assert len(server.ranges) == 1
    (cached,) = cache.iterdir()
    assert cached.name == entry.file.replace(".pth", ".safetensors")
    for damage in (lambda b: b[:-1], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b""):
        cached.write_bytes(damage(cached.read_bytes()))
        tensors, _ = fetch_from(server, entry, cache, monkeypatch)
        np.testing.assert_array_equal(tensors["fc.weight"], expected)
    assert len(server.ranges) == 4
    assert list(cache.iterdir()) == [cached]


def test_fetch_does_not_take_another_file_of_the_same_name(serve, weights, tmp_path, monkeypatch):
    entry, content = weights
    cache = tmp_path / "cache"
    cache.mkdir()
    other = {"fc.weight": np.ones((3, 2), np.float32)}
    _checkpoint.write(cache / entry.file.replace(".pth", ".safetensors"), other, {"source": "elsewhere"})
    tensors, _ = fetch_from(serve("ok", content=content), entry, cache, monkeypatch)
    assert tensors["fc.weight"][2, 1] == 5


def test_fetch_that_fails_leaves_no_weights(serve, weights, tmp_path, monkeypatch):
    entry, content = weights
    bad = dataclasses.replace(entry, file="net-00000000.pth")
    with pytest.raises(DownloadError):
        fetch_from(serve("ok", content=content), bad, tmp_path / "cache", monkeypatch)
    assert not list((tmp_path / "cache").iterdir())


def test_default_cache_is_the_users():
    folder = _download.cache_folder()
    assert "jaxviz" in folder.parts and _download.cache_folder("here") == Path("here")
