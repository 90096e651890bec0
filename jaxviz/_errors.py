"""The errors of the library. Messages say what was expected, what was found and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class JaxvizError(Exception):
    """Base of every error that jaxviz raises on purpose."""


class ArgumentError(JaxvizError, ValueError):
    """An argument has the wrong shape, range, type or value."""


class LayerError(ArgumentError):
    """A layer name that the network does not have."""


class UnitError(ArgumentError):
    """A unit, channel, position or class that the layer does not have."""


class UnsupportedError(JaxvizError, NotImplementedError):
    """A network or operation that jaxviz does not support."""


class CheckpointError(JaxvizError):
    """A weight file that is damaged, unsafe, or does not fit the network."""


class DownloadError(JaxvizError):
    """Weights that could not be downloaded or do not match their hash."""


class ImageError(JaxvizError):
    """An image file that cannot be read or written."""


class SaveError(JaxvizError):
    """A result that could not be written or read back."""


class MemoryLimitError(JaxvizError, MemoryError):
    """A device has too little memory for a single unit of work."""


def near_matches(name: str, known: Iterable[str], limit: int = 5) -> str:
    """Return `" Did you mean 'a', 'b'?"`, or an empty string if no known name is similar.

    >>> near_matches("layr3", ["layer1", "layer3", "fc"])
    " Did you mean 'layer3', 'layer1'?"
    """
    by_lower = {k.lower(): k for k in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=limit)
    return f" Did you mean {', '.join(repr(by_lower[k]) for k in near)}?" if near else ""
