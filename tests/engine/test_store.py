"""Runs kept in a folder: continued, never mixed, read lazily, and what is finished survives what goes wrong."""

from __future__ import annotations

import os
import resource
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxviz as jv
from jaxviz.engine import _execute, _store
from tests.test_result import assert_same, on_disk
from tests.tiny import tiny_model

TARGETS = ["relu_1:0-6", "logit:church,golf ball"]
OPTIONS: dict[str, Any] = {"steps": 4, "size": 16, "samples": 2, "transforms": (), "chunk": 2}


def draw(out: Path | None = None, targets: Any = TARGETS, **options: Any) -> jv.Result:
    return jv.visualize(tiny_model(), targets, out=out, **(OPTIONS | {"mesh": jv.make_mesh(1)} | options))


@pytest.fixture(scope="module")
def whole() -> jv.Result:
    return draw()


@contextmanager
def counted() -> Iterator[list[int]]:
    """Give a list that grows with every chunk that is computed."""
    calls: list[int] = []
    real = _execute._run_chunk

    def count(*arguments: Any) -> Any:
        calls.append(1)
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_execute, "_run_chunk", count)
        yield calls


def stopped_after(out: Path, chunks: int, **options: Any) -> None:
    """Stop a run, as a user's `break` does, after some chunks."""
    parts = jv.iter_visualize(tiny_model(), TARGETS, out=out, **(OPTIONS | {"mesh": jv.make_mesh(1)} | options))
    for _ in range(chunks):
        next(parts)
    parts.close()  # type: ignore[attr-defined]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_folder_holds_what_save_writes_and_the_images_stay_there(whole: jv.Result, tmp_path: Path) -> None:
    result = draw(tmp_path / "out")
    assert_same(result, whole)
    assert on_disk(result.images)
    assert_same(jv.load_result(tmp_path / "out"), whole)
    whole.save(tmp_path / "saved")
    assert names(tmp_path / "out") == names(tmp_path / "saved") | {"run.json"}
    for name in names(tmp_path / "saved") - {"result.npz"}:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "saved" / name).read_bytes(), name


def test_a_finished_run_is_returned_at_once(whole: jv.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "0-0-2.npz").write_text("of a run that was killed before it removed its parts")
    monkeypatch.setattr(jv.engine, "run", None)
    monkeypatch.setattr("jaxviz._visualize.stages.sample_keys", None)
    assert_same(draw(tmp_path, chunk=5, mesh=jv.make_mesh(2), progress=print), whole)
    assert not (tmp_path / "parts").exists()
    parts = list(jv.iter_visualize(tiny_model(), TARGETS, out=tmp_path, **OPTIONS))
    assert [len(part) for part in parts] == [7, 2] and all(on_disk(part.images) for part in parts)
    assert parts[1].settings["objective"] == ["logit:church", "logit:golf ball"]


@pytest.mark.parametrize("chunks", [1, 3, 4, 5])
def test_a_run_continues_where_it_was(whole: jv.Result, tmp_path: Path, chunks: int) -> None:
    stopped_after(tmp_path, chunks)
    assert len(names(tmp_path / "parts")) == chunks
    with pytest.raises(jv.SaveError, match="not finished"):
        jv.load_result(tmp_path)
    with counted() as calls:
        parts = list(jv.iter_visualize(tiny_model(), TARGETS, out=tmp_path, mesh=jv.make_mesh(1), **OPTIONS))
    assert len(calls) == 5 - chunks
    assert [label for part in parts for label in part.labels] == list(whole.labels), "those on disk come too, in order"
    assert all(on_disk(part.images) for part in parts[:chunks])
    np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), whole.images)
    assert_same(jv.load_result(tmp_path), whole)
    assert not (tmp_path / "parts").exists()


