"""The shape of the library: who may import whom, no circles, nothing private of JAX, no long files, no global settings."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
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
    """Yield line and full dotted name of everything that a file imports, relative imports resolved.

    Imports inside functions and those for types alone are among them.
    """
    here = ("jaxviz", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def own(name: str) -> str | None:
    """Return the room that `jaxviz.room.thing` names, "" for jaxviz itself, None for other packages."""
    parts = name.split(".")
    return None if parts[0] != "jaxviz" else (parts[1] if len(parts) > 1 else "")


def edges(paths: Iterable[Path]) -> dict[Path, set[Path]]:
    """Return which files each file imports: of `from package import name`, the module `name`, or the package that has it."""
    files = {}
    for path in paths:
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        files[".".join(["jaxviz", *(parts[:-1] if parts[-1] == "__init__" else parts)])] = path
    return {
        path: {there for _, name in imports(path) if (there := files.get(name) or files.get(name.rpartition(".")[0]))} - {path}
        for path in files.values()
    }


def circles(graph: Mapping[Path, set[Path]]) -> set[tuple[str, ...]]:
    """Return the largest groups of files of which each imports every other, directly or through more files."""

    def reached(start: Path) -> set[Path]:
        seen: set[Path] = set()
        todo = [start]
        while todo:
            new = graph[todo.pop()] - seen
            seen |= new
            todo += new
        return seen

    below = {path: reached(path) for path in graph}
    groups = {frozenset(other for other in below[path] if path in below[other]) for path in graph if path in below[path]}
    return {tuple(sorted(path.relative_to(PACKAGE).as_posix() for path in group)) for group in groups}


def test_imports_go_up() -> None:
    wrong = []
    for path in SOURCES:
        here = room(path)
        if here == "__init__":
            continue
        if here not in ROW:
            wrong.append(f"{path}: {here} has no row yet: add it to ROWS where it belongs")
            continue
        for line, name in imports(path):
            there = own(name)
            if there is None or (there not in ROW and here in ("cli", "__main__")):  # they may `import jaxviz`, as users do
                continue
            if there not in ROW:
                wrong.append(f"{path}:{line} imports {name}: import from the module that defines it")
            elif ROW[there] > ROW[here]:
                wrong.append(f"{path}:{line}: {here} may not import {there}, which stands below it")
    assert not wrong


def test_no_circle_between_files() -> None:
    assert len(SOURCES) > 100
    found = circles(edges(SOURCES))
    assert not found


def test_the_checks_see_relative_nested_and_type_only_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "jaxviz"
    (package / "ops").mkdir(parents=True)
    file = package / "ops" / "x.py"
    file.write_text("from . import a\nfrom .._errors import B\ndef f():\n    from ..engine import run\n    import jax.core\n")
    monkeypatch.setitem(globals(), "PACKAGE", package)
    names = [name for _, name in imports(file)]
    assert names == ["jaxviz.ops.a", "jaxviz._errors.B", "jaxviz.engine.run", "jax.core"]
    assert [own(name) for name in names] == ["ops", "_errors", "engine", None]
    assert room(file) == "ops"
    (package / "ops" / "a.py").write_text("if TYPE_CHECKING:\n    from jaxviz.ops.b import C\n")
    (package / "ops" / "b.py").write_text("def f():\n    import jaxviz.ops.x\n")
    (package / "ops" / "__init__.py").write_text("from jaxviz.ops.b import C\n")
    assert circles(edges(package.rglob("*.py"))) == {("ops/a.py", "ops/b.py", "ops/x.py")}
    file.write_text("from jaxviz.ops import C\n")
    assert circles(edges(package.rglob("*.py"))) == {("ops/__init__.py", "ops/b.py", "ops/x.py")}
    file.write_text("import jaxviz.ops.x\n")
    assert not circles(edges(package.rglob("*.py")))


def test_nothing_private_of_jax_and_no_global_settings() -> None:
    """Only the command line may set JAX's configuration; nobody sets environment variables or prints."""
    wrong = [f"{path}:{line} {what}" for path in SOURCES for line, what in faults(path)]
    assert not wrong


def faults(path: Path) -> Iterator[tuple[int, str]]:
    named = [(line, name) for line, name in imports(path) if name.split(".")[0] in ("jax", "jaxlib")]
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Attribute):
            named.append((node.lineno, ast.unparse(node)))
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "print":
                yield node.lineno, "prints"
            if called in ("os.putenv", "os.environ.setdefault", "os.environ.update"):
                yield node.lineno, "sets the environment"
            if called == "jax.config.update" and room(path) != "cli":
                yield node.lineno, "sets JAX's configuration"
        if isinstance(node, ast.Assign) and any(ast.unparse(target).startswith("os.environ") for target in node.targets):
            yield node.lineno, "sets the environment"
        if isinstance(node, ast.Global):
            yield node.lineno, "has a global variable"
    for line, name in named:
        if name.startswith(("jax._src", "jax.core", "jax.interpreters", "jaxlib.")):
            yield line, f"uses {name}"


def test_the_check_sees_every_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    file = tmp_path / "x.py"
    lines = (
        "print(1)",
        "os.environ.update({})",
        "jax.config.update('jax_enable_x64', True)",
        "os.environ['A'] = '1'",
        "import jax._src.core",
        "from jax import core",
        "jax.interpreters.mlir",
        "global a",
    )
    file.write_text("\n".join(lines) + "\nx = jax.numpy.ones(3)\n")
    assert sorted({line for line, _ in faults(file)}) == list(range(1, len(lines) + 1))


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
