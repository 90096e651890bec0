"""Occlusion as Zeiler and Fergus drew it (2014): what the network says, and how sure it is, when a place is covered."""

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

HEAT, SAME, OTHER = 0.75, 0.3, 0.75  # opacity over a grey photo: of the score, of the class that it is anyway, of another


@dataclasses.dataclass(frozen=True, eq=False)
class OcclusionMap:
    """The score and the predicted class for each window that covers a place of N images.

    Attributes:
        images: float32 (N, H, W, C) in [0, 1].
        scores: float32 (N, rows, columns), the target's score with the window there.
        classes: int32 (N, rows, columns), the top class with the window there.
        whole: int32 (N,), the top class with nothing covered.
        window, stride: pixels of height and width.
        attribution: the `jaxviz.attribution.occlusion` that it is made of, with what each pixel takes away.
        class_names: of the network, or empty.
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
        """Return a class's name, or its number where there are none."""
        return self.class_names[label] if self.class_names else str(label)

    def changed(self) -> np.ndarray:
        """Return the share of windows with which the network says another class, float64 (N,)."""
        return (self.classes != self.whole[:, None, None]).mean((1, 2))

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Return values (..., rows, columns) of windows at the images' size: of the window with the nearest centre."""
        index = []
        for axis, length in enumerate(self.images.shape[1:3]):
            begin = np.arange(values.shape[-2 + axis]) * self.stride[axis]
            centre = (begin + np.minimum(begin + self.window[axis], length) - 1) / 2  # the last one is cut at the border
            index.append(np.abs(np.arange(length)[:, None] - centre).argmin(1))
        return values[..., index[0][:, None], index[1][None]]

    def picture(self, *, tile: int = 224, title: str | None = None, dark: bool = False) -> np.ndarray:
        """Return a table, uint8 (height, width, 3): each image, its score and its predicted class by what is covered.

        Dark places of the score are those that it needs. Below are the colours of the classes.

        Args:
            tile: pixels of a picture's height.
            title: a line above all; the window unless given.
            dark: white on black.
        """
        photo = to_uint8(self.images).astype(np.float64)
        photo = np.broadcast_to(photo, (*photo.shape[:3], 3))
        grey = (photo @ np.array([0.299, 0.587, 0.114]))[..., None]
        low, high = (float(f(self.scores[np.isfinite(self.scores)], initial=0)) for f in (np.min, np.max))
        high = max(1.0, high) if self._is_probability else high
        heat = plot.colorize(self.spread(self.scores), "viridis", (low, high))
        said = np.union1d(self.classes, self.whole)
        tints = plot.class_colors(said, len(self.class_names) or int(said.max()) + 1)
        classes = self.spread(self.classes)
        opacity = np.where(classes == self.whole[:, None, None], SAME, OTHER)[..., None]
        fields = grey + opacity * (tints[np.searchsorted(said, classes)] - grey)
        shown = [to_uint8(one.astype(np.float32) / 255) for one in (photo, grey + HEAT * (heat - grey), fields)]
        rows = [[tiles(one[i][None], tile)[0] for one in shown] for i in range(len(self))]
        captions = []
        for i, changed in enumerate(self.changed()):
            score, target = float(self.attribution.scores[i]), str(self.attribution.targets[i])
            target = target.removeprefix("probability ") if self._is_probability else target
            least = f"{np.nanmin(self.scores[i]):.2f}"
            says = self.name(int(self.whole[i]))
            captions.append([says, f"{target} {score:.2f}, down to {least}", f"another than {says}: {changed:.0%}"])
        words = f"Covered by a window of {self.window[0]} x {self.window[1]}, every {self.stride[0]} pixels"
        page = plot.table(
            rows,
            columns=["image", "score when covered", "class when covered"],
            captions=captions,
            bars=[plot.Bar("score", "viridis", (f"{low:.2g}", f"{high:.2g}"))],
            title=words if title is None else title,
            tile=tile,
            dark=dark,
        )
        margin = max(16, tile // 6)
        key = plot.legend([self.name(int(c)) for c in said], tints, width=page.shape[1] - 2 * margin, dark=dark)
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
    """Cover one place of images after the other, and tell what the network then says.

    Args:
        model: a network of classes.
        images: float32 (N, H, W, C) in [0, 1].
        target: whose score; one of each image. The probability of its top class unless given; see `jaxviz.attribute`.
        window: pixels of a side, or (height, width); a quarter of each side unless given.
        stride: pixels from window to window; a quarter of the window unless given.
        baseline: what covers; the network's mean colour unless given.
        **run: see `jaxviz.engine.RunOptions`.

    Raises:
        ArgumentError: images, target, window or baseline that do not fit; several targets, or one that knows no classes.

    >>> occlusion_map(model, images, window=32, stride=16).classes.shape
    (2, 7, 7)
    """
    images = model.check_images(images)
    if window is None:
        window = (max(1, int(images.shape[1]) // 4), max(1, int(images.shape[2]) // 4))
    if stride is None:
        sides = (window, window) if isinstance(window, int) else window
        stride = (max(1, int(sides[0]) // 4), max(1, int(sides[1]) // 4))
    wanted = probability() if target is None else target
    made = occlusion(model, images, wanted, window=window, stride=stride, baseline=baseline, **run)
    if made.scores.ndim != 1 or "window_classes" not in made.extra:
        raise ArgumentError(
            "Expected one target for each image, a class or a function of the logits, and windows over all channels."
        )
    return OcclusionMap(
        images=np.asarray(images),
        scores=made.extra["window_scores"],
        classes=made.extra["window_classes"],
        whole=np.asarray(model(images)).argmax(1).astype(np.int32),
        window=_pair(made.settings["window"]),
        stride=_pair(made.settings["stride"]),
        attribution=made,
        class_names=model.class_names,
    )


def _pair(extent: Any) -> tuple[int, int]:
    return int(extent[0]), int(extent[1])
