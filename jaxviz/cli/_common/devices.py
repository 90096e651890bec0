"""Devices and processes: what only a program, and not a library, may decide."""

from __future__ import annotations

import os

import jax
import typer

from jaxviz._errors import ArgumentError


def use_cpu_devices(count: int | None, units: int | None = None) -> None:
    """Ask JAX for one host device per core, which a CPU needs to be busy; too late, and harmless, once JAX has started.

    Where there are fewer `units` than cores, for as many as units: no unit is divided, a device without one would idle, and
    the cores are shared among the devices that there are.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        jax.config.update("jax_num_cpu_devices", count or min(cores, units or cores))
    except RuntimeError:
        pass


def join_processes(coordinator: str | None, processes: int | None, process_id: int | None, distributed: bool) -> None:
    """Join the other processes of a run on several machines, before JAX looks at any device."""
    given = [option is not None for option in (coordinator, processes, process_id)]
    if any(given) and (distributed or not all(given)):
        raise typer.BadParameter("give --coordinator, --processes and --process-id together, or --distributed alone.")
    if distributed or all(given):
        try:
            jax.distributed.initialize(coordinator, processes, process_id)
        except (RuntimeError, ValueError) as error:
            raise ArgumentError(f"Cannot join the other processes: {error}") from error
