"""Aliases shared by the annotations of every room."""

from __future__ import annotations

from os import PathLike
from typing import Any, TypeAlias

import jax
import numpy as np

Array: TypeAlias = jax.Array
ArrayLike: TypeAlias = jax.Array | np.ndarray
PyTree: TypeAlias = Any
StrPath: TypeAlias = str | PathLike[str]
