"""Objectives that compare with a target: a layer's features, an image's features, an image's pixels."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._pytree import leaf as number
from jaxviz._types import Array, ArrayLike
from jaxviz.image import resize
from jaxviz.models import Model, layer_shape
from jaxviz.objectives._algebra import Activations, Objective, leaf, pytree, reference_name, static
from jaxviz.objectives._basic import LayerObjective, norm, numbered

_DISTANCES = ("l2", "cosine", "dot")
NO_IDS = np.zeros((1, 0), np.uint32)  # a target is not a unit: keys come from the seed and the sample alone


@pytree
class Match(LayerObjective):
    """Features of a layer; see `match`."""

    target: ArrayLike = leaf(3)  # (h, w, C); (1, 1, C) for a layer without positions
    cossim_power: ArrayLike = leaf()
    distance: str = static(default="l2")

    def __call__(self, acts: Activations, images: Array) -> Array:
        return closeness(acts[self.layer], jnp.asarray(self.target)[None], self.distance, self.cossim_power)

    def bind(self, model: Model, size: tuple[int, int]) -> Objective:
        shape = layer_shape(model.network, self.layer, size)
        if np.shape(self.target)[-3:] != (shape if len(shape) == 3 else (1, 1, *shape)):
            at = f"{size[0]} x {size[1]} pixels"
            got = np.shape(self.target)[-3:] if len(shape) == 3 else np.shape(self.target)[-1:]
            raise ArgumentError(f"Layer {self.layer!r} has shape {shape} for images of {at}; got features of shape {got}.")
        return self

    def ids(self, model: Model) -> np.ndarray | None:
        return NO_IDS

    def labels(self, model: Model) -> tuple[str, ...]:
        return numbered(f"{self.layer} match", self.target, 3)


@pytree
class MatchImage(LayerObjective):
    """The features of an image, seen through the same transforms; see `match_image`."""

    image: ArrayLike = leaf(3)
    cossim_power: ArrayLike = leaf()
    distance: str = static(default="l2")

    def __call__(self, acts: Activations, images: Array) -> Array:
        return closeness(acts[self.layer], acts[reference_name(self.layer)], self.distance, self.cossim_power)

    def bind(self, model: Model, size: tuple[int, int]) -> Objective:
        layer_shape(model.network, self.layer, size)
        return dataclasses.replace(self, image=fitted(self.image, model, size))

    def ids(self, model: Model) -> np.ndarray | None:
        return NO_IDS

    def reference(self) -> Array | None:
        return jnp.asarray(self.image)

    def labels(self, model: Model) -> tuple[str, ...]:
        return numbered(f"{self.layer} match", self.image, 3)


@pytree
class Near(Objective):
    """The pixels of an image; see `near`."""

    image: ArrayLike = leaf(3)

    def __call__(self, acts: Activations, images: Array) -> Array:
        return -jnp.square(images - acts[reference_name()]).mean((1, 2, 3))

    def bind(self, model: Model, size: tuple[int, int]) -> Objective:
        return Near(fitted(self.image, model, size))

    def layers(self) -> tuple[str, ...]:
        return ()

    def ids(self, model: Model) -> np.ndarray | None:
        return NO_IDS

    def reference(self) -> Array | None:
        return jnp.asarray(self.image)

    def labels(self, model: Model) -> tuple[str, ...]:
        return numbered("near", self.image, 3)


def match(layer: str, features: ArrayLike, *, distance: str = "l2", cossim_power: float = 1.0) -> Objective:
    """Maximize the match with target activations of a whole layer: feature inversion (Mahendran and Vedaldi 2015).

    With phi the layer's activations of the image, as one vector, and t the target:

        "l2"      -|phi - t|^2 / |t|^2, 0 if they agree (Mahendran and Vedaldi's loss, negated)
        "cosine"  phi . t / (|phi| |t|), at most 1
        "dot"     phi . t * max(0.1, cosine) ** cossim_power, Lucid's caricature: large activations that point the same way

    Lucid's own cosine is `phi . t / |t|`, which grows with the activations; ours divides by both norms.

    Args:
        layer: a node or module name.
        features: float32 (h, w, C), the layer's shape for images of the run's size; (C,) for a layer without positions. With
            an axis K in front, K units of work.
        distance: `"l2"`, `"cosine"` or `"dot"`; static.
        cossim_power: for `"dot"` only, at least 0; traced.

    Raises:
        ArgumentError: another shape, numbers that are not finite, features that are all 0 (the norm is a divisor).

    >>> features = model.activations(photos, ["layer2"])["layer2"]
    >>> jv.visualize(model, jv.match("layer2", features), size=photos.shape[1:3], steps=1, transforms=()).labels
    ('layer2 match:0', 'layer2 match:1')
    """
    target = np.asarray(features, np.float32)
    if not 1 <= target.ndim <= 4 or not target.size or not np.isfinite(target).all():
        raise ArgumentError(
            f"Expected finite features (h, w, C) or (C,), or K of them, (K, h, w, C) or (K, C); got shape {target.shape}."
        )
    if target.ndim < 3:
        target = target.reshape(*target.shape[:-1], 1, 1, target.shape[-1])
    if not np.square(target).sum((-3, -2, -1)).all():
        raise ArgumentError("Expected features that are not all 0: the loss is relative to their norm.")
    return Match(layer, target, number(cossim_power, "cossim_power", low=0), _known(distance))


def match_image(layer: str, images: ArrayLike, *, distance: str = "l2", cossim_power: float = 1.0) -> Objective:
    """Maximize the match with a layer's activations for an image: `match`, with the target computed at each step.

    The target image gets the same random transforms as the optimized one, as in Lucid's caricatures, so any transforms may be
    used. It is resized to the size of the run.

    Args:
        layer: a node or module name.
        images: float32 (H, W, C) in [0, 1], or (K, H, W, C) for K units of work.
        distance: `"l2"`, `"cosine"` or `"dot"`, see `match`; static.
        cossim_power: for `"dot"` only, at least 0; traced.

    Raises:
        ArgumentError: images of another shape or range.

    >>> jv.visualize(model, jv.match_image("layer3", photos, distance="dot"), steps=1, size=32).labels
    ('layer3 match:0', 'layer3 match:1')
    """
    return MatchImage(layer, as_images(images), number(cossim_power, "cossim_power", low=0), _known(distance))


def near(images: ArrayLike) -> Objective:
    """Stay near an image: minus the mean squared difference to it, both with the same random transforms.

    Between -1 and 0, which is the image itself. Larger is better, as for all objectives: add it, with a weight.

    Args:
        images: float32 (H, W, C) in [0, 1], or (K, H, W, C) for K units of work; resized to the size of the run.

    Raises:
        ArgumentError: images of another shape or range.

    >>> photo = photos[0]
    >>> jv.visualize(model, jv.channel("layer4", 7) + 100.0 * jv.near(photo), start=photo, steps=1).labels
    ('layer4:7',)
    """
    return Near(as_images(images))


def closeness(act: Array, target: Array, distance: str, power: ArrayLike) -> Array:
    """Return how near activations (S, ...) are to targets (S or 1, ...), by the formulas of `match`, (S,)."""
    act, target = act.reshape(act.shape[0], -1), target.reshape(target.shape[0], -1)
    if distance == "l2":
        return -jnp.square(act - target).sum(1) / jnp.maximum(jnp.square(target).sum(1), 1e-12)
    dot = (act * target).sum(1)
    cosine = dot / (jnp.maximum(norm(act), 1e-4) * jnp.maximum(norm(target), 1e-4))  # a finite gradient at 0
    return cosine if distance == "cosine" else dot * jnp.maximum(cosine, 0.1) ** power


def as_images(images: ArrayLike) -> np.ndarray:
    """Return images (H, W, C) or (K, H, W, C) as float32; their channels and range are checked by `fitted`."""
    array = np.asarray(images)
    if not np.issubdtype(array.dtype, np.floating) or array.ndim not in (3, 4) or not array.size:
        expected = "Expected float images (H, W, C) or (K, H, W, C) in [0, 1]"
        raise ArgumentError(f"{expected}; got {array.dtype} of shape {array.shape}. Divide 8-bit images by 255.")
    return array.astype(np.float32)


def fitted(images: ArrayLike, model: Model, size: tuple[int, int]) -> np.ndarray:
    """Return images (H, W, C) or (K, H, W, C) at `size`, checked against the network's channels and [0, 1]."""
    array = np.asarray(images)
    model.check_images(array if array.ndim == 4 else array[None])
    return array if array.shape[-3:-1] == tuple(size) else np.asarray(resize(array, size))


def _known(distance: str) -> str:
    if distance not in _DISTANCES:
        raise ArgumentError(f"distance is 'l2', 'cosine' or 'dot', not {distance!r}.")
    return distance