@pytest.mark.parametrize(("devices", "chunk", "computed"), [(1, 1, 5), (1, 3, 3), (2, 4, 2), (1, None, 2)])
def test_other_chunks_and_devices_continue_the_same_run(whole, tmp_path, devices, chunk, computed) -> None:
    stopped_after(tmp_path, 2)
    with counted() as calls:
        result = draw(tmp_path, chunk=chunk, mesh=jv.make_mesh(devices))
    np.testing.assert_allclose(result.images, whole.images, atol=1e-4)
    np.testing.assert_array_equal(result.images[:3], whole.images[:3])
    assert len(calls) == computed and result.labels == whole.labels


def code_a(acts, images):
    return acts["relu"].mean((1, 2, 3))


def code_b(acts, images):
    return acts["relu"].mean((1, 2, 3)) + 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"steps": 5}, "steps is 4 there and 5 here"),
        ({"learning_rate": 0.05}, "learning_rate is 0.02 there and 0.05 here"),
        ({"size": 20}, "size"),
        ({"samples": 1}, "samples is 2 there and 1 here"),
        ({"precision": "highest"}, "precision is None there and highest here"),
        ({"targets": ["relu_1:0-7", TARGETS[1]]}, "7 units, relu_1:0 to relu_1:6"),
        ({"targets": [0.5 * jv.channel("relu_1", range(7)), TARGETS[1]]}, "Channel there and Scaled here"),
        ({"targets": TARGETS[:1]}, "units"),
        ({"transforms": jv.transforms.jitter(2)}, "transform"),
        ({"regularizers": [jv.regularizers.l1(0.5)]}, "regularizers"),
        ({"param": jv.param.fourier(decay=1.5)}, "param.decay is 2.0 there and 1.5 here"),
        ({"param": jv.param.pixel}, "Fourier there and Pixel here"),
        ({"optimizer": optax.sgd}, "optimizer"),
        ({"optimizer": partial(optax.sgd, momentum=0.5)}, "optimizer"),
        ({"model": tiny_model(1)}, "weights"),
    ],
)
def test_other_settings_are_refused(finished: Path, change: dict[str, Any], words: str) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in finished.iterdir()}
    model, targets = change.get("model", tiny_model()), change.get("targets", TARGETS)
    options = OPTIONS | {name: value for name, value in change.items() if name not in ("model", "targets")}
    with pytest.raises(jv.SaveError, match="other settings") as caught:
        jv.visualize(model, targets, out=finished, **options)
    assert words in str(caught.value) and "overwrite" in str(caught.value)
    assert {path.name: path.stat().st_mtime_ns for path in finished.iterdir()} == before


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw(folder := tmp_path_factory.mktemp("finished"))
    return folder


def test_functions_are_known_by_their_code_and_what_they_close_over() -> None:
    from jaxviz._fingerprint import describe

    def closing(number: float):
        return lambda acts, images: number * acts["relu"].mean((1, 2, 3))

    def text(objective: Any) -> str:
        return str(describe(jv.objectives.from_function(objective)))

    assert text(code_a) != text(code_b)
    assert text(closing(1.0)) == text(closing(1.0)) != text(closing(2.0))
    assert text(closing(np.zeros(20))) != text(closing(np.arange(20)))  # type: ignore[arg-type]
    assert text(closing(jnp.zeros(20, jnp.bfloat16))) != text(closing(jnp.ones(20, jnp.bfloat16)))  # type: ignore[arg-type]
    assert "0x" not in text(partial(code_a, images=object()))


def test_a_truncated_part_is_computed_again(whole: jv.Result, tmp_path: Path) -> None:
    stopped_after(tmp_path, 3)
    part = tmp_path / "parts" / "0-2-4.npz"
    part.write_bytes(part.read_bytes()[:-200])
    (tmp_path / "parts" / "0-0-2.npz").write_bytes(b"")
    with counted() as calls:
        assert_same(draw(tmp_path), whole)
    assert len(calls) == 4


def test_a_part_with_a_flipped_bit_is_found(whole: jv.Result, tmp_path: Path) -> None:
    stopped_after(tmp_path, 3)
    part = tmp_path / "parts" / "0-2-4.npz"
    data = bytearray(part.read_bytes())
    data[3000] ^= 64
    part.write_bytes(data)
    with pytest.raises(jv.SaveError, match=r"0-2-4\.npz' is damaged.*same call"):
        draw(tmp_path)
    assert_same(draw(tmp_path), whole)


