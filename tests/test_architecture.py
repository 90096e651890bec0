"""The shape of the library: who may import whom, nothing private of JAX, no file that is too long, no global settings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "jaxviz"
# A module may import from its own row and from the rows above it.
ROWS = (
    {"_types", "_errors"},
    {"_atomic", "_pytree", "_file_names", "_fingerprint", "_lock"},
    {"image"},
    {"_image_files"},
    {"ops"},
    {"models"},
    {"param"},
    {"_blur", "_warp"},
    {"transforms"},
    {"regularizers"},
    {"objectives"},
    {"plot"},
    {"_result_files"},
    {"_run_folder"},
    {"result"},
    {"engine"},
    {"_visualize"},
    {"attribution"},
    {"metrics"},
    {"inspection"},
    {"gallery"},
    {"cli"},
    {"__main__"},
)
ROW = {name: i for i, row in enumerate(ROWS) for name in row}
SOURCES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 400


def room(path: Path) -> str:
    """Return the name of the module or package directly below jaxviz that the file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and full dotted name of everything that a file imports, relative imports resolved."""
    here = ("jaxviz", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def own(name: str) -> str | None:
    """Return the room that `jaxviz.room.thing` names, "" for jaxviz itself, None for other packages."""
    parts = name.split(".")
    return None if parts[0] != "jaxviz" else (parts[1] if len(parts) > 1 else "")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_up(path: Path) -> None:
    here = room(path)
    if here == "__init__":
        return
    assert here in ROW, f"{here} has no row yet: add it to ROWS where it belongs"
    for line, name in imports(path):
        there = own(name)
        if there is None or here in ("cli", "__main__"):  # the command line is a user: it may say `import jaxviz`
            continue
        assert there in ROW, f"{path}:{line} imports {name}: import from the module that defines it"
        assert ROW[there] <= ROW[here], f"{path}:{line}: {here} may not import {there}, which stands below it"


def test_the_check_sees_relative_and_nested_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "jaxviz"
    (package / "ops").mkdir(parents=True)
    file = package / "ops" / "x.py"
    file.write_text("from . import a\nfrom .._errors import B\ndef f():\n    from ..engine import run\n    import jax.core\n")
    monkeypatch.setitem(globals(), "PACKAGE", package)
    names = [name for _, name in imports(file)]
    assert names == ["jaxviz.ops.a", "jaxviz._errors.B", "jaxviz.engine.run", "jax.core"]
    assert [own(name) for name in names] == ["ops", "_errors", "engine", None]
    assert room(file) == "ops"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_private_of_jax(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = [(line, name) for line, name in imports(path) if name.split(".")[0] in ("jax", "jaxlib")]
    named += [(node.lineno, ast.unparse(node)) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    for line, name in named:
        assert not name.startswith(("jax._src", "jax.core", "jax.interpreters", "jaxlib.")), f"{path}:{line} uses {name}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_global_settings(path: Path) -> None:
    """Only the command line may set JAX's configuration; nobody sets environment variables or prints."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called != "print", f"{path}:{node.lineno} prints"
            assert called not in ("os.putenv", "os.environ.setdefault", "os.environ.update"), f"{path}:{node.lineno}"
            assert called != "jax.config.update" or room(path) == "cli", f"{path}:{node.lineno} sets JAX's configuration"
        if isinstance(node, ast.Assign):
            targets = [ast.unparse(target) for target in node.targets]
            assert not any(t.startswith("os.environ") for t in targets), f"{path}:{node.lineno} sets the environment"
        assert not isinstance(node, ast.Global), f"{path}:{node.lineno} has a global variable"


def test_pytrees_are_registered_so_that_no_two_classes_are_equal() -> None:
    users = [
        str(path) for path in SOURCES if ".register_dataclass(" in (text := path.read_text()) or "@jax.tree_util.reg" in text
    ]
    assert not users, f"use jaxviz._pytree.pytree, which says why, in {users}"


def test_no_file_is_too_long() -> None:
    files = [*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert not {name: n for name, n in lengths.items() if n > LONGEST}


def test_every_file_says_what_it_is() -> None:
    nameless = [str(path) for path in SOURCES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert not nameless
