"""The command line: what it writes, says and returns, in this process and, where it matters, as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import jaxviz
from jaxviz import cli
from jaxviz.cli._common.options import known_units
from jaxviz.models import Verification
from jaxviz.models._files.load import bundled_file
from jaxviz.result import load_result
from tests.tiny import tiny_model

ROOT = Path(__file__).parents[2]
QUICK = ("--steps", "6", "--size", "16", "--devices", "1", "--transforms", "none")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    """Return a function that runs the command line on the tiny network, whatever the name."""
    asked: list[tuple[str, dict]] = []

    def load(name: str, **options):
        asked.append((name, options))
        return tiny_model()

    monkeypatch.setattr(jaxviz, "load", load)

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(cli.app, [str(a) for a in arguments], prog_name="jaxviz")

    run.asked = asked  # type: ignore[attr-defined]
    return run


def process(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jaxviz", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False, **options)


def test_visualize_writes_what_the_library_computes(run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("visualize", "tiny", "logit:golf ball,church", "conv2:1,3-4", "--out", out, "--samples", 2, "--seed", 3, *QUICK)
    assert done.exit_code == 0, done.output
    assert "10 images of 5 units" in done.stdout and str(out / "contact_sheet.png") in done.stdout
    saved = load_result(out)
    assert saved.labels == ("logit:golf ball", "logit:church", "conv2:1", "conv2:3", "conv2:4")
    assert {"logit-golf-ball-1.png", "conv2-0003-0.png", "contact_sheet.png"} <= {p.name for p in out.iterdir()}
    expected = jaxviz.visualize(
        tiny_model(), ["logit:golf ball,church", "conv2:1,3-4"], samples=2, seed=3, steps=6, size=16, transforms=()
    )
    np.testing.assert_allclose(saved.images, expected.images, atol=1e-4)
    assert json.loads((out / "result.json").read_text())["settings"]["seed"] == 3


def test_the_way_of_each_image_is_an_animation_beside_it(run, tmp_path: Path) -> None:
    given = ("visualize", "tiny", "conv2:1,3", "--out", tmp_path / "out", "--samples", 2, *QUICK)
    assert run(*given, "--animation", "gif").exit_code == 2
    done = run(*given, "--snapshots", "2,4,6", "--animation", "webp")
    assert done.exit_code == 0, done.output
    names = {path.stem for path in (tmp_path / "out").glob("conv2*.png")}
    assert names == {path.stem for path in (tmp_path / "out").glob("*.webp")} and len(names) == 4
    with Image.open(tmp_path / "out" / "conv2-0003-1.webp") as way:
        assert way.size == (16, 16) and 1 < way.n_frames <= 3  # type: ignore[attr-defined]


def test_options_reach_the_library(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict = {}
    real = jaxviz.iter_visualize

    def spy(*arguments, **options):
        seen.update(options)
        return real(*arguments, **options)

    monkeypatch.setattr(jaxviz, "iter_visualize", spy)
    names = tmp_path / "names.txt"
    names.write_text("one\n\n  two \n")
    out = tmp_path / "out"
    given = ("--param", "pixel", "--learning-rate", "0.5", "--regularizer", "l2=0.25", "--regularizer", "total_variation=1e-3")
    more = ("--precision", "highest", "--chunk", "1", "--weights", "w.pth", "--class-names", names)
    done = run(
        "visualize",
        "tiny",
        "conv1:0-1",
        "--out",
        out,
        "--quiet",
        *given,
        *more,
        *QUICK[:2],
        "--size",
        "12x16",
        "--transparency",
    )
    assert done.exit_code == 0 and done.output == ""
    assert run.asked == [("tiny", {"weights": "w.pth", "class_names": ["one", "two"], "progress": False})]
    assert seen["learning_rate"] == 0.5 and seen["precision"] == "highest" and seen["chunk"] == 1 and seen["size"] == (12, 16)
    assert [type(r) for r in seen["regularizers"]] == [
        type(jaxviz.regularizers.l2(1.0)),
        type(jaxviz.regularizers.total_variation(1.0)),
    ]
    assert isinstance(seen["param"], type(jaxviz.param.pixel())) and len(seen["transforms"].parts) == 5
    assert load_result(out).images.shape == (2, 1, 12, 16, 4)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("conv9:0", "conv1"),
        ("conv2:12", "12"),
        ("conv2:5-3", "5-3"),
        ("logit:golfball", "golf ball"),
        ("conv2:", "LAYER:UNITS"),
    ],
)
def test_wrong_targets_are_one_line_before_any_work(run, tmp_path: Path, target: str, message: str) -> None:
    done = run("visualize", "tiny", "conv1:0", target, "--out", tmp_path / "out", *QUICK)
    assert done.exit_code == 1
    assert done.stderr.startswith("jaxviz: ") and message in done.stderr and "Traceback" not in done.output
    assert not list((tmp_path / "out").glob("*")), "files of a run that never began"


@pytest.mark.parametrize(
    "arguments",
    [
        ("visualize", "tiny", "conv1:0"),
        ("visualize", "tiny", "--out", "x"),
        ("visualize", "tiny", "conv1:0", "--out", "x", "--size", "12y"),
        ("visualize", "tiny", "conv1:0", "--out", "x", "--size", "0"),
        ("visualize", "tiny", "conv1:0", "--out", "x", "--samples", "0"),
        ("visualize", "tiny", "conv1:0", "--out", "x", "--regularizer", "l3=1"),
        ("visualize", "tiny", "conv1:0", "--out", "x", "--regularizer", "l2"),
        ("visualize", "tiny", "conv1:0", "--out", "x", "--param", "wavelet"),
        ("visualize", "tiny", "conv1:0", "--out", "x", "--coordinator", "127.0.0.1:1"),
        ("visualize", "tiny", "conv1:0", "--out", "x", "--distributed", "--process-id", "1"),
        ("models", "resnet18"),
        ("nonsense",),
    ],
)
def test_wrong_use_is_two(run, arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*arguments).exit_code == 2
    assert not list(tmp_path.iterdir())


def test_a_result_is_replaced_only_when_asked(run, tmp_path: Path) -> None:
    call = ("visualize", "tiny", "conv1:0", "--out", tmp_path, *QUICK)
    assert run(*call).exit_code == 0
    made = (tmp_path / "images.npy").stat().st_mtime_ns
    assert run(*call).exit_code == 0 and (tmp_path / "images.npy").stat().st_mtime_ns == made, "it was there already"
    other = run(*call, "--seed", 1)
    assert other.exit_code == 1 and "--overwrite" in other.stderr and "seed is 0 there and 1 here" in other.stderr
    assert run(*call, "--seed", 1, "--overwrite").exit_code == 0
    assert load_result(tmp_path).settings["seed"] == 1


def test_too_many_devices(run, tmp_path: Path) -> None:
    jax.devices()  # JAX has started, and can make no more
    done = run("visualize", "tiny", "conv1:0", "--out", tmp_path / "out", *QUICK, "--devices", 99)
    assert done.exit_code == 1 and "99" in done.stderr


@pytest.mark.parametrize(
    ("targets", "count"),
    [(["layer3:7"], 1), (["layer3:7, 9-12", "layer1.0.conv1:0"], 5), (["layer3:7", "layer4"], None), (["logit:church"], None)],
)
def test_units_known_before_the_network(targets: list[str], count: int | None) -> None:
    assert known_units(targets) == count


def test_no_more_devices_than_units() -> None:
    lines = "import jax; from jaxviz.cli._common.devices import use_cpu_devices; use_cpu_devices({}); print(jax.device_count())"
    cores = len(os.sched_getaffinity(0))
    for given, devices in (("None", cores), ("None, 1", 1), ("None, 99", cores), ("3, 1", 3)):
        done = subprocess.run([sys.executable, "-c", lines.format(given)], capture_output=True, text=True, check=True)
        assert int(done.stdout) == devices


def test_joining_nobody_is_one_line(run, tmp_path: Path) -> None:
    done = run("visualize", "tiny", "conv1:0", "--out", tmp_path / "out", *QUICK, "--distributed")
    assert done.exit_code == 1 and done.stderr.startswith("jaxviz: Cannot join the other processes")
    assert "Traceback" not in done.output and not (tmp_path / "out").exists()


def test_layers(run) -> None:
    done = run("layers", "tiny", "--size", "20x16")
    assert done.exit_code == 0 and done.stdout.strip() == str(tiny_model().layers((20, 16)))


def test_models() -> None:
    done = CliRunner().invoke(cli.app, ["models"])
    assert done.exit_code == 0
    assert {"resnet18-imagenette", "vgg16_bn", "resnext101_64x4d"} <= set(done.stdout.split())


def test_models_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [Verification("resnet18", "V1", True, 1e-7, 1.0), Verification("vgg11", "V1", False, None, 1.0, "corrupt")]
    monkeypatch.setattr(cli._models, "verify_models", lambda *names, **_: iter(records[: len(names)]))
    good, bad = (CliRunner().invoke(cli.app, ["models", "--verify", *names]) for names in (["a"], ["a", "b"]))
    assert good.exit_code == 0 and good.stdout.startswith("ok ")
    assert bad.exit_code == 1 and "corrupt" in bad.stdout


def test_help_and_version() -> None:
    helped = process("--help")
    assert helped.returncode == 0 and all(
        word in helped.stdout for word in ("models", "layers", "visualize", "invert", "caricature", "accentuate", "dream")
    )
    shown = CliRunner().invoke(cli.app, ["--version"])
    assert shown.exit_code == 0 and shown.stdout.startswith("jaxviz ")
    text = CliRunner().invoke(cli.app, ["visualize", "--help"]).stdout
    for option in ("--out", "--samples", "--steps", "--size", "--seed", "--devices", "--chunk", "--class-names", "--overwrite"):
        assert option in text


SLOW_TINY = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a child of a process that ignores SIGINT does not have
import jaxviz, jaxviz.cli
from tests.tiny import tiny_model
jaxviz.load = lambda name, **options: tiny_model()
options = ["--steps", "5000", "--chunk", "1", "--size", "16", "--transforms", "none", "--devices", "1", "--out", sys.argv[1]]
sys.argv = ["jaxviz", "visualize", "tiny", "conv2", *options]
jaxviz.cli.main()
"""


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    out = tmp_path / "out"
    running = subprocess.Popen([sys.executable, "-c", SLOW_TINY, str(out)], cwd=ROOT, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 240
        while not list(out.glob("*.png")):
            assert running.poll() is None and time.monotonic() < deadline, "no chunk was saved"
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=240)
    finally:
        running.kill()
    assert running.returncode == 130, errors
    kept = len(list((out / "parts").glob("*.npz")))
    assert 0 < kept < 12 and f"{kept} of 12 images were finished and are in {out}" in errors.decode()
    assert len(list(out.glob("*.png"))) == kept and "the same command continues" in errors.decode()
    with pytest.raises(jaxviz.SaveError, match="not finished"):
        load_result(out)


@pytest.mark.skipif(not Path(ROOT, "weights", "resnet18-imagenette.safetensors").is_file(), reason="not trained yet")
def test_the_bundled_network_end_to_end(tmp_path: Path) -> None:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = process(
        "visualize",
        "resnet18-imagenette",
        "logit:golf ball",
        "--out",
        tmp_path / "out",
        "--size",
        48,
        "--steps",
        4,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert load_result(tmp_path / "out").labels == ("logit:golf ball",)
    assert bundled_file().name == "resnet18-imagenette.safetensors"
