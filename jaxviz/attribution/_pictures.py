"""One attribution as pictures: a picture of each map, overlays on the photographs, a page, and what notebooks show."""

from __future__ import annotations

from typing import Literal, TypeAlias, TypedDict

import numpy as np
from PIL import Image

from jaxviz import plot
from jaxviz._errors import ArgumentError
from jaxviz._types import ArrayLike
from jaxviz.attribution._types import AttributionLike
from jaxviz.image import to_uint8

View: TypeAlias = Literal["auto", "overlay", "heat", "signed", "gray", "color"]
DrawnView: TypeAlias = Literal["overlay", "heat", "signed", "gray", "color"]
Share: TypeAlias = Literal["map", "image", "all"]
NOTEBOOK_MAPS = 24  # the most maps that a notebook shows
VIEWS = ("auto", "overlay", "heat", "signed", "gray", "color")


class Look(TypedDict, total=False):
    """How maps are drawn.

    Attributes:
        view: `"overlay"` on the photograph, `"heat"`, `"signed"`, `"gray"` or `"color"`, see `jaxviz.plot.draw_maps`; or
            `"auto"`. For maps without color channels `"auto"` is an overlay if there are photographs and heat otherwise, signed
            if a value is negative. For maps with color channels it is the signed sum over the channels if the channels are
            parts of the score (methods with a baseline), and otherwise their largest absolute value in gray.
        percentile: the percentile of a map's values that gets the last color, so that a few extreme pixels do not darken the
            rest.
        share: which maps share this limit: each `"map"` has its own, or the K targets of an `"image"`, or `"all"` maps.
    """

    view: View
    percentile: float
    share: Share


def draw(
    attribution: AttributionLike,
    images: ArrayLike | None = None,
    *,
    view: View = "auto",
    percentile: float = 99,
    share: Share = "map",
) -> np.ndarray:
    """Return a picture of each map, uint8 (N, H, W, 3) or (N, K, H, W, 3); at the size of the images if they are given."""
    if view not in VIEWS:
        raise ArgumentError(f"A view is one of {', '.join(VIEWS)}; got {view!r}.")
    photos = as_photos(attribution, images)
    shared = _shared_axes(attribution, share)
    drawn_view, signed = choose_view(attribution, view, photos is not None)
    if drawn_view == "color":
        if attribution.spatial or attribution.maps.shape[-1] != 3:
            raise ArgumentError(f"The maps of {attribution.method} do not have three color channels: choose another view.")
        sized = attribution if photos is None else attribution.resize((photos.shape[1], photos.shape[2]))
        return plot.draw_maps(sized.maps, "color", percentile=percentile, shared=shared)
    maps = attribution.maps if attribution.spatial else attribution.reduce("sum" if signed else "max_abs").maps
    if drawn_view == "overlay":
        if photos is None:
            raise ArgumentError("An overlay needs the explained images: picture(images, view='overlay').")
        return plot.overlay(photos, maps, signed=signed, percentile=percentile, shared=shared)
    maps = maps if photos is None else plot.fitted(np.asarray(maps, np.float64), (photos.shape[1], photos.shape[2]))
    return plot.draw_maps(maps, drawn_view, percentile=percentile, shared=shared)


def overlay(
    attribution: AttributionLike,
    images: ArrayLike,
    *,
    signed: bool | None,
    share: Share,
    alpha: float,
    constant: bool,
    colors: plot.Colors | None,
    fade: float,
    percentile: float,
) -> np.ndarray:
    """Return `jaxviz.plot.overlay` of the maps; color channels are reduced to their largest absolute value, or their sum."""
    signed = choose_view(attribution, "overlay", True)[1] if signed is None else signed
    maps = attribution.maps if attribution.spatial else attribution.reduce("sum" if signed else "max_abs").maps
    photos = as_photos(attribution, images)
    assert photos is not None
    return plot.overlay(
        photos,
        maps,
        signed=signed,
        shared=_shared_axes(attribution, share),
        alpha=alpha,
        constant=constant,
        colors=colors,
        fade=fade,
        percentile=percentile,
    )


