"""The pictures of one photo by several methods, and the contact sheet of many photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxviz import plot
from jaxviz._file_names import FileNames
from jaxviz.attribution._attribution import Attribution
from jaxviz.attribution._comparison import layout
from jaxviz.attribution._pictures import Look

PHOTO = "photo.png"
ACROSS = 12  # pictures beside each other on the sheet, where one photo has fewer


@dataclass(frozen=True)
class Row:
    """The pictures of one photo: the photo itself, then each method's targets.

    Attributes:
        files: their names.
        pictures: uint8 (H, W, 3) each.
        columns: the headings.
        captions: what stands below each picture.
        groups: the methods and how many pictures each has; () where each has one.
        bars: the color bars of all pictures.
    """

    files: Sequence[str]
    pictures: Sequence[np.ndarray]
    columns: Sequence[str]
    captions: Sequence[str]
    groups: Sequence[tuple[str, int]]
    bars: Sequence[plot.Bar]

    def to_json(self) -> dict[str, Any]:
        """Return all but the pictures, as JSON can hold it."""
        bars = [[bar.name, bar.colors, list(bar.ends)] for bar in self.bars]
        return {"files": self.files, "columns": self.columns, "captions": self.captions, "groups": self.groups, "bars": bars}

    @classmethod
    def from_json(cls, about: Mapping[str, Any], folder: Path) -> Row:
        """Return what `to_json` returned, with the pictures from their files."""
        pictures = [np.asarray(Image.open(folder / file).convert("RGB")) for file in about["files"]]
        groups = [(str(name), int(count)) for name, count in about["groups"]]
        bars = [plot.Bar(name, colors, tuple(ends)) for name, colors, ends in about["bars"]]
        return cls(about["files"], pictures, about["columns"], about["captions"], groups, bars)


def lay_out(attributions: Mapping[str, Attribution], photo: np.ndarray, look: Look) -> Row:
    """Return the pictures of one photo (H, W, C), of which each attribution is of alone."""
    view, percentile, share = look.get("view", "auto"), look.get("percentile", 99.0), look.get("share", "map")
    parts = layout(list(attributions.values()), photo[None], view, percentile=percentile, share=share)
    files = [PHOTO, *_file_names(attributions)]
    captions = parts["captions"][0] if parts["captions"] else [""] * len(files)
    return Row(files, parts["pictures"][0], parts["columns"], captions, parts["groups"], parts["bars"])


def draw_sheet(rows: Sequence[Row], title: str | None) -> np.ndarray:
    """Return the pictures of many photos on one page, uint8 (height, width, 3).

    Photos with few pictures stand beside each other, as evenly as possible; what stays empty is white.
    """
    first = rows[0]
    width = len(first.columns)
    beside = min(len(rows), max(1, ACROSS // width))
    lines = -(-len(rows) // beside)
    beside = -(-len(rows) // lines)
    empty = lines * beside - len(rows)
    pictures = [*(row.pictures for row in rows), *[[np.full_like(first.pictures[0], 255)] * width] * empty]
    captions = [*(row.captions for row in rows), *[[""] * width] * empty]
    groups = list(first.groups) or [("", width)]
    return plot.table(
        [list(chain(*pictures[i::lines])) for i in range(lines)],
        columns=[*first.columns] * beside,
        captions=[list(chain(*captions[i::lines])) for i in range(lines)] if any(map(any, captions)) else (),
        groups=groups * beside if beside > 1 or first.groups else (),
        bars=list({bar.name: bar for row in rows for bar in row.bars}.values()),
        title=title,
        tile=min(128, max(96, first.pictures[0].shape[0])),
    )


def _file_names(attributions: Mapping[str, Attribution]) -> list[str]:
    """Return the PNG names of all methods and targets of one photo: `saliency.png`, `grad_cam-church.png`."""
    names: list[str] = []
    for method, attribution in attributions.items():
        unique = FileNames()
        targets = attribution.targets[0] if attribution.many else ()
        stems = [f"{method}-{unique(str(target), 'target', 60)}" for target in targets] or [method]
        names += [f"{stem}.png" for stem in stems]
    return names
