"""Names of files, made from labels of units, layers and images."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence


def split_label(label: str) -> tuple[str, str]:
    """Split `"layer3:7"` into its layer and its unit; a label without a colon is all unit."""
    head, colon, tail = label.partition(":")
    return (head, tail) if colon else ("", label)


class FileNames:
    """File names, no two alike: ASCII, safe on every file system, distinct also where upper and lower case are one.

    >>> from jaxviz._file_names import FileNames
    >>> names = FileNames()
    >>> names("layer1.0/Conv"), names("layer1.0 conv")
    ('layer1.0-Conv', 'layer1.0-conv_2')
    """

    def __init__(self, used: Iterable[str] = ()) -> None:
        self._used = {name.lower() for name in used}
        self._next: dict[str, int] = {}

    def __call__(self, text: str, default: str = "unit", length: int = 80) -> str:
        """Return a new name for a text; `default` where no character of it can be kept."""
        plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
        stem = name = re.sub(r"[^A-Za-z0-9._]+", "-", plain)[:length].strip("-._") or default
        number = self._next.get(stem.lower(), 2)
        while name.lower() in self._used:
            name, number = f"{stem}_{number}", number + 1
        self._used.add(name.lower())
        self._next[stem.lower()] = number
        return name


def picture_names(labels: Sequence[str], samples: int, names: FileNames | None = None) -> list[list[str]]:
    """Return a PNG name for every unit and sample, such as `layer3-0007-0.png`.

    Args:
        labels: such as `"layer3:7"`.
        samples: pictures of each unit.
        names: the names that other units of the same folder have already.
    """
    names = names or FileNames()
    stems: list[str] = []
    for label in labels:
        layer, unit = split_label(label)
        unit = f"{int(unit):04d}" if re.fullmatch(r"\d{1,9}", unit, re.ASCII) else unit
        stems.append(names(f"{layer}-{unit}", length=100))
    return [[f"{stem}-{sample}.png" for sample in range(samples)] for stem in stems]
