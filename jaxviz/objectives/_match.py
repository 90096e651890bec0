"""Objectives that compare with a target: features of a layer, an image's features, an image's pixels."""

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
from jaxviz.objectives._basic import LayerObjective, norm

_DISTANCES = ("l2", "cosine", "dot")
NO_IDS = np.zeros((1, 0), np.uint32)  # targets have no unit to be named by: keys come from the seed and the sample


@pytree
class Match(LayerObjective):
    """Given features of a layer; see `match`."""

    target: ArrayLike = leaf(3)  # (h, w, C), and (1, 1, C) where the layer has no positions
    cossim_power: ArrayLike = leaf()
    distance: str = static(default="l2")

    def __call__(self, acts: Activations, images: Array) -> Array:
        return closeness(acts[self.layer], jnp.asarray(self.target)[None], self.distance, self.cossim_power)

    def bind(self, model: Model, size: tuple[int, int]) -> Objective:
        shape = layer_shape(model, self.layer, size)
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
        layer_shape(model, self.layer, size)
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
    """Ask for given activations of a whole layer: feature inversion (Mahendran and Vedaldi 2015).

    With phi the layer's activations of the image, as one vector, and t the target:

        "l2"      -|phi - t|^2 / |t|^2, 0 where they agree (Mahendran and Vedaldi's loss, negated)
        "cosine"  phi . t / (|phi| |t|), at most 1
        "dot"     phi . t * max(0.1, cosine) ** cossim_power, Lucid's caricature: large activations that point the same way

    Lucid's own cosine is `phi . t / |t|`, which grows with the activations; ours divides by both norms.

    Args:
        layer: a node or module name.
        features: float32 (h, w, C), the layer's shape for images of the size that is run, or (C,) where it has no positions; K
            of them in front for K pieces of work.
        distance: `"l2"`, `"cosine"` or `"dot"`; static.
        cossim_power: of `"dot"` alone, at least 0; traced.

    Raises:
        ArgumentError: another shape, numbers that are not finite, features that are all 0 (nothing to divide by).

    >>> features = model.activations(photos, ["layer2"])["layer2"]
    >>> jaxviz.visualize(model, match("layer2", features), size=photos.shape[1:3], transforms=())
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
    """Ask for the activations that a layer has for an image: `match`, with the target computed at each step.

    The image is seen through the same random transforms as the one that is made, as in Lucid's caricatures, so it may be used
    with any of them. It is resized to the size that is run.

    Args:
        layer: a node or module name.
        images: float32 (H, W, C) in [0, 1], or (K, H, W, C) for K pieces of work.
        distance: `"l2"`, `"cosine"` or `"dot"`, see `match`; static.
        cossim_power: of `"dot"` alone, at least 0; traced.

    Raises:
        ArgumentError: images of another shape or range.

    >>> jaxviz.visualize(model, match_image("layer3", photos, distance="dot"))
    """
    return MatchImage(layer, as_images(images), number(cossim_power, "cossim_power", low=0), _known(distance))


def near(images: ArrayLike) -> Objective:
    """Ask to stay near an image: minus the mean squared difference to it, as seen through the same random transforms.

    0 for the image itself, at least -1; larger is better, as for all objectives, so it is added, with a weight.

    Args:
        images: float32 (H, W, C) in [0, 1], or (K, H, W, C) for K pieces of work; resized to the size that is run.

    Raises:
        ArgumentError: images of another shape or range.

    >>> jaxviz.visualize(model, channel("layer4", 7) + 100.0 * near(photo), start=photo)
    """
    return Near(as_images(images))


def closeness(act: Array, target: Array, distance: str, power: ArrayLike) -> Array:
    """Return how near activations (S, ...) are to targets (S or 1, ...) by the formulas of `match`, (S,)."""
    act, target = act.reshape(act.shape[0], -1), target.reshape(target.shape[0], -1)
    if distance == "l2":
        return -jnp.square(act - target).sum(1) / jnp.maximum(jnp.square(target).sum(1), 1e-12)
    dot = (act * target).sum(1)
    cosine = dot / (jnp.maximum(norm(act), 1e-4) * jnp.maximum(norm(target), 1e-4))  # a finite gradient at 0
    return cosine if distance == "cosine" else dot * jnp.maximum(cosine, 0.1) ** power


def as_images(given: ArrayLike) -> np.ndarray:
    """Return images (H, W, C) or (K, H, W, C) as float32; their channels and range are checked by `fitted`."""
    array = np.asarray(given)
    if not np.issubdtype(array.dtype, np.floating) or array.ndim not in (3, 4) or not array.size:
        expected = "Expected float images (H, W, C) or (K, H, W, C) in [0, 1]"
        raise ArgumentError(f"{expected}; got {array.dtype} of shape {array.shape}. Divide 8-bit images by 255.")
    return array.astype(np.float32)


def fitted(images: ArrayLike, model: Model, size: tuple[int, int]) -> np.ndarray:
    """Return images (H, W, C) or (K, H, W, C), checked against the network's channels and [0, 1], at `size`."""
    array = np.asarray(images)
    model.check_images(array if array.ndim == 4 else array[None])
    return array if array.shape[-3:-1] == tuple(size) else np.asarray(resize(array, size))


def numbered(name: str, given: ArrayLike, rank: int) -> tuple[str, ...]:
    """Return a label for each of K arrays of `rank` axes, or the name alone for one."""
    shape = np.shape(given)
    return tuple(f"{name}:{i}" for i in range(shape[0])) if len(shape) > rank else (name,)


def _known(distance: str) -> str:
    if distance not in _DISTANCES:
        raise ArgumentError(f"distance is 'l2', 'cosine' or 'dot', not {distance!r}.")
    return distance
