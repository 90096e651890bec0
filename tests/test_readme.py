"""The README's Python runs, in a small form, in the order a reader would type it."""

from __future__ import annotations

import ast
import inspect
import operator
import re
from pathlib import Path

import pytest

import jaxviz as jv
from jaxviz.models._files.load import BUNDLED
from tests.stand_in import WIDTHS, Small, alike
from tests.tiny import random_images

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)
COMING = README.partition("## Coming from")[2].partition("\n## ")[0]
HERE = re.findall(r"^\|.*\| `([^|]+)` \|$", COMING, re.M)


def test_the_stand_in_has_the_channels_of_the_bundled_network():
    model = jv.load()
    for name, channels in WIDTHS.items():
        assert model.layers()[name].channels == alike(model).layers()[name].channels == channels


def test_the_first_block_is_two_commands():
    first = re.search(r"```sh\n(.*?)```", README, re.S)
    assert first is not None
    lines = first[1].strip().splitlines()
    assert len(lines) == 2
    assert BUNDLED in lines[0] and "pytest" in lines[1]


def test_every_name_and_keyword_of_jaxviz_exists() -> None:
    """Of the blocks and the lines for newcomers, which the full tier runs."""
    checked = 0
    for node in (node for text in (*BLOCKS, *HERE) for node in ast.walk(ast.parse(text))):
        name = re.fullmatch(r"jv\.([\w.]+)", ast.unparse(node.func if isinstance(node, ast.Call) else node))
        if name is None or not isinstance(node, ast.Attribute | ast.Call):
            continue
        value = operator.attrgetter(name[1])(jv)
        if isinstance(node, ast.Call):
            inspect.signature(value).bind_partial(**{word.arg: None for word in node.keywords if word.arg})
            checked += 1
    assert checked > 60, "and every call takes its keywords"


@pytest.mark.full
@pytest.mark.skipif(not (ROOT / "weights" / f"{BUNDLED}.safetensors").is_file(), reason="the bundled network is absent")
def test_every_python_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jv.image.save("photo.jpg", random_images(40, 60, 3))
    for number in range(12):
        jv.image.save(f"photos/{'cat' if number % 2 else 'dog'}/{number}.jpg", random_images(40, 40, 3, seed=number))
    names: dict[str, object] = {"probes": random_images(3, 512) - 0.5, "photos": random_images(4, 40, 30, 3)}
    names |= {name: alike(jv.load(), seed) for seed, name in enumerate(("before", "after"))}
    assert len(BLOCKS) >= 5
    for number, block in enumerate(BLOCKS):
        if number == 1:  # the first runs on the bundled network itself
            names["model"] = alike(names["model"])  # type: ignore[arg-type]
        small = re.sub(r"steps=\d+", "steps=2", block)
        small = re.sub(r"\(8, 2, 64\)", "(8, 2, 2)", small)
        tree = ast.fix_missing_locations(Small(plain=number > 0).visit(ast.parse(small)))
        exec(compile(tree, "README.md", "exec"), names)
    result = names["result"]
    assert result.images.shape == (8, 2, 128, 128, 3)  # type: ignore[attr-defined]
    assert (tmp_path / "out" / "layer3" / "contact_sheet.png").is_file()


@pytest.fixture(scope="module")
def newcomer() -> dict[str, object]:
    """What the lines for newcomers are about."""
    photos = random_images(2, 64, 64, 3)
    return {"jv": jv, "model": alike(jv.load()), "photos": photos, "probes": random_images(3, 512) - 0.5}


@pytest.mark.full
@pytest.mark.parametrize("line", HERE)
def test_every_line_for_newcomers_runs(line: str, newcomer: dict[str, object]) -> None:
    small = re.sub(r"steps=512, snapshots=\[256\]", "steps=2, size=32, snapshots=[1]", line)
    tree = ast.fix_missing_locations(Small(plain=True).visit(ast.parse(small, mode="eval")))
    assert eval(compile(tree, line, "eval"), newcomer) is not None


def test_there_are_lines_for_newcomers_from_everywhere() -> None:
    assert len(HERE) >= 25 and len(HERE) == COMING.count("\n| ") - COMING.count("\n| **") - 2
