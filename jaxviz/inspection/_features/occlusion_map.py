"""Occlusion maps of score and predicted class (Zeiler and Fergus, 2014)."""

from __future__ import annotations

import dataclasses
from typing import Any, Unpack

import numpy as np

from jaxviz import plot
from jaxviz._errors import ArgumentError
from jaxviz._types import ArrayLike
from jaxviz.attribution import Attribution, occlusion, probability
from jaxviz.engine import RunOptions
from jaxviz.image import to_uint8
from jaxviz.models import Model
from jaxviz.plot._canvas import tiles

HEAT, SAME, OTHER = 0.75, 0.3, 0.75  # opacity over a gray photo: of the score, the unchanged class, another class


@dataclasses.dataclass(frozen=True, eq=False)
class OcclusionMap:
    """Score and predicted class for each position of an occluding window in N images.

    Attributes:
        images: float32 (N, H, W, C) in [0, 1].
        scores: float32 (N, rows, columns), score of the target.
        classes: int32 (N, rows, columns), top class.
        whole: int32 (N,), top class of the whole image.
        window, stride: height and width in pixels.
        attribution: the underlying `jaxviz.attribution.occlusion`.
        class_names: class names of the network; may be empty.
    """

    images: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    whole: np.ndarray
    window: tuple[int, int]
    stride: tuple[int, int]
    attribution: Attribution
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def name(self, label: int) -> str:
        """Return the name of a class, or its number if classes have no names."""
        return self.class_names[label] if self.class_names else str(label)

    def changed(self) -> np.ndarray:
        """Return the share of windows that change the predicted class, float64 (N,)."""
        return (self.classes != self.whole[:, None, None]).mean((1, 2))

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Enlarge values (..., rows, columns) of windows to the image: a pixel takes the window with the nearest center."""
        index: list[np.ndarray] = []
        for axis, length in enumerate(self.images.shape[1:3]):
            begin = np.arange(values.shape[-2 + axis]) * self.stride[axis]
            center = (begin + np.minimum(begin + self.window[axis], length) - 1) / 2  # the last window is clipped at the border
            index.append(np.abs(np.arange(length)[:, None] - center).argmin(1))
        return values[..., index[0][:, None], index[1][None]]

    def picture(self, *, tile: int = 224, title: str | None = None, dark: bool = False) -> np.ndarray:
        """Draw a table, uint8 (height, width, 3): each image, its score and its predicted class by position of the window.

        The score is dark where the window removes evidence. A legend of the classes is below.

        Args:
            tile: height of a picture in pixels.
            title: a line above the table; the window by default.
            dark: white on black.
        """
        photo = to_uint8(self.images).astype(np.float64)
        photo = np.broadcast_to(photo, (*photo.shape[:3], 3))
        gray = (photo @ np.array([0.299, 0.587, 0.114]))[..., None]
        low, high = (float(f(self.scores[np.isfinite(self.scores)], initial=0)) for f in (np.min, np.max))
        high = max(1.0, high) if self._is_probability else high
        heat = plot.colorize(self.spread(self.scores), "viridis", (low, high))
        labels = np.union1d(self.classes, self.whole)
        tints = plot.class_colors(labels, len(self.class_names) or int(labels.max()) + 1)
        classes = self.spread(self.classes)
        opacity = np.where(classes == self.whole[:, None, None], SAME, OTHER)[..., None]
        fields = gray + opacity * (tints[np.searchsorted(labels, classes)] - gray)
        pictures = [to_uint8(values.astype(np.float32) / 255) for values in (photo, gray + HEAT * (heat - gray), fields)]
        rows = [[tiles(picture[i][None], tile)[0] for picture in pictures] for i in range(len(self))]
        captions: list[list[str]] = []
        for i, changed in enumerate(self.changed()):
            score, target = float(self.attribution.scores[i]), str(self.attribution.targets[i])
            target = target.removeprefix("probability ") if self._is_probability else target
            least = f"{np.nanmin(self.scores[i]):.2f}"
            label = self.name(int(self.whole[i]))
            captions.append([label, f"{target} {score:.2f}, down to {least}", f"not {label}: {changed:.0%}"])
        summary = f"Covered by a window of {self.window[0]} x {self.window[1]}, every {self.stride[0]} pixels"
        page = plot.table(
            rows,
            columns=["image", "score when covered", "class when covered"],
            captions=captions,
            bars=[plot.Bar("score", "viridis", (f"{low:.2g}", f"{high:.2g}"))],
            title=summary if title is None else title,
            tile=tile,
            dark=dark,
        )
        margin = max(16, tile // 6)
        key = plot.legend([self.name(int(c)) for c in labels], tints, width=page.shape[1] - 2 * margin, dark=dark)
        paper = page[0, 0]
        key = np.concatenate([np.broadcast_to(paper, (len(key), margin, 3)), key], 1)
        foot = np.broadcast_to(paper, (margin // 2, 1, 3))
        return plot.stack([page[: -margin // 2], key, foot], dark=dark)

    @property
    def _is_probability(self) -> bool:
        return "probability" in str(self.attribution.targets.flat[0])


def occlusion_map(
    model: Model,
    images: ArrayLike,
    target: Any = None,
    *,
    window: int | tuple[int, int] | None = None,
    stride: int | tuple[int, int] | None = None,
    baseline: Any = "mean",
    **run: Unpack[RunOptions],
) -> OcclusionMap:
    """Cover each place of images in turn, and return the score and the predicted class.

    Args:
        model: a classifier.
        images: float32 (N, H, W, C) in [0, 1].
        target: one target per image, see `jaxviz.attribute`; the probability of the top class by default.
        window: side in pixels, or (height, width); a quarter of each side by default.
        stride: pixels between windows; a quarter of the window by default.
        baseline: content of the window; the network's mean color by default.
        **run: see `RunOptions`.

    Raises:
        ArgumentError: unsuitable images, target, window or baseline; several targets, or a target without classes.

    >>> occlusion_map(model, images, window=32, stride=16).classes.shape
    (2, 7, 7)
    """
    images = model.check_images(images)
    if window is None:
        window = (max(1, int(images.shape[1]) // 4), max(1, int(images.shape[2]) // 4))
    if stride is None:
        sides = (window, window) if isinstance(window, int) else window
        stride = (max(1, int(sides[0]) // 4), max(1, int(sides[1]) // 4))
    target = probability() if target is None else target
    attribution = occlusion(model, images, target, window=window, stride=stride, baseline=baseline, **run)
    if attribution.scores.ndim != 1 or "window_classes" not in attribution.extra:
        raise ArgumentError(
            "Expected one target for each image, a class or a function of the logits, and windows over all channels."
        )
    return OcclusionMap(
        images=np.asarray(images),
        scores=attribution.extra["window_scores"],
        classes=attribution.extra["window_classes"],
        whole=np.asarray(model(images)).argmax(1).astype(np.int32),
        window=_pair(attribution.settings["window"]),
        stride=_pair(attribution.settings["stride"]),
        attribution=attribution,
        class_names=model.class_names,
    )


def _pair(extent: Any) -> tuple[int, int]:
    return int(extent[0]), int(extent[1])
