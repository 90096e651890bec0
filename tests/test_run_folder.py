"""The folder of a run: one process at a time, one run, nothing lost and nothing in the way, whatever stopped it."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from jaxviz import SaveError
from jaxviz._lock import LOCK
from jaxviz._run_folder import RunFolder, RunKind

ROOT = Path(__file__).parents[1]
KIND = RunKind("test", 1, {"parts": r"\d+\.txt", "deep": r"[^/]+/data"})
FILES = ("all.npz", "all.json")
KILLS, PARTS = 21, 30


def folder(out: Path, seed: int = 0, kind: RunKind = KIND, **options: Any) -> RunFolder:
    return RunFolder(out, kind, {"seed": seed, "size": (2, 3)}, FILES, **options)


def begun(out: Path, name: str = "parts/0.txt", **options: Any) -> None:
    with folder(out, **options) as run:
        run.write(name, lambda file: file.write(b"work"))


def names(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


def test_the_record_says_what_is_run(tmp_path: Path) -> None:
    begun(tmp_path / "out", more={"people": "read this"})
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["identity"] == {"kind": "test", "format": 1, "seed": 0, "size": [2, 3]}
    assert record["files"] == list(FILES) and record["people"] == "read this" and "jax" in record["versions"]
    with folder(tmp_path / "out") as run:
        assert run.previous == record and record["digest"] == run.digest and run.is_writable
    assert names(tmp_path / "out") == {"run.json", "parts/0.txt"}, "the lock is gone with the process that had it"


@pytest.mark.parametrize("work", ["all.npz", "parts/0.txt", "deep/a/data"])
def test_another_run_is_refused_and_its_settings_named(tmp_path: Path, work: str) -> None:
    begun(tmp_path, work)
    before = names(tmp_path)
    with pytest.raises(SaveError, match=r"other settings \(seed is 0 there and 1 here\): .*overwrite"):
        folder(tmp_path, seed=1).open()
    other = RunKind("other", 1)
    for overwrite in (False, True):
        with pytest.raises(SaveError, match="another command"):
            folder(tmp_path, kind=other, overwrite=overwrite).open()
    assert names(tmp_path) == before
    begun(tmp_path, work)  # the same run, on the same files


def test_a_run_that_has_finished_nothing_refuses_nobody(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with pytest.raises(RuntimeError), folder(out):
        raise RuntimeError("too large")
    assert not (tmp_path / "deep").exists(), "a start that failed leaves nothing"
    (tmp_path / "out").mkdir()
    run = folder(tmp_path / "out")
    run.open()
    run.close(keep=True)  # as a killed process leaves it
    assert names(tmp_path / "out") == {"run.json"}
    begun(tmp_path / "out", seed=1)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["identity"]["seed"] == 1


def test_overwrite_removes_what_is_the_runs_and_no_more(tmp_path: Path) -> None:
    begun(tmp_path)
    for name in ("mine.txt", "parts/mine.txt", "deep/a/data", "deep/a/mine", "deep/b/data", "all.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    with folder(tmp_path, seed=1, overwrite=True) as run:
        assert run.previous is None
        assert names(tmp_path) == {"mine.txt", "parts/mine.txt", "deep/a/mine", "run.json", LOCK}
        assert not (tmp_path / "deep" / "b").exists()
        run.write("all.npz", lambda file: file.write(b"result"))
    record = json.loads((tmp_path / "run.json").read_text())
    record["files"] = ["../above.npz", "notes.txt", "old.png", 3]  # names that a record may not have removed, and one it may
    (tmp_path / "run.json").write_text(json.dumps(record))
    for path in (tmp_path.parent / "above.npz", tmp_path / "notes.txt", tmp_path / "old.png"):
        path.write_text("")
    with folder(tmp_path, overwrite=True):
        assert (tmp_path.parent / "above.npz").exists() and (tmp_path / "notes.txt").exists()
        assert not (tmp_path / "old.png").exists() and not (tmp_path / "all.npz").exists()


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "0.txt").write_text("")
    begun(tmp_path / "out", "all.npz")
    (tmp_path / "out" / "parts").symlink_to(tmp_path / "else", target_is_directory=True)
    with folder(tmp_path / "out", overwrite=True):
        assert (tmp_path / "else" / "0.txt").exists() and not (tmp_path / "out" / "parts").exists()


@pytest.mark.parametrize("name", ["all.npz", "all.json", "parts/0.txt", "run.json"])
def test_files_of_others_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("[" * 100_000)  # a record that is nested too deeply is none
    with pytest.raises(SaveError, match=r"already|unfinished"):
        folder(tmp_path).open()
    strict = RunKind("test", 1, KIND.folders, replaces_unknown=False)
    with pytest.raises(SaveError, match="files of others"):
        folder(tmp_path, kind=strict, overwrite=True).open()
    assert (tmp_path / name).exists()
    with folder(tmp_path, overwrite=True):
        assert names(tmp_path) == {"run.json", LOCK}


def test_temporary_files_of_killed_writes_are_swept(tmp_path: Path) -> None:
    begun(tmp_path)
    left = [".all.npz.a1b2c3d4", ".run.json.a1b2c3d4", "parts/.1.txt.a1b2c3d4", "deep/a/.data.a1b2c3d4"]
    kept = [".mine.png.a1b2c3d4", ".all.npz", "parts/.mine"]
    for name in left + kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("half")
    (tmp_path / ".all.npz.abcdefgh").mkdir()
    with folder(tmp_path):
        assert names(tmp_path) == {"run.json", "parts/0.txt", LOCK, *kept}
        assert not (tmp_path / ".all.npz.abcdefgh").exists()


def test_a_relative_folder_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = folder(Path("out"))
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    with run:
        run.write("all.npz", lambda file: file.write(b""))
    assert names(tmp_path) == {"out/run.json", "out/all.npz"}


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(tmp_path / "out", "all.npz")

    def refuse(**options: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", refuse)
        with folder(tmp_path / "out") as run:  # the very run may be read
            assert run.previous and not run.is_writable
            with pytest.raises(SaveError, match=r"Read-only.*"):
                run.write("all.npz", lambda file: None)
        for options in ({"seed": 1}, {"overwrite": True}):
            with pytest.raises(SaveError, match="Read-only"):
                folder(tmp_path / "out", **options).open()
        with pytest.raises(SaveError, match="Read-only"):
            folder(tmp_path / "new").open()
    assert names(tmp_path) == {"out/run.json", "out/all.npz"}
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SaveError, match=str(path)):
            folder(path).open()


def test_a_full_disk_says_that_the_rest_is_kept(tmp_path: Path) -> None:
    def full(file: Any) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    begun(tmp_path)
    with folder(tmp_path) as run, pytest.raises(SaveError, match=r"No space left on device\. What is finished is kept"):
        run.write("parts/1.txt", full)
    assert names(tmp_path) == {"run.json", "parts/0.txt"}


def test_one_run_at_a_time_in_one_process(tmp_path: Path) -> None:
    with folder(tmp_path) as run:
        with pytest.raises(SaveError, match=rf"in use by this very process \({os.getpid()} on .*close its other run"):
            folder(tmp_path).open(wait=0)
        run.write("all.npz", lambda file: file.write(b"of the first"))
    assert names(tmp_path) == {"run.json", "all.npz"}
    begun(tmp_path)


HOLDER = """
import sys
from tests.test_run_folder import folder
run = folder(sys.argv[1])
run.open()
run.write("parts/0.txt", lambda file: file.write(b"work"))
print("open", flush=True)
sys.stdin.readline()
run.close()
"""


def holder(out: Path) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(out)], cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None and process.stdout.readline() == "open\n"
    return process


@pytest.mark.once
def test_another_process_is_named_waited_for_and_survived(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = holder(out)
    try:
        before = names(out)
        for options in ({}, {"seed": 1, "overwrite": True}):
            with pytest.raises(SaveError, match=rf"in use by process {process.pid} on .*wait until it has ended"):
                folder(out, **options).open(wait=0)
        assert names(out) == before, "nothing of the other's was touched"
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        with folder(out) as run:  # waits
            assert run.previous
        process.wait(30)
    finally:
        process.kill()
        process.communicate()
    process = holder(out)
    process.send_signal(signal.SIGKILL)
    with folder(out) as run:  # at once: the kernel has freed the lock
        assert run.previous
    process.communicate()
    assert names(out) == {"run.json", "parts/0.txt"}


def count_to(out: str, count: int, begins: Any = None) -> None:
    """A run of many small parts and a result, as every command has it; it sets the event before it opens the folder."""
    if begins is not None:
        begins.set()
    with folder(Path(out)) as run:
        done = {int(path.stem) for path in (run.path / "parts").glob("[0-9]*.txt")}
        for number in range(count):
            if number not in done:
                run.write(f"parts/{number}.txt", lambda file, number=number: file.write(b"%d\n" % number))
        parts = [(run.path / "parts" / f"{number}.txt").read_text() for number in range(count)]
        run.write("all.npz", lambda file: file.write("".join(parts).encode()))


@pytest.mark.once
def test_killed_at_any_moment_it_continues(tmp_path: Path) -> None:
    """SIGKILL at seeded moments: while the folder is opened, while parts are written and while they are put together."""
    out, moments = tmp_path / "out", random.Random(0)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.test_run_folder"])  # imports once, for all

    def parts() -> int:
        return len(list((out / "parts").glob("[0-9]*.txt")))

    kept = [0]
    for number in range(KILLS):
        begins = context.Event()
        process = context.Process(target=count_to, args=(str(out), PARTS, begins))
        process.start()
        assert begins.wait(60)
        deadline = time.monotonic() + 60
        while number % 2 and parts() < min(kept[-1] + number % 4, PARTS) and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.0005)  # until it is ahead by one or three
        time.sleep(moments.uniform(0, 0.02))
        process.kill()
        process.join()
        kept.append(parts())
    assert kept == sorted(kept) and kept[-1] > PARTS // 2, f"nothing that was finished is lost: {kept}"
    count_to(str(out), PARTS)
    assert (out / "all.npz").read_text() == "".join(f"{number}\n" for number in range(PARTS))
    assert names(out) == {"run.json", "all.npz", *(f"parts/{number}.txt" for number in range(PARTS))}
