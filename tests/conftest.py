"""Options, markers and devices that all tests share."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

# Most of the time of the tests is XLA's, compiling. Without optimizations it takes half as long, and small networks run as
# fast. Where XLA_FLAGS is set, even to nothing, these flags stay out; processes that tests start inherit them. XLA ends the
# process where it does not know a flag, as jax 0.12 does not know the second.
# The full tier has some: two programs that compute the same are compiled alike only then, to the last bit.
QUICK = f"--xla_backend_optimization_level={int('full' in sys.argv)}"
if version("jaxlib").startswith("0.10."):
    QUICK += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", QUICK)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # PyTorch's: the tests already run in a process for each core

# What one process has compiled, the other workers and the processes that tests start read from a cache. It lasts as long as the
# run; with a JAX_COMPILATION_CACHE_DIR of your own the next run reads it too, and takes a fraction of the time.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _cache = tempfile.mkdtemp(prefix="jaxviz-tests-")
    atexit.register(shutil.rmtree, _cache, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")

import jax  # noqa: E402
import pytest  # noqa: E402

from tests.browser import Browser, started  # noqa: E402

pytest.register_assert_rewrite("tests.contracts")  # its failures show values too

# Sharding is tested on 1, 2 and 4 devices; the number of CPU devices can only be set before the backend starts.
jax.config.update("jax_num_cpu_devices", 4)
jax.devices()  # starts it here: a command under test would start it with as many devices as it needs


MAPS = 12_000  # memory maps of a process; compiled programs need them, and Linux gives it no more than 65530


@pytest.fixture(scope="module", autouse=True)
def _room_for_compiled_programs() -> Iterator[None]:
    """Forget compiled programs after a file where they are many: all files' do not fit into a process."""
    yield
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_text().count("\n") > MAPS:
        jax.clear_caches()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-network", action="store_true", help="also run the tests that download torchvision's weights")
    parser.addoption("--first", action="store_true", help="of each test only the first of its cases")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: too long for every run: `-m full` runs these tests alone, `.ci/run` all")
    config.addinivalue_line("markers", "network: needs the internet; skipped unless --run-network is given")
    if not config.option.markexpr:
        config.option.markexpr = "not full"
    config.addinivalue_line(
        "markers", "once: of processes, pages, damaged files and the README, which no other version of Python changes"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--run-network"):
        for item in items:
            if "network" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs the internet: pytest --run-network"))
    if config.getoption("--first"):
        first = set({item.nodeid.partition("[")[0]: item for item in reversed(items)}.values())
        config.hook.pytest_deselected(items=[item for item in items if item not in first])
        items[:] = [item for item in items if item in first]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium, see `tests/browser.py`; one for all tests of a process."""
    yield from started(tmp_path_factory.mktemp("browser"))
