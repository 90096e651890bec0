"""Options, markers and devices that all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import jax
import pytest

from tests.browser import Browser, started

pytest.register_assert_rewrite("tests.contracts")  # its failures show values too

# Most of the time of the tests is XLA's, compiling: with these it takes half as long, and what it compiles is as fast for small
# networks. With a variable of one's own, an empty one too, these stay out; tests' processes inherit them. XLA ends the process
# where it does not know an option, as jax 0.12 does not know the second.
QUICK = "--xla_backend_optimization_level=1"
if version("jaxlib").startswith("0.10."):
    QUICK += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", QUICK)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # PyTorch's: the tests already run in a process for each core

# Sharding is tested on 1, 2 and 4 devices; the number of CPU devices can only be set before the backend starts.
jax.config.update("jax_num_cpu_devices", 4)


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
    parser.addoption("--fuzz-cases", type=int, default=200, help="damaged weight files and images to try (default 200)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "network: needs the internet; skipped unless --run-network is given")
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