def test_pictures_that_a_killed_run_had_no_time_for_are_made(tmp_path: Path) -> None:
    stopped_after(tmp_path, 2)
    (tmp_path / "relu_1-0001-0.png").unlink()
    (tmp_path / ".relu_1-0001-1.png.a1b2c3d4").write_text("half a picture")
    (tmp_path / "parts" / ".0-6-7.npz.a1b2c3d4").write_text("half a part")
    (tmp_path / ".mine.png.a1b2c3d4").write_text("somebody's")
    result = draw(tmp_path)
    assert {f"relu_1-000{unit}-{sample}.png" for unit in range(7) for sample in (0, 1)} <= names(tmp_path)
    assert [name for name in names(tmp_path) if name.startswith(".")] == [".mine.png.a1b2c3d4"]
    np.testing.assert_array_equal(jv.image.load(tmp_path / "relu_1-0001-0.png"), np.round(result.images[1, 0] * 255) / 255)


def test_overwrite_starts_anew(tmp_path: Path) -> None:
    stopped_after(tmp_path, 2)
    (tmp_path / "mine.png").write_text("kept")
    (tmp_path / "parts" / "mine").write_text("kept")
    with counted() as calls:
        result = draw(tmp_path, "logit:church", overwrite=True, seed=1)
    assert len(calls) == 1 and result.settings["seed"] == 1
    pictures = {"logit-church-0.png", "logit-church-1.png", "contact_sheet.png"}
    assert names(tmp_path) == pictures | {"images.npy", "result.npz", "result.json", "run.json", "mine.png", "parts"}
    with counted() as calls:
        draw(tmp_path, "logit:church", overwrite=True, seed=1)
    assert len(calls) == 1, "the same settings too"


def test_what_is_no_run_is_not_replaced(whole: jv.Result, tmp_path: Path) -> None:
    whole.save(tmp_path / "saved")
    with pytest.raises(jv.SaveError, match="holds a result already"):
        draw(tmp_path / "saved")
    assert_same(jv.load_result(tmp_path / "saved"), whole)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "relu_1-0003-1.png").write_text("somebody's")
    with pytest.raises(jv.SaveError, match=r"relu_1-0003-1\.png"):
        draw(tmp_path / "other")
    draw(tmp_path / "run")
    whole.save(tmp_path / "run", overwrite=True)  # no longer the run's
    with pytest.raises(jv.SaveError, match="holds a result already"):
        draw(tmp_path / "run")


def test_a_folder_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    folders = [tmp_path / "file", tmp_path / "file" / "below", Path("/proc/self/out")]
    if os.geteuid() != 0:  # the superuser may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        folders.append(tmp_path / "locked")
    with counted() as calls:
        for folder in folders:
            with pytest.raises(jv.SaveError, match=str(folder)):
                draw(folder)
    assert not calls


