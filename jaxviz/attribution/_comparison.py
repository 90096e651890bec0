"""Attributions of several methods side by side, as one picture, a matplotlib figure, or the parts of a table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from jaxviz import plot
from jaxviz._errors import ArgumentError
from jaxviz._types import ArrayLike
from jaxviz.attribution._pictures import (
    Look,
    Share,
    View,
    as_photos,
    as_rgb,
    captions,
    choose_view,
    draw,
    target_names,
    with_target_axis,
)
from jaxviz.attribution._types import AttributionLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TableParts(TypedDict):
    """Parts of a table that are arguments of both `jaxviz.plot.table` and `jaxviz.plot.figure`."""

    pictures: Sequence[Sequence[np.ndarray]]
    columns: Sequence[str]
    captions: Sequence[Sequence[str]]
    groups: Sequence[tuple[str, int]]
    bars: Sequence[plot.Bar]


def compare(
    attributions: Sequence[AttributionLike],
    images: ArrayLike | None = None,
    *,
    view: View | Sequence[View] = "auto",
    percentile: float = 99,
    share: Share = "map",
    names: Sequence[str] = (),
    title: str | None = None,
    across: int | None = None,
    tile: int | None = None,
    dark: bool = False,
) -> np.ndarray:
    """Return the maps of several methods side by side: a row for each image, columns for methods and their targets.

    Args:
        attributions: by several methods, of the same N images.
        images: float32 (N, H, W, C) in [0, 1], the images, shown as the first column; no such column by default.
        view: see `Look`; one for all methods or one for each.
        percentile: see `Look`.
        share: see `Look`. Methods never share a limit: their units differ.
        names: N names, to the left of the rows, or none.
        title: a line above the table.
        across: methods side by side; the others follow below, with the images repeated. All by default.
        tile: height of a picture in pixels.
        dark: white on black.

    Returns:
        uint8 (height, width, 3), RGB.

    Raises:
        ArgumentError: no attributions, or attributions of different images.

    >>> maps = [jv.attribute(model, images, method) for method in ("saliency", "guided_backprop")]
    >>> jv.attribution.compare(maps, images).shape[-1]
    3
    """
    if across is not None and across < 1:
        raise ArgumentError(f"Expected across >= 1; got {across}.")
    views = _as_views(attributions, view)
    bands = -(-len(attributions) // (across or len(attributions) or 1)) or 1
    cuts = [-(-len(attributions) * i // bands) for i in range(bands + 1)]  # bands of equal width, up to one method
    parts = [layout(attributions[a:b], images, views[a:b], percentile=percentile, share=share) for a, b in pairwise(cuts)]
    bars = list({bar.name: bar for part in parts for bar in part["bars"]}.values())
    tables = [
        plot.table(
            part["pictures"],
            columns=part["columns"],
            rows=names,
            captions=part["captions"],
            groups=part["groups"],
            bars=bars if i == bands - 1 else (),
            title=title if i == 0 else None,
            tile=tile,
            dark=dark,
        )
        for i, part in enumerate(parts)
    ]
    return plot.stack(tables, dark=dark)


def figure(attribution: AttributionLike, images: ArrayLike | None, look: Look, inches: float) -> Figure:
    """Return the maps of one method as a matplotlib figure."""
    parts = layout(
        [attribution],
        images,
        look.get("view", "auto"),
        percentile=look.get("percentile", 99),
        share=look.get("share", "map"),
    )
    return plot.figure(**parts, inches=inches)


def layout(
    attributions: Sequence[AttributionLike],
    images: ArrayLike | None,
    view: View | Sequence[View],
    *,
    percentile: float,
    share: Share,
) -> TableParts:
    """Return the pictures, headings, captions and color bars of a table."""
    counts = {len(attribution) for attribution in attributions}
    if len(counts) != 1:
        raise ArgumentError(f"Expected attributions of the same images; got {sorted(counts) or 'none'}.")
    views = _as_views(attributions, view)
    photos = as_photos(attributions[0], images)
    drawn = [
        with_target_axis(attribution, draw(attribution, photos, view=its_view, percentile=percentile, share=share))
        for attribution, its_view in zip(attributions, views, strict=True)
    ]
    sizes = {pictures.shape[2:4] for pictures in drawn}
    if len(sizes) > 1:
        raise ArgumentError(f"Expected maps of one size, or the images to resize them to; got {sorted(sizes)}.")
    # Targets that all methods share stand below the photograph; below the maps stands only what differs.
    same = photos is not None and len({tuple(map(tuple, target_names(each))) for each in attributions}) == 1
    texts = [captions(attribution, names=not same) for attribution in attributions]
    lines = [[text for part in texts for text in part[i]] for i in range(counts.pop())]
    cells = [[picture for pictures in drawn for picture in pictures[i]] for i in range(len(lines))]
    columns = [heading for attribution in attributions for heading in _headings(attribution)]
    groups: list[tuple[str, int]] = []
    if any(attribution.many for attribution in attributions):
        groups = [(attribution.method, np.shape(target_names(attribution))[1]) for attribution in attributions]
    if photos is not None:
        above = captions(attributions[0], reasons=False) if same and not attributions[0].many else [[""]] * len(lines)
        lines = [[", ".join(words), *line] for words, line in zip(above, lines, strict=True)]
        cells = [[photo, *row] for photo, row in zip(as_rgb(photos), cells, strict=True)]
        columns, groups = ["", *columns], [("", 1), *groups] if groups else []
    drawn_views = [choose_view(each, its_view, photos is not None) for each, its_view in zip(attributions, views, strict=True)]
    return {
        "pictures": cells,
        "columns": columns,
        "captions": lines if any(map(any, lines)) else (),
        "groups": groups,
        "bars": _color_bars(drawn_views, percentile),
    }


def _as_views(attributions: Sequence[AttributionLike], view: View | Sequence[View]) -> list[View]:
    views: list[View] = [view] * len(attributions) if isinstance(view, str) else list(view)
    if len(views) != len(attributions):
        raise ArgumentError(f"Expected one view, or {len(attributions)}; got {len(views)}.")
    return views


def _headings(attribution: AttributionLike) -> list[str]:
    """Return the heading of each column: the method, or, with K targets, the target if it is the same in all rows."""
    names = np.asarray(target_names(attribution))
    if not attribution.many:
        return [attribution.method]
    return [str(column[0]) if (column == column[0]).all() else f"target {k + 1}" for k, column in enumerate(names.T)]


def _color_bars(views: Sequence[tuple[str, bool]], percentile: float) -> list[plot.Bar]:
    last = "largest" if percentile == 100 else f"{percentile:g}th percentile"
    bars: dict[str, plot.Bar] = {}
    for view, signed in views:
        if signed:
            bars["signed"] = plot.Bar("signed", "blue_red", (f"-{last}", "0", last))
        elif view in ("heat", "overlay"):
            bars["heat"] = plot.Bar("heat", "inferno", ("least", last))
        elif view == "gray":
            bars["gray"] = plot.Bar("absolute", "gray", ("least", last))
    return list(bars.values())