def sheet(
    attribution: AttributionLike,
    images: ArrayLike | None,
    look: Look,
    *,
    columns: int | None = None,
    tile: int | None = None,
    dark: bool = False,
) -> np.ndarray:
    """Return all maps on one page, the K maps of an image side by side, each with its target and score below."""
    pictures = with_target_axis(attribution, draw(attribution, images, **look))
    photos = as_photos(attribution, images)
    if photos is not None:
        pictures = np.concatenate([as_rgb(photos)[:, None], pictures], 1)
    names = [", ".join(line) for line in captions(attribution, scores=False)]
    scores = np.reshape(attribution.scores, (len(attribution), -1))
    notes = [f"{row[0]:.3g}" if len(row) == 1 else "" for row in scores]
    section = plot.Section("", pictures, names, notes)
    return plot.contact_sheet([section], title=attribution.method, columns=columns, tile=tile, dark=dark)


def captions(attribution: AttributionLike, *, names: bool = True, scores: bool = True, reasons: bool = True) -> list[list[str]]:
    """Return the line below each map, N lists of K: the target and its score, or the reason why the map is empty."""
    targets = target_names(attribution)
    shape = np.shape(targets)
    values = np.reshape(attribution.scores, shape)
    diagnosis = np.reshape(attribution.diagnosis if reasons else np.full(shape, "ok"), shape)
    lines: list[list[str]] = []
    for row, numbers, words in zip(targets, values, diagnosis, strict=True):
        texts = [f"{name} {number:.3g}" if scores else name for name, number in zip(row, numbers, strict=True)]
        texts = texts if names else [""] * len(row)
        lines.append([t if why == "ok" else f"{t}: {why}" if t else str(why) for t, why in zip(texts, words, strict=True)])
    return lines


def choose_view(attribution: AttributionLike, view: View, photos: bool) -> tuple[DrawnView, bool]:
    """Return the view that `"auto"` stands for, and whether it shows the sign."""
    additive = attribution.delta is not None or "baseline" in attribution.settings
    with np.errstate(invalid="ignore"):
        signed = bool((attribution.maps < 0).any()) and (attribution.spatial or additive)
    if view == "auto" and attribution.spatial:
        view = "overlay" if photos else "signed" if signed else "heat"
    elif view == "auto":
        view = "signed" if signed else "gray"
    return view, view == "signed" or (view == "overlay" and signed)


def target_names(attribution: AttributionLike) -> list[list[str]]:
    """Return the names of the targets, N lists of K."""
    return np.reshape(attribution.targets, (len(attribution), -1)).astype(str).tolist()


def with_target_axis(attribution: AttributionLike, pictures: np.ndarray) -> np.ndarray:
    """Return pictures (N, K, ...), with K = 1 for attributions without an axis of targets."""
    return pictures if attribution.many else pictures[:, None]


def as_photos(attribution: AttributionLike, images: ArrayLike | None) -> np.ndarray | None:
    """Return the images as a NumPy array, or raise an ArgumentError if they are not (N, H, W, C)."""
    if images is None:
        return None
    photos = np.asarray(images)
    if photos.ndim != 4 or len(photos) != len(attribution):
        raise ArgumentError(f"Expected the {len(attribution)} explained images, (N, H, W, C); got {photos.shape}.")
    return photos


def as_rgb(photos: np.ndarray) -> np.ndarray:
    """Return photographs as uint8 (N, H, W, 3)."""
    pictures = to_uint8(photos)
    return np.broadcast_to(pictures, (*pictures.shape[:3], 3)) if pictures.shape[-1] == 1 else pictures


def jpeg_of(attribution: AttributionLike) -> bytes | None:
    """Return a page of the first images as JPEG, for notebooks."""
    return plot.jpeg(Image.fromarray(sheet(_first(attribution), None, {}))) if len(attribution) else None


def html_of(attribution: AttributionLike) -> str:
    """Return a page of the first images with the names of their targets as HTML, for notebooks; names are escaped."""
    shown, lines = _first(attribution), [repr(attribution)]
    if len(shown) < len(attribution):
        lines.append(f"The first {len(shown)} of {len(attribution)} images are shown.")
    names = "; ".join(map(", ".join, captions(shown))) if len(shown) else ""
    return plot.figure_html(jpeg_of(attribution), names, *lines)


def _shared_axes(attribution: AttributionLike, share: Share) -> list[int]:
    if share not in ("map", "image", "all"):
        raise ArgumentError(f"Maps share their limit by 'map', 'image' or 'all'; got {share!r}.")
    lead = attribution.scores.ndim
    return {"map": [], "image": list(range(1, lead)), "all": list(range(lead))}[share]


def _first(attribution: AttributionLike) -> AttributionLike:
    """Return the first images, with at most `NOTEBOOK_MAPS` maps in all, but at least one image."""
    many = attribution.scores.shape[1] if attribution.many else 1
    return attribution[: max(1, NOTEBOOK_MAPS // max(many, 1))]
