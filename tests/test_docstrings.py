"""The examples of docstrings run, in a small form, and give what they say."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz
from tests.stand_in import Small, alike
from tests.tiny import random_images

pytestmark = pytest.mark.once

PACKAGE = Path(jaxviz.__file__).parent
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Checker(doctest.OutputChecker):
    """What an example gives is compared where the docstring says it."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return not want or super().check_output(want, got, optionflags)


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What every example may take as given, beside the names of its own module."""
    images, photos = random_images(2, 128, 128, 3), random_images(2, 64, 64, 3, seed=1)
    model = alike(jaxviz.load())
    return {
        "jaxviz": jaxviz,
        "jv": jaxviz,
        "jax": jax,
        "jnp": jnp,
        "np": np,
        "model": model,
        "images": images,
        "photos": photos,
    }


def module_of(path: Path) -> ModuleType:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))


def docstrings(module: ModuleType) -> dict[str, str]:
    """Return the docstrings with examples of a file: of itself, its functions, its classes and their methods."""
    tree = ast.parse(inspect.getsource(module))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)]
    texts = {getattr(node, "name", module.__name__): ast.get_docstring(node) or "" for node in nodes}
    return {name: text for name, text in texts.items() if ">>> " in text}


def small(source: str) -> str:
    source = re.sub(r"\b(steps|samples)=\d{2,}", r"\1=2", source)
    quick = Small(plain=True, mesh="jaxviz.make_mesh(1)", param="jaxviz.param.pixel")
    return ast.unparse(ast.fix_missing_locations(quick.visit(ast.parse(source)))) + "\n"


def test_there_are_examples() -> None:
    assert len(FILES) > 80


@pytest.mark.full
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_examples_run(path: Path, names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxviz, "load", lambda *args, **options: names["model"])
    module = module_of(path)
    texts = docstrings(module)
    assert texts
    for name, text in texts.items():
        folder = tmp_path / name
        for number in range(6):
            photo = folder / "photos" / ("cat" if number % 2 else "dog") / f"{number}.jpg"
            jaxviz.image.save(photo, random_images(32, 32, 3, seed=number))
        monkeypatch.chdir(folder)
        test = doctest.DocTestParser().get_doctest(text, {**vars(module), **names}, name, str(path), 0)
        for example in test.examples:
            example.source = small(example.source)
        report: list[str] = []
        runner = doctest.DocTestRunner(Checker(), optionflags=FLAGS)
        runner.run(test, out=report.append)
        assert not runner.failures, "".join(report)