def test_a_full_disk_keeps_what_is_finished(whole: jv.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = np.savez, []

    def full(file: Any, **arrays: Any) -> None:
        written.append(1)
        if len(written) == 3:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        real(file, **arrays)

    monkeypatch.setattr(_store.np, "savez", full)
    with pytest.raises(jv.SaveError, match=r"No space left on device\. What is finished is kept: the same call"):
        draw(tmp_path)
    monkeypatch.undo()
    left = names(tmp_path / "parts")
    assert {"0-0-2.npz", "0-2-4.npz"} <= left and "0-4-6.npz" not in left and not any(n.startswith(".") for n in left)
    assert_same(draw(tmp_path), whole)


def test_no_room_for_the_whole_result(whole: jv.Result, tmp_path: Path) -> None:
    """The system's own refusal, at a size that the parts are below and the assembled images are not."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, old[1]))
    try:
        with pytest.raises(jv.SaveError, match="What is finished is kept"):
            draw(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert len(names(tmp_path / "parts")) == 5
    with counted() as calls:
        assert_same(draw(tmp_path), whole)
    assert not calls


def test_ctrl_c_says_where_the_finished_units_are(whole: jv.Result, tmp_path: Path) -> None:
    seen: list[jv.Progress] = []

    def report(progress: jv.Progress) -> None:
        seen.append(progress)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(jv.Interrupted, match=f"4 units were finished: they are in '{tmp_path}', and the same call") as caught:
        draw(tmp_path, progress=report)
    assert caught.value.result is None
    again: list[jv.Progress] = []
    assert_same(draw(tmp_path, progress=again.append), whole)
    assert [p.images_done for p in again] == [12, 14, 4], "of 14, then of 4: those on disk count as done"


def test_writing_overlaps_computing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first chunk is not written before the second is computed; and no more than two chunks ever wait."""
    second, waited, threads = threading.Event(), [], set()
    compute, write = _execute._run_chunk, _store.Store._write

    def computing(*arguments: Any) -> Any:
        done = compute(*arguments)
        waited.append(1)
        if len(waited) == 2:
            second.set()
        return done

    def writing(self: _store.Store, *arguments: Any) -> None:
        threads.add(threading.current_thread())
        assert second.wait(60)
        assert len(self._pending) <= _store.WAITING
        write(self, *arguments)

    monkeypatch.setattr(_execute, "_run_chunk", computing)
    monkeypatch.setattr(_store.Store, "_write", writing)
    draw(tmp_path)
    assert len(threads) == 1 and threading.main_thread() not in threads


@pytest.mark.full
def test_memory_stays_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run of 600 units with 66 MB of pixels, at no time a third is held: neither running nor put together."""
    units = jv.channel("relu_1", [unit % 12 for unit in range(600)])
    options = {"steps": 0, "size": 96, "transforms": (), "chunk": 20, "out": tmp_path, "mesh": jv.make_mesh(1)}
    real = jv.plot.contact_sheet
    monkeypatch.setattr("jaxviz.result.contact_sheet", lambda sections, **_: real(sections, tile=8))  # a page has its own size
    tracemalloc.start()
    try:
        result = jv.visualize(tiny_model(), units, **options)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.images.nbytes > 66e6 and on_disk(result.images)
    assert peak < 22e6, f"{peak / 1e6:.0f} MB"


def test_a_failed_start_is_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*arguments: Any) -> Any:
        raise jv.MemoryLimitError("too large")

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(_execute, "_run_chunk", too_large)
        with pytest.raises(jv.MemoryLimitError):
            draw(out, size=64)
    assert not out.exists()
    assert len(draw(out, "relu_1:0", size=16)) == 1


def test_a_relative_folder_survives_chdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path)
    result = draw(Path("out"), "relu_1:0-2", chunk=1, progress=lambda _: os.chdir(tmp_path / "else"))
    assert names(tmp_path) == {"out", "else"} and not names(tmp_path / "else")
    assert len(result) == 3 and "run.json" in names(tmp_path / "out")


def test_a_finished_run_on_a_disk_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> Any:
        raise OSError(30, "Read-only file system")

    whole = draw(tmp_path / "whole", "relu_1:0")
    stopped_after(tmp_path / "begun", 1)
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert_same(draw(tmp_path / "whole", "relu_1:0"), whole)
    with counted() as calls, pytest.raises(jv.SaveError, match="Read-only"):
        draw(tmp_path / "begun")
    assert not calls, "reported before the work"


def test_a_folder_is_one_runs_at_a_time(tmp_path: Path) -> None:
    parts = jv.iter_visualize(tiny_model(), TARGETS, out=tmp_path, **(OPTIONS | {"mesh": jv.make_mesh(1)}))
    next(parts)
    with pytest.raises(jv.SaveError, match=f"in use by this very process .{os.getpid()}"):
        draw(tmp_path, seed=1, overwrite=True)
    assert sum(map(len, parts)) == 7
    assert not [name for name in names(tmp_path) if name.startswith(".")]
