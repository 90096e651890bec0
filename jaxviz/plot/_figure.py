"""Tables of pictures as matplotlib figures, to edit or save as vectors; matplotlib is imported on use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxviz._errors import UnsupportedError
from jaxviz._types import ArrayLike
from jaxviz.plot._canvas import tiles
from jaxviz.plot._colors import color_table
from jaxviz.plot._table import Bar, check_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure(
    pictures: Sequence[Sequence[ArrayLike]] | ArrayLike,
    *,
    columns: Sequence[str],
    rows: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    groups: Sequence[tuple[str, int]] = (),
    bars: Sequence[Bar] = (),
    title: str | None = None,
    inches: float = 1.6,
) -> Figure:
    """Return the layout of `table` as a `matplotlib.figure.Figure`, without pyplot and its global state.

    Args:
        pictures, columns, rows, captions, groups, bars, title: see `table`.
        inches: height of a picture.

    Returns:
        A figure with one axes per picture, `figure.axes[r * Q + q]`, followed by one per color bar.

    Raises:
        ArgumentError: see `table`.
        UnsupportedError: matplotlib is not installed.

    >>> figure([photos], columns=["photo 1", "photo 2"]).savefig("figure.pdf")
    """
    try:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import ListedColormap, Normalize
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UnsupportedError(
            "Figures need matplotlib, which is not installed: pip install 'jaxviz[plot]'. "
            "jaxviz.plot.table returns the same as an array without it."
        ) from error
    shown = [tiles(np.stack([np.asarray(picture) for picture in row])) for row in pictures]
    check_table(shown, columns, rows, captions, groups)
    _, height, width, _ = shown[0].shape
    across, down = len(columns), len(shown)
    size = (across * inches * width / height * 1.06 + (1 if rows else 0), down * inches * 1.18 + 0.5 + (0.7 if bars else 0))
    made = Figure(figsize=size, layout="constrained")
    body, *foot = made.subfigures(2 if bars else 1, 1, height_ratios=[size[1] - 0.7, 0.7] if bars else None, squeeze=False).flat
    heads = {}
    at = 0
    for text, count in groups:
        heads[at], at = text, at + count
    axes = body.subplots(down, across, squeeze=False)
    for r, row in enumerate(shown):
        for q, picture in enumerate(row):
            place = axes[r, q]
            place.imshow(picture, interpolation="nearest")
            place.set_xticks([])
            place.set_yticks([])
            for side in place.spines.values():
                side.set_visible(False)
            if r == 0:
                place.set_title(f"{heads[q]}\n{columns[q]}" if heads.get(q) else columns[q], fontsize=8)
            if q == 0 and rows:
                place.set_ylabel(rows[r], fontsize=8, rotation=0, ha="right", va="center")
            if captions:
                place.set_xlabel(captions[r][q], fontsize=7)
    if title:
        made.suptitle(title, fontsize=10)
    for place, bar in zip(foot[0].subplots(1, len(bars), squeeze=False).flat if bars else (), bars, strict=True):
        colors = ScalarMappable(Normalize(0, len(bar.ends) - 1), ListedColormap(color_table(bar.colors) / 255))
        drawn = made.colorbar(colors, cax=place, orientation="horizontal", ticks=range(len(bar.ends)))
        drawn.ax.set_xticklabels(bar.ends, fontsize=7)
        drawn.ax.set_title(bar.name, fontsize=8)
    return made
