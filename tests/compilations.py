"""Count the programs that JAX compiles, by the events that it reports to `jax.monitoring`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax

EVENT = "/jax/core/compile/backend_compile_duration"  # one for each program, also where it comes from the cache on disk


@dataclass
class Compilations:
    """The names of the programs compiled so far, of which `jit_add` is that of a function `add`."""

    names: list[str] = field(default_factory=list)

    @property
    def programs(self) -> int:
        return len(self.names)


@contextmanager
def compilations() -> Iterator[Compilations]:
    """Record every program compiled inside the block, on any thread: those of the library and those of single operations alike.

    A test that nothing compiles again runs what it tests once before the block, with other values of the same shapes:

        >>> saliency(model, images, 0)
        >>> with compilations() as compiled:
        ...     saliency(model, 1 - images, 3)
        >>> assert not compiled.names
    """
    compiled = Compilations()

    def listen(event: str, _: float, **details: Any) -> None:
        if event == EVENT:
            compiled.names.append(str(details.get("fun_name", "")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
