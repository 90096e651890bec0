"""The benchmarks run, in their small form, and the tools' answers agree: no times are tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.torch_reference import import_torchvision

pytestmark = pytest.mark.once

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def quick(name: str, out: Path, *arguments: str) -> list[dict[str, Any]]:
    """Run a benchmark in its small form; return its rows, and check that the table has a line for each."""
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick", "--out", str(out), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.with_suffix(".json").read_text())
    assert found["machine"]["cores"] >= 1 and found["machine"]["jax"]
    table = [line for line in out.read_text().splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    assert len(table) >= len(found["rows"]) + 1
    return found["rows"]


@pytest.mark.full
def test_inversion(tmp_path: Path) -> None:
    import_torchvision()
    tools = ("torch, best", "torch, as written")
    rows = quick("inversion", tmp_path / "inversion.md", "--tools", *tools)
    assert [row["tool"] for row in rows] == ["jaxviz", *tools]
    assert all(row["apart"] < 1e-2 * row["moved"] for row in rows[1:])
    assert all(row["moved"] > 0.01 and len(row["seconds"]) == 1 for row in rows)


@pytest.mark.full
def test_activation_maximization(tmp_path: Path) -> None:
    import_torchvision()
    tools = ("torch, best", "torch, as written")
    rows = quick("activation_maximization", tmp_path / "ascent.md", "--tools", *tools)
    assert [(row["work"], row["tool"]) for row in rows] == [("textbook", tool) for tool in ("jaxviz", "jaxviz, exact", *tools)]
    assert all(row["apart"] < 1e-2 for row in rows[1:])


@pytest.mark.full
def test_attribution(tmp_path: Path) -> None:
    import_torchvision()
    pytest.importorskip("captum.attr")
    pytest.importorskip("pytorch_grad_cam")
    rows = quick("attribution", tmp_path / "attribution.md", "--methods", "grad_cam")
    assert [row["rival"] for row in rows] == ["Captum", "pytorch-grad-cam"]
    assert all(row["difference"] < 1e-3 for row in rows)


@pytest.mark.full
def test_scaling(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = quick("scaling", tmp_path / "scaling.md")
    points = [(row["sweep"], row["units"], row["samples"], row["devices"]) for row in rows]
    assert points == [
        ("units", 2, 1, 2),
        ("samples", 2, 1, 2),
        ("samples", 2, 2, 2),
        ("devices", 2, 1, 1),
        ("devices", 2, 1, 2),
    ]
    assert all(row["memory"] > 1e8 and min(row["seconds"]) > 0 for row in rows)
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.full
def test_cold_start(tmp_path: Path) -> None:
    rows = quick("cold_start", tmp_path / "cold_start.md")
    tools = [row["tool"] for row in rows]
    assert tools[:3] == ["jaxviz", "jaxviz, cache empty", "jaxviz, cache filled"] and tools[-1] == "jaxviz, calls"
    assert all(0 < row["import_s"][0] < row["image_s"][0] and row["memory"][0] > 1e8 for row in rows[:-1])
    assert len(rows[-1]["seconds"]) == 10 and rows[-1]["compiled"][0] == rows[-1]["compiled"][-1] > 0


def test_everything_goes_on_after_a_script_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import everything

    (tmp_path / "bad.py").write_text("raise SystemExit(3)")
    (tmp_path / "good.py").write_text("import sys, pathlib; pathlib.Path(sys.argv[2]).write_text(f'| {sys.argv[3:]} |')")
    monkeypatch.setattr(everything, "HERE", tmp_path)
    monkeypatch.setattr(everything, "SCRIPTS", ("bad", "good"))
    monkeypatch.setattr(sys, "argv", ["everything.py", "--quick", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="Failed: bad"):
        everything.main()
    text = (tmp_path / "out" / "tables.md").read_text()
    assert "## bad\n\nFAILED\n\nno table" in text and "## good\n\n| ['--quick'] |" in text
