"""Attributions as pictures: one method's maps, laid over the photographs, several methods side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

import numpy as np
from PIL import Image

from jaxviz import plot
from jaxviz._errors import ArgumentError
from jaxviz._types import ArrayLike
from jaxviz.image import to_uint8

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxviz.attribution._attribution import Attribution

View: TypeAlias = Literal["auto", "overlay", "heat", "signed", "grey", "colour"]
Share: TypeAlias = Literal["map", "image", "all"]
_NOTEBOOK = 24  # maps that a notebook shows of more
VIEWS = ("auto", "overlay", "heat", "signed", "grey", "colour")


class Look(TypedDict, total=False):
    """How maps are drawn.

    Attributes:
        view: `"overlay"`, over the photograph, `"heat"`, `"signed"`, `"grey"` or `"colour"`, see `jaxviz.plot.draw_maps`; or
            `"auto"`: of maps without colours an overlay where there are photographs and otherwise heat, signed where a value
            is negative; of maps with colours signed sums over the colours where these are parts of the score (methods with
            a baseline), otherwise grey, the largest absolute value of the colours.
        percentile: that gets the last colour, so that a few extreme pixels do not leave all others dark.
        share: which maps share it, to be compared: each `"map"` by itself, the K targets of an `"image"`, or `"all"`.
    """

    view: View
    percentile: float
    share: Share


def draw(
    attribution: Attribution,
    images: ArrayLike | None = None,
    *,
    view: View = "auto",
    percentile: float = 99,
    share: Share = "map",
) -> np.ndarray:
    """Return a picture of each map, uint8 (N, H, W, 3) or (N, K, H, W, 3); with images at their size."""
    if view not in VIEWS:
        raise ArgumentError(f"A view is one of {', '.join(VIEWS)}; got {view!r}.")
    photos = _photos(attribution, images)
    chosen, signed = _chosen(attribution, view, photos is not None)
    options: dict[str, Any] = {"percentile": percentile, "shared": _axes(attribution, share)}
    if chosen == "colour":
        if attribution.spatial or attribution.maps.shape[-1] != 3:
            raise ArgumentError(f"The maps of {attribution.method} have no three colours: take another view.")
        sized = attribution if photos is None else attribution.resize(photos.shape[1:3])
        return plot.draw_maps(sized.maps, "colour", **options)
    maps = attribution.maps if attribution.spatial else attribution.reduce("sum" if signed else "max_abs").maps
    if chosen == "overlay":
        if photos is None:
            raise ArgumentError("An overlay needs the images that were explained: picture(images, view='overlay').")
        return plot.overlay(photos, maps, signed=signed, **options)
    maps = maps if photos is None else plot.fitted(np.asarray(maps, np.float64), photos.shape[1:3])
    return plot.draw_maps(maps, chosen, **options)


def overlay(
    attribution: Attribution, images: ArrayLike, *, signed: bool | None = None, share: Share = "map", **options: Any
) -> np.ndarray:
    """Return `jaxviz.plot.overlay` of the maps, those with colours reduced to their largest absolute value, or sum."""
    signed = _chosen(attribution, "overlay", True)[1] if signed is None else signed
    maps = attribution.maps if attribution.spatial else attribution.reduce("sum" if signed else "max_abs").maps
    photos = _photos(attribution, images)
    assert photos is not None
    return plot.overlay(photos, maps, signed=signed, shared=_axes(attribution, share), **options)


def sheet(
    attribution: Attribution,
    images: ArrayLike | None,
    look: Look,
    *,
    columns: int | None = None,
    tile: int | None = None,
    dark: bool = False,
) -> np.ndarray:
    """Return all maps on one page, each image's K beside it, with what is explained and its score below."""
    drawn = _with_targets(attribution, draw(attribution, images, **look))
    photos = _photos(attribution, images)
    if photos is not None:
        drawn = np.concatenate([_rgb(photos)[:, None], drawn], 1)
    words = [", ".join(line) for line in captions(attribution, scores=False)]
    scores = np.reshape(attribution.scores, (len(attribution), -1))
    notes = [f"{row[0]:.3g}" if len(row) == 1 else "" for row in scores]
    section = plot.Section("", drawn, words, notes)
    return plot.contact_sheet([section], title=_title(attribution), columns=columns, tile=tile, dark=dark)


