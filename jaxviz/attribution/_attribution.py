"""`Attribution`: raw, signed maps and how they were computed; reduced, normalized, resized and cut out in separate steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import jax
import numpy as np

from jaxviz import plot
from jaxviz._errors import ArgumentError
from jaxviz._types import ArrayLike, StrPath
from jaxviz.attribution import _comparison as comparison
from jaxviz.attribution import _files as files
from jaxviz.attribution import _pictures as pictures
from jaxviz.attribution._target import FunctionTarget, ObjectiveTarget, Target
from jaxviz.attribution._types import Normalization, Reduction
from jaxviz.image import Size
from jaxviz.image import resize as resize_images
from jaxviz.models import Model
from jaxviz.objectives._algebra import combine

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OK, BLANK, NEGATIVE, NOT_FINITE = "ok", "zero everywhere", "negative everywhere, cut off by ReLU", "not finite"
_NOT_DIAGNOSED = np.empty(0, str)  # the default of `diagnosis`, replaced at once


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Attribution:
    """Which pixels made the network say it: maps of N images, and of K targets each where several were asked for.

    Attributes:
        maps: raw and signed, float32 (N, H, W, C); (N, h, w) of methods that know places only, such as Grad-CAM. With K targets
            (N, K, H, W, C) or (N, K, h, w).
        scores: float32 (N,) or (N, K), what is explained, of the image itself.
        targets: str (N,) or (N, K), names of what is explained, such as `"church"` or `"layer3:7"`.
        classes: int32 (N,) or (N, K), the classes, or None where the target is no class.
        method: such as `"grad_cam"`.
        spatial: whether the maps have no color axis.
        layer: whose activations the method looked at, or None.
        delta: float32 (N,) or (N, K), the sum of the map less the change of the score, of methods that promise 0; or None.
        diagnosis: str (N,) or (N, K): `"ok"`, or why there is nothing to see: `"zero everywhere"`,
            `"negative everywhere, cut off by ReLU"` or `"not finite"`.
        settings: how it was made; anything JSON can hold.
        extra: further arrays that a method gives, with the axis of N images in front.

    >>> attribution = jaxviz.attribution.saliency(model, images)
    >>> float(attribution.reduce("max_abs").normalize().maps.max())
    1.0
    """

    maps: np.ndarray
    scores: np.ndarray
    targets: np.ndarray
    classes: np.ndarray | None
    method: str
    spatial: bool
    layer: str | None = None
    delta: np.ndarray | None = None
    diagnosis: np.ndarray = dataclasses.field(default_factory=lambda: _NOT_DIAGNOSED)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    extra: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.diagnosis is _NOT_DIAGNOSED:
            object.__setattr__(self, "diagnosis", diagnose(self.maps, self.scores.ndim))
        lead = self.scores.shape
        if self.maps.ndim != len(lead) + (2 if self.spatial else 3) or self.maps.shape[: len(lead)] != lead or not lead:
            raise ArgumentError(f"Expected maps for scores of shape {lead}; got {self.maps.shape}.")

    def __len__(self) -> int:
        return len(self.maps)

    def __iter__(self) -> Iterator[Attribution]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: int | slice | list[int] | np.ndarray) -> Attribution:
        """Return the maps of some images, with the same axes: a position, a slice or several positions."""
        rows = np.atleast_1d(np.arange(len(self))[key])
        names = ("maps", "scores", "targets", "classes", "delta", "diagnosis")
        cut = {name: value[rows] for name in names if (value := getattr(self, name)) is not None}
        return dataclasses.replace(self, **cut, extra={name: value[rows] for name, value in self.extra.items()})

    @property
    def many(self) -> bool:
        """Whether there is an axis of K targets after that of the images."""
        return self.scores.ndim == 2

    def reduce(self, how: Reduction = "max_abs") -> Attribution:
        """Return maps without colors, (N, H, W) or (N, K, H, W): the largest absolute value, or a sum, over the channels.

        Maps that have no colors already stay as they are, but for absolute values where these are asked for.
        """
        if how not in ("max_abs", "sum_abs", "sum"):
            raise ArgumentError(f"reduce is 'max_abs', 'sum_abs' or 'sum', not {how!r}.")
        values = self.maps if how == "sum" else np.abs(self.maps)
        if not self.spatial:
            values = values.max(-1) if how == "max_abs" else values.sum(-1)
        return dataclasses.replace(self, maps=values, spatial=True)

    def normalize(self, how: Normalization = "max_abs") -> Attribution:
        """Return each map scaled by itself: to [-1, 1] by its largest absolute value, or to [0, 1] from its least to its most.

        Blank maps stay 0. Under `"max_abs"` zero stays zero and the sign stays.
        """
        axes = tuple(range(self.scores.ndim, self.maps.ndim))
        if how == "max_abs":
            low, size = 0.0, np.abs(self.maps).max(axes, keepdims=True)
        elif how == "min_max":
            low = self.maps.min(axes, keepdims=True)
            size = self.maps.max(axes, keepdims=True) - low
        else:
            raise ArgumentError(f"normalize by 'max_abs' or 'min_max', not {how!r}.")
        with np.errstate(invalid="ignore"):
            return dataclasses.replace(self, maps=(self.maps - low) / np.where(size > 0, size, 1))

    def resize(self, size: Size, method: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear") -> Attribution:
        """Return the maps at another size: pixels of a side, or (height, width). Shrinking averages (antialiasing)."""
        maps = self.maps[..., None] if self.spatial else self.maps
        found = np.asarray(resize_images(maps, size, method))
        return dataclasses.replace(self, maps=found[..., 0] if self.spatial else found)

    def threshold(self, keep: float = 0.2) -> np.ndarray:
        """Return a mask, bool (N, H, W) or (N, K, H, W): the places with the highest values, a share `keep` of each map.

        Of maps with colors, `reduce("sum_abs")` is looked at. Blank maps give empty masks.
        """
        if not 0 < keep <= 1:
            raise ArgumentError(f"Expected a share of the places above 0 and at most 1; got {keep!r}.")
        maps = self.maps if self.spatial else self.reduce("sum_abs").maps
        flat = maps.reshape(*self.scores.shape, -1)
        count = max(1, round(keep * flat.shape[-1]))
        order = np.argsort(-flat, axis=-1, kind="stable")[..., :count]
        mask = np.zeros(flat.shape, bool)
        np.put_along_axis(mask, order, True, axis=-1)
        return (mask & (self.diagnosis == OK)[..., None]).reshape(maps.shape)

    def cut_out(self, images: ArrayLike, keep: float = 0.2, fill: float = 0.5) -> np.ndarray:
        """Return the images with everything but `threshold(keep)` filled: float32 (N, H, W, C), or (N, K, H, W, C)."""
        images = np.asarray(images, np.float32)
        if images.ndim != 4 or len(images) != len(self):
            raise ArgumentError(f"Expected the {len(self)} images that were explained, (N, H, W, C); got {images.shape}.")
        mask = self.resize((images.shape[1], images.shape[2])).threshold(keep)[..., None]
        return np.where(mask, images[:, None] if self.many else images, np.float32(fill))

    def overlay(
        self,
        images: ArrayLike,
        *,
        signed: bool | None = None,
        share: pictures.Share = "map",
        alpha: float = 0.8,
        constant: bool = False,
        colors: plot.Colors | None = None,
        fade: float = 0.8,
        percentile: float = 99,
    ) -> np.ndarray:
        """Return the maps over the images, RGB uint8 (N, H, W, 3), or (N, K, H, W, 3).

        Args:
            images: (N, H, W, C) in [0, 1], the explained images.
            signed: blue for negative, red for positive; chosen as for `view="auto"` of `Look` by default.
            share: which maps share their limit, see `Look`.
            alpha, constant, colors, fade, percentile: see `jaxviz.plot.overlay`.

        >>> maps = jv.attribute(model, images, "grad_cam")
        >>> maps.overlay(images, constant=True, alpha=0.5, colors="turbo").shape == images.shape
        True
        """
        return pictures.overlay(
            self,
            images,
            signed=signed,
            share=share,
            alpha=alpha,
            constant=constant,
            colors=colors,
            fade=fade,
            percentile=percentile,
        )

    def picture(
        self,
        images: ArrayLike | None = None,
        *,
        columns: int | None = None,
        tile: int | None = None,
        dark: bool = False,
        **look: Unpack[pictures.Look],
    ) -> np.ndarray:
        """Return all maps on one page, beside their images where given, with what is explained: uint8 (height, width, 3).

        Maps with nothing in them are hatched, and the reason stands below. `compare` puts several methods side by side.
        Args: see `jaxviz.plot.contact_sheet` and `jaxviz.attribution.Look`.
        """
        return pictures.sheet(self, images, look, columns=columns, tile=tile, dark=dark)

    def figure(self, images: ArrayLike | None = None, *, inches: float = 1.6, **look: Unpack[pictures.Look]) -> Figure:
        """Return the maps as a `matplotlib.figure.Figure`, a row for each image; see `picture`, and `jaxviz.plot.figure`."""
        return comparison.figure(self, images, look, inches)

    def save(
        self, folder: StrPath, images: ArrayLike | None = None, *, overwrite: bool = False, **look: Unpack[pictures.Look]
    ) -> Path:
        """Write `attribution.npz` (exact arrays), `attribution.json` (for people), a PNG of each map, `contact_sheet.png`.

        The PNGs are named `grad_cam-0007-1.png` for target 1 of image 7. Each file appears in one step, the arrays last.
        Overlays need the images; `overwrite` replaces an older attribution and removes its pictures.

        Raises:
            SaveError: the folder cannot be written, or a file is in the way and `overwrite` is False.
        """
        files.write(self, Path(folder), images, look, overwrite)
        return Path(folder)

    def _repr_jpeg_(self) -> bytes | None:
        return pictures.jpeg_of(self)

    def _repr_html_(self) -> str:
        return pictures.html_of(self)

    def __repr__(self) -> str:
        targets = f" x {self.scores.shape[1]} targets" if self.many else ""
        shape = "x".join(map(str, self.maps.shape[self.scores.ndim :]))
        return f"Attribution({self.method}: {len(self)} images{targets}, maps of {shape})"


def load_attribution(folder: StrPath) -> Attribution:
    """Read an `Attribution` that `Attribution.save` wrote: exact arrays and settings.

    Raises:
        SaveError: the folder holds none, or a damaged one.
    """
    return Attribution(**files.read(folder))


def diagnose(maps: np.ndarray, lead: int, *, negative: np.ndarray | None = None) -> np.ndarray:
    """Return for each map whether there is something to see in it, or why not.

    Args:
        maps: (N, ...) or (N, K, ...).
        lead: how many axes number the maps.
        negative: of blank maps, whether they were negative before a ReLU.
    """
    flat = maps.reshape(*maps.shape[:lead], -1)
    words = np.where(np.isfinite(flat).all(-1), np.where((flat != 0).any(-1), OK, BLANK), NOT_FINITE)
    return words if negative is None else np.where((words == BLANK) & negative, NEGATIVE, words)


def finished(
    method: str,
    model: Model,
    target: Target,
    found: Mapping[str, Any],
    *,
    spatial: bool,
    settings: Mapping[str, Any],
    layer: str | None = None,
    negative: np.ndarray | None = None,
    extra: Mapping[str, np.ndarray] | None = None,
) -> Attribution:
    """Return the attribution of what a program found.

    Args:
        method: its name.
        model: with its class names.
        target: what was explained.
        found: `maps` (N, K, ...), `scores` (N, K), `index` (N, K) or None, and, where there is one, `delta` (N, K).
        spatial: whether the maps have no color axis.
        settings: how it was made.
        layer: whose activations were looked at.
        negative: (N, K), see `diagnose`.
        extra: further arrays.
    """
    index = found["index"]
    count, k = found["scores"].shape
    if index is not None:
        names = np.asarray(model.class_names or [str(i) for i in range(model.num_classes)])[index]
    elif isinstance(target, ObjectiveTarget):
        labels = combine(target.each, target.rest).labels(model) or ("objective",)
        names = np.broadcast_to(np.asarray(labels)[:k], (count, k))
    else:
        name = getattr(target.fn, "__name__", "function") if isinstance(target, FunctionTarget) else "target"
        names = np.full((count, k), name)
    score = getattr(target, "score", "logit")
    names = names if score == "logit" else np.char.add(f"{score} ", names)
    arrays: dict[str, Any] = {
        "maps": found["maps"],
        "scores": found["scores"],
        "targets": names,
        "classes": index,
        "delta": found.get("delta"),
    }
    negative = negative if target.many or negative is None else negative[:, 0]
    if not target.many:
        arrays: dict[str, Any] = {name: None if value is None else value[:, 0] for name, value in arrays.items()}
    diagnosis = diagnose(arrays["maps"], 2 if target.many else 1, negative=negative)
    about = {"model": model.name, "method": method, "layer": layer, **settings}
    return Attribution(
        **arrays,
        method=method,
        spatial=spatial,
        layer=layer,
        diagnosis=diagnosis,
        settings={name: _plain(value) for name, value in about.items()},
        extra=dict(extra or {}),
    )


def _plain(value: Any) -> Any:
    """Return a setting as JSON can hold it: an array as its shape."""
    if isinstance(value, np.ndarray | jax.Array):
        return f"array {tuple(value.shape)}" if value.ndim else value.item()
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, str | int | float | bool) else repr(value)
