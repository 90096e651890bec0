"""The README's Python runs, in a small form, in the order a reader would type it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from jaxviz.models._load import BUNDLED
from tests.tiny import random_images

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


RUNS = ("visualize", "invert", "caricature", "accentuate", "deepdream")


class Small(ast.NodeTransformer):
    """Two steps and small images where the README leaves them to the defaults."""

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        given = {keyword.arg for keyword in node.keywords}
        if isinstance(node.func, ast.Attribute) and node.func.attr in RUNS and "steps" not in given:
            for name, value in (("steps", 2), ("size", 32)):
                node.keywords += [] if name in given else [ast.keyword(name, ast.Constant(value))]
        return node


def test_the_first_block_is_two_commands():
    first = re.search(r"```sh\n(.*?)```", README, re.S)
    assert first is not None
    lines = first[1].strip().splitlines()
    assert len(lines) == 2
    assert BUNDLED in lines[0] and "pytest" in lines[1]


@pytest.mark.skipif(not (ROOT / "weights" / f"{BUNDLED}.safetensors").is_file(), reason="the bundled network is absent")
def test_every_python_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"probes": random_images(3, 512) - 0.5, "photos": random_images(2, 40, 30, 3)}
    assert len(BLOCKS) >= 5
    for block in BLOCKS:
        small = re.sub(r"steps=\d+", "steps=2", block)
        small = re.sub(r"\(8, 2, 64\)", "(8, 2, 2)", small)
        tree = ast.fix_missing_locations(Small().visit(ast.parse(small)))
        exec(compile(tree, "README.md", "exec"), names)
    result = names["result"]
    assert result.images.shape == (8, 2, 128, 128, 3)  # type: ignore[attr-defined]
    assert (tmp_path / "out" / "layer3" / "contact_sheet.png").is_file()