def compare(
    attributions: Sequence[Attribution],
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
    """Put the maps of several methods side by side: images as rows, methods and their targets as columns.

    Args:
        attributions: of the same N images, by several methods.
        images: float32 (N, H, W, C) in [0, 1], the images, as first column; none where not given.
        view: see `Attribution.picture`; one for all or one for each.
        percentile: see `Attribution.picture`.
        share: see `Attribution.picture`; methods never share a limit, for their units differ.
        names: N names, to the left of the rows, or none.
        title: a line above all.
        across: methods beside each other; the others follow below, beside the images again. All unless given.
        tile: height of a picture in pixels.
        dark: white on black.

    Returns:
        uint8 (height, width, 3), RGB.

    Raises:
        ArgumentError: no attributions, or of different images.

    >>> compare([saliency(model, images), guided_backprop(model, images)], images).shape[-1]
    3
    """
    if across is not None and across < 1:
        raise ArgumentError(f"Expected across >= 1; got {across}.")
    views = _views(attributions, view)
    bands = -(-len(attributions) // (across or len(attributions) or 1)) or 1
    cuts = [-(-len(attributions) * i // bands) for i in range(bands + 1)]  # as evenly as it goes
    parts = [layout(attributions[a:b], images, views[a:b], percentile=percentile, share=share) for a, b in pairwise(cuts)]
    bars = list({bar.name: bar for part in parts for bar in part["bars"]}.values())
    tables = []
    for i, part in enumerate(parts):
        around = {"title": title if i == 0 else None, "bars": bars if i == bands - 1 else ()}
        tables.append(plot.table(**{**part, **around}, rows=names, tile=tile, dark=dark))
    return plot.stack(tables, dark=dark)


def layout(
    attributions: Sequence[Attribution],
    images: ArrayLike | None,
    view: View | Sequence[View],
    *,
    percentile: float,
    share: Share,
) -> dict[str, Any]:
    """Return the pictures, headings, captions and bars of a table, as `jaxviz.plot.table` and `figure` take them."""
    counts = {len(one) for one in attributions}
    if len(counts) != 1:
        raise ArgumentError(f"Expected attributions of the same images; got {sorted(counts) or 'none'}.")
    views = _views(attributions, view)
    photos = _photos(attributions[0], images)
    drawn = [
        _with_targets(one, draw(one, photos, view=v, percentile=percentile, share=share))
        for one, v in zip(attributions, views, strict=True)
    ]
    sizes = {pictures.shape[2:4] for pictures in drawn}
    if len(sizes) > 1:
        raise ArgumentError(f"Expected maps of one size, or the images to scale them to; got {sorted(sizes)}.")
    # What all methods explain stands below the photograph, and below the maps only what is special about one.
    same = photos is not None and len({tuple(map(tuple, _names(one))) for one in attributions}) == 1
    texts = [captions(one, names=not same) for one in attributions]
    lines = [[text for part in texts for text in part[i]] for i in range(counts.pop())]
    cells = [[picture for pictures in drawn for picture in pictures[i]] for i in range(len(lines))]
    columns = [head for one in attributions for head in _heads(one)]
    groups = [(_title(one), np.shape(_names(one))[1]) for one in attributions] if any(one.many for one in attributions) else []
    if photos is not None:
        above = captions(attributions[0], reasons=False) if same and not attributions[0].many else [[""]] * len(lines)
        lines = [[", ".join(words), *line] for words, line in zip(above, lines, strict=True)]
        cells = [[photo, *row] for photo, row in zip(_rgb(photos), cells, strict=True)]
        columns, groups = ["", *columns], [("", 1), *groups] if groups else []
    seen = [_chosen(one, v, photos is not None) for one, v in zip(attributions, views, strict=True)]
    return {
        "pictures": cells,
        "columns": columns,
        "captions": lines if any(map(any, lines)) else (),
        "groups": groups,
        "bars": _bars(seen, percentile),
    }


def captions(attribution: Attribution, *, names: bool = True, scores: bool = True, reasons: bool = True) -> list[list[str]]:
    """Return what to write below each map, N lists of K: what is explained and its score, or why there is nothing to see."""
    words = _names(attribution)
    values = np.reshape(attribution.scores, np.shape(words))
    diagnosis = np.reshape(attribution.diagnosis if reasons else np.full(np.shape(words), "ok"), np.shape(words))
    found = []
    for row, numbers, told in zip(words, values, diagnosis, strict=True):
        texts = [f"{name} {number:.3g}" if scores else name for name, number in zip(row, numbers, strict=True)]
        texts = texts if names else [""] * len(row)
        found.append([t if why == "ok" else f"{t}: {why}" if t else str(why) for t, why in zip(texts, told, strict=True)])
    return found


def _views(attributions: Sequence[Attribution], view: View | Sequence[View]) -> list[Any]:
    views = [view] * len(attributions) if isinstance(view, str) else list(view)
    if len(views) != len(attributions):
        raise ArgumentError(f"Expected one view, or {len(attributions)}; got {len(views)}.")
    return views


def _chosen(attribution: Attribution, view: View, photos: bool) -> tuple[Any, bool]:
    """Return the view that `"auto"` means, and whether it shows the sign."""
    additive = attribution.delta is not None or "baseline" in attribution.settings
    with np.errstate(invalid="ignore"):
        signed = bool((attribution.maps < 0).any()) and (attribution.spatial or additive)
    if view == "auto" and attribution.spatial:
        view = "overlay" if photos else "signed" if signed else "heat"
    elif view == "auto":
        view = "signed" if signed else "grey"
    return view, view == "signed" or (view == "overlay" and signed)


def _bars(seen: Sequence[tuple[str, bool]], percentile: float) -> list[plot.Bar]:
    last = "largest" if percentile == 100 else f"{percentile:g}th percentile"
    bars = {}
    for view, signed in seen:
        if signed:
            bars["signed"] = plot.Bar("signed", "blue_red", (f"-{last}", "0", last))
        elif view in ("heat", "overlay"):
            bars["heat"] = plot.Bar("heat", "inferno", ("least", last))
        elif view == "grey":
            bars["grey"] = plot.Bar("absolute", "grey", ("least", last))
    return list(bars.values())


def _heads(attribution: Attribution) -> list[str]:
    """Return the heading of each column: the method, or, of K targets, what all rows explain there."""
    names = np.asarray(_names(attribution))
    if not attribution.many:
        return [_title(attribution)]
    return [str(column[0]) if (column == column[0]).all() else f"target {k + 1}" for k, column in enumerate(names.T)]


def _title(attribution: Attribution) -> str:
    return attribution.method


def _names(attribution: Attribution) -> list[list[str]]:
    return np.reshape(attribution.targets, (len(attribution), -1)).astype(str).tolist()


def _with_targets(attribution: Attribution, pictures: np.ndarray) -> np.ndarray:
    return pictures if attribution.many else pictures[:, None]


def _photos(attribution: Attribution, images: ArrayLike | None) -> np.ndarray | None:
    if images is None:
        return None
    photos = np.asarray(images)
    if photos.ndim != 4 or len(photos) != len(attribution):
        raise ArgumentError(f"Expected the {len(attribution)} images that were explained, (N, H, W, C); got {photos.shape}.")
    return photos


def _rgb(photos: np.ndarray) -> np.ndarray:
    pictures = to_uint8(photos)
    return np.broadcast_to(pictures, (*pictures.shape[:3], 3)) if pictures.shape[-1] == 1 else pictures


def _axes(attribution: Attribution, share: Share) -> list[int]:
    if share not in ("map", "image", "all"):
        raise ArgumentError(f"Maps share their limit by 'map', 'image' or 'all'; got {share!r}.")
    lead = attribution.scores.ndim
    return {"map": [], "image": list(range(1, lead)), "all": list(range(lead))}[share]


def figure(attribution: Attribution, images: ArrayLike | None, look: Look, inches: float) -> Figure:
    """Return one method's maps as a matplotlib figure."""
    options: Any = {"percentile": 99, "share": "map", **look}
    parts = layout([attribution], images, options.pop("view", "auto"), **options)
    return plot.figure(**parts, inches=inches)


def jpeg_of(attribution: Attribution) -> bytes | None:
    """Return the page of the first images, as JPEG, for notebooks."""
    return plot.jpeg(Image.fromarray(sheet(_first(attribution), None, {}))) if len(attribution) else None


def html_of(attribution: Attribution) -> str:
    """Return the page with the names of what is explained, as HTML, for notebooks; whatever these hold is text."""
    shown, lines = _first(attribution), [repr(attribution)]
    if len(shown) < len(attribution):
        lines.append(f"The first {len(shown)} of {len(attribution)} images are shown.")
    names = "; ".join(map(", ".join, captions(shown))) if len(shown) else ""
    return plot.figure_html(jpeg_of(attribution), names, *lines)


def _first(attribution: Attribution) -> Attribution:
    """Return what a notebook shows: images with not more than some maps in all."""
    many = attribution.scores.shape[1] if attribution.many else 1
    return attribution[: max(1, _NOTEBOOK // max(many, 1))]
