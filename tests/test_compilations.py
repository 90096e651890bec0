"""The counter of compilations counts: what would be missed here, no other test could see."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from threading import Thread

import jax
import jax.numpy as jnp
import numpy as np

from tests.compilations import compilations

ROOT = Path(__file__).parents[1]
CACHED = """
import sys
import jax
import numpy as np
from tests.compilations import compilations

jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
with compilations() as compiled:
    jax.jit(lambda x: 2 * x + 1)(np.ones(3, np.float32))
print(compiled.programs)
"""


@partial(jax.jit, static_argnums=0)
def power(exponent: int, x: jax.Array) -> jax.Array:
    return x**exponent


def test_each_program_counts_once() -> None:
    x = np.ones(7, np.float32)
    jax.clear_caches()
    with compilations() as compiled:
        power(3, x)
        power(3, 2 * x)
        assert compiled.programs == 1 and "power" in compiled.names[0]
        power(4, x)
        assert compiled.programs == 2, "another static argument is another program"
        power(4, x[:6])
        assert compiled.programs == 3, "another shape is another program"
        jnp.cosh(x[:5])
        assert compiled.programs == 4, "an operation outside programs is one too"
    power(5, x)
    assert compiled.programs == 4, "what comes after the block is not counted"


def test_blocks_nest_and_threads_count() -> None:
    x = np.ones(9, np.float32)
    jax.clear_caches()
    with compilations() as outer:
        power(2, x)
        with compilations() as inner:
            thread = Thread(target=power, args=(3, x))
            thread.start()
            thread.join()
        power(4, x)
    assert (outer.programs, inner.programs) == (3, 1)


def test_a_program_from_the_cache_on_disk_counts(tmp_path: Path) -> None:
    for _ in range(2):
        process = subprocess.run(
            [sys.executable, "-c", CACHED, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert process.stdout == "1\n"
        assert any(tmp_path.iterdir())
