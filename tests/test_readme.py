"""The README's Python runs, in a small form, in the order a reader would type it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jaxviz.models._load import BUNDLED

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


def test_the_first_block_is_two_commands():
    first = re.search(r"```sh\n(.*?)```", README, re.S)
    assert first is not None
    lines = first[1].strip().splitlines()
    assert len(lines) == 2
    assert BUNDLED in lines[0] and "pytest" in lines[1]


@pytest.mark.skipif(not (ROOT / "weights" / f"{BUNDLED}.safetensors").is_file(), reason="the bundled network is absent")
def test_every_python_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    assert len(BLOCKS) >= 5
    for block in BLOCKS:
        small = re.sub(r"steps=\d+", "steps=2", block)
        small = re.sub(r"\(8, 2, 64\)", "(8, 2, 2)", small)
        exec(compile(small, "README.md", "exec"), names)
    result = names["result"]
    assert result.images.shape == (8, 2, 128, 128, 3)  # type: ignore[attr-defined]
    assert (tmp_path / "out" / "layer3" / "contact_sheet.png").is_file()
