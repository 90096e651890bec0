"""Aliases for annotations."""

from __future__ import annotations

from os import PathLike
from typing import Any, TypeAlias

import jax
import numpy as np

Array: TypeAlias = jax.Array
ArrayLike: TypeAlias = jax.Array | np.ndarray
PyTree: TypeAlias = Any
Device: TypeAlias = Any  # a `jax.Device`, which type checkers take for a variable
StrPath: TypeAlias = str | PathLike[str]
