"""Devices and processes: settings that only a program, not a library, may change."""

from __future__ import annotations

import os

import jax
import typer

from jaxviz._errors import ArgumentError


def use_cpu_devices(count: int | None, units: int | None = None) -> None:
    """Let JAX use one host device for each core, to keep a CPU busy; without effect once JAX has started.

    With fewer `units` than cores, use one device for each unit: units are not divided, so more devices would be idle, and the
    devices share all cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        jax.config.update("jax_num_cpu_devices", count or min(cores, units or cores))
    except RuntimeError:
        pass


def join_processes(coordinator: str | None, processes: int | None, process_id: int | None, distributed: bool) -> None:
    """Join the other processes of a run on several machines, before JAX initializes devices."""
    has = [option is not None for option in (coordinator, processes, process_id)]
    if any(has) and (distributed or not all(has)):
        raise typer.BadParameter("give --coordinator, --processes and --process-id together, or --distributed alone.")
    if distributed or all(has):
        try:
            jax.distributed.initialize(coordinator, processes, process_id)
        except (RuntimeError, ValueError) as error:
            raise ArgumentError(f"Cannot join the other processes: {error}") from error
