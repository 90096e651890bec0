"""What is built is whole: sdist, wheel, wheel from the sdist, editable install; and each finds the bundled network."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
NAME = "resnet18-imagenette.safetensors"
WEIGHTS = ROOT / "weights" / NAME
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IN_WHEEL = f"jaxviz/_data/{NAME}"

pytest.importorskip("hatchling", reason="the build backend, in the test extra")
trained = pytest.mark.skipif(not WEIGHTS.is_file(), reason="the bundled network is not trained yet")

# Loads the bundled network in a process that sees only the installed files, and says where they are.
PROBE = """
import sys
sys.path[:0] = {places!r}
import json, jaxviz, numpy
from jaxviz.models._files.load import bundled_file
model = jaxviz.load()
logits = model(numpy.zeros((1, 32, 32, 3), numpy.float32))
print(json.dumps([jaxviz.__file__, str(bundled_file()), model.name, list(model.class_names), list(logits.shape)]))
"""


def python(*arguments: object, cwd: Path) -> str:
    """Run Python outside the checkout and return what it prints."""
    command = [sys.executable, *map(str, arguments)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def probe(*places: Path, cwd: Path) -> list:
    return json.loads(python("-c", PROBE.format(places=[str(p) for p in places]), cwd=cwd).splitlines()[-1])


def checkout(folder: Path) -> Path:
    """Return a copy of what git would check out, as far as a build is concerned; weights that are not there yet are faked."""
    for part in ("jaxviz", "tests", "weights"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "*.pt", ".*"))
    for part in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / part, folder / part)
    if not WEIGHTS.is_file():
        (folder / "weights" / NAME).write_bytes(bytes(1000))
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkout(tmp_path_factory.mktemp("source") / "jaxviz")


@pytest.fixture(scope="module")
def built(source: Path) -> dict[str, Path]:
    """Return sdist, wheel built from the checkout, and wheel built from the sdist."""
    first, second = source.parent / "direct", source.parent / "from_sdist"
    python("-m", "build", "--no-isolation", "--wheel", "-o", first, source, cwd=source.parent)
    python("-m", "build", "--no-isolation", "-o", second, source, cwd=source.parent)  # sdist, then the wheel from it
    (sdist,), (wheel,), (again,) = second.glob("*.tar.gz"), first.glob("*.whl"), second.glob("*.whl")
    return {"sdist": sdist, "wheel": wheel, "wheel from sdist": again}


def modules() -> set[str]:
    return {str(path.relative_to(ROOT)) for path in (ROOT / "jaxviz").rglob("*.py")}


def templates() -> set[str]:
    return {str(path.relative_to(ROOT)) for path in (ROOT / "jaxviz").glob("*/templates/*")}


@pytest.mark.full
def test_sdist_holds_the_sources_and_the_weights_once(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert modules() | {"LICENSE", "README.md", "pyproject.toml", "jaxviz/py.typed", "weights/train.py"} <= set(names)
    assert {"tests/conftest.py", "weights/hatch_build.py"} | templates() <= set(names)
    networks = [name for name in names if name.endswith(".safetensors") and not name.startswith("tests/families/")]
    assert networks == [f"weights/{NAME}"]
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pt", ".pyc"))]


@pytest.mark.full
@pytest.mark.parametrize("kind", ["wheel", "wheel from sdist"])
def test_wheels_hold_the_package_the_weights_and_nothing_else(built: dict[str, Path], source: Path, kind: str) -> None:
    with zipfile.ZipFile(built[kind]) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"jaxviz-{PROJECT['version']}.dist-info/METADATA").decode()
        entry = archive.read(f"jaxviz-{PROJECT['version']}.dist-info/entry_points.txt").decode()
        assert archive.read(IN_WHEEL) == (source / "weights" / NAME).read_bytes()
    data = {str(path.relative_to(ROOT)) for path in (ROOT / "jaxviz" / "_data").glob("*") if path.is_file()}
    about = {f"jaxviz-{PROJECT['version']}.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    licence = {f"jaxviz-{PROJECT['version']}.dist-info/licenses/LICENSE"}
    assert names == modules() | data | templates() | about | licence | {IN_WHEEL, "jaxviz/py.typed"}
    assert "License-Expression: Apache-2.0\n" in metadata and "Requires-Python: >=3.11\n" in metadata
    assert "jaxviz = jaxviz.cli:main" in entry


@pytest.mark.full
def test_a_missing_network_ends_the_build(source: Path, tmp_path: Path) -> None:
    lacking = tmp_path / "lacking"
    shutil.copytree(source, lacking, ignore=shutil.ignore_patterns("*.safetensors", "tests"))
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "-o", str(tmp_path), str(lacking)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=tmp_path)
    assert done.returncode != 0 and NAME in done.stdout + done.stderr


@trained
@pytest.mark.full
@pytest.mark.parametrize("kind", ["wheel", "wheel from sdist"])
def test_an_installed_wheel_loads_the_bundled_network(built: dict[str, Path], tmp_path: Path, kind: str) -> None:
    target = tmp_path / "site"
    python("-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", target, built[kind], cwd=tmp_path)
    where, weights, name, classes, shape = probe(target, cwd=tmp_path)
    assert Path(where).is_relative_to(target) and Path(weights) == target / IN_WHEEL
    assert name == "resnet18-imagenette" and len(classes) == 10 and shape == [1, 10]


@trained
@pytest.mark.full
def test_an_editable_install_reads_the_weights_of_the_checkout(source: Path, tmp_path: Path) -> None:
    script = f"import hatchling.build; print(hatchling.build.build_editable({str(tmp_path)!r}))"
    wheel = tmp_path / python("-c", script, cwd=source).splitlines()[-1]
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".safetensors")], "a second copy of the weights"
        (pth,) = [name for name in archive.namelist() if name.endswith(".pth")]
        places = [Path(line) for line in archive.read(pth).decode().split()]
    assert places == [source]
    where, weights, *_ = probe(*places, cwd=tmp_path)
    assert Path(where) == source / "jaxviz" / "__init__.py" and Path(weights) == source / "weights" / NAME


@trained
def test_a_checkout_needs_no_install(tmp_path: Path) -> None:
    where, weights, *_ = probe(ROOT, cwd=tmp_path)
    assert Path(where) == ROOT / "jaxviz" / "__init__.py" and Path(weights) == WEIGHTS


def test_dependencies_are_what_the_code_imports() -> None:
    """No import that nothing declares, and what an extra brings only inside functions."""
    found: dict[str, bool] = {}
    for path in (ROOT / "jaxviz").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                top = name.split(".")[0]
                found[top] = found.get(top, False) or node in tree.body
    third = {name for name in found if name not in sys.stdlib_module_names and name != "jaxviz"}
    declared = {text.split(">")[0].replace("pillow", "PIL") for text in PROJECT["dependencies"]}
    declared.add("ml_dtypes")  # brought by jax, whose own dependency it is
    assert {name for name in third if found[name]} <= declared
    extras = {text.split(">")[0] for name in ("plot", "embed", "torch") for text in PROJECT["optional-dependencies"][name]}
    extras = {name.replace("scikit-learn", "sklearn") for name in extras}
    assert third - declared <= extras | {"torchvision"}


def test_pins_and_extras() -> None:
    extras = PROJECT["optional-dependencies"]
    assert {"torch==2.13.0", "torchvision==0.28.0"} <= set(extras["test"])
    assert {"cuda12", "cuda13", "tpu", "plot", "embed", "torch", "bench", "all"} <= set(extras)
    assert not [text for text in PROJECT["dependencies"] if "<" in text or "==" in text], "upper bounds rot"
