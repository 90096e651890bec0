"""Styles: the Gram matrices of a layer's channels (Gatys et al. 2016)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._types import Array, ArrayLike
from jaxviz.models import Model, layer_shape
from jaxviz.objectives._algebra import Activations, Objective, leaf, pytree
from jaxviz.objectives._basic import LayerObjective, numbered
from jaxviz.objectives._match import NO_IDS, as_images


@pytree
class Style(LayerObjective):
    """The Gram matrix of a layer; see `style`."""

    target: ArrayLike = leaf(2)

    def __call__(self, acts: Activations, images: Array) -> Array:
        target = jnp.asarray(self.target)
        gap = jnp.square(gram(acts[self.layer]) - target).sum((1, 2))
        return -gap / jnp.maximum(jnp.square(target).sum(), 1e-12)

    def bind(self, model: Model, size: tuple[int, int]) -> Objective:
        channels, got = _channels(model, self.layer, size), np.shape(self.target)[-2:]
        if got != (channels, channels):
            raise ArgumentError(f"Layer {self.layer!r} has {channels} channels; got Gram matrices of shape {got}.")
        return self

    def ids(self, model: Model) -> np.ndarray | None:
        return NO_IDS

    def labels(self, model: Model) -> tuple[str, ...]:
        return numbered(f"{self.layer} style", self.target, 2)


@pytree
class StyleImage(LayerObjective):
    """The style of an image; its Gram matrix is computed when it is bound to a network."""

    image: ArrayLike = leaf(3)

    def bind(self, model: Model, size: tuple[int, int]) -> Objective:
        _channels(model, self.layer, size)  # before anything is computed
        image = np.asarray(self.image)
        acts = model.activations(image.reshape(-1, *image.shape[-3:]), self.layer)[self.layer]
        grams = np.asarray(gram(acts))
        return Style(self.layer, grams if image.ndim == 4 else grams[0])

    def labels(self, model: Model) -> tuple[str, ...]:
        return numbered(f"{self.layer} style", self.image, 3)


def gram(acts: Array) -> Array:
    """Return the Gram matrices `F^T F / positions` of activations (..., h, w, C), F being (positions, C): (..., C, C).

    >>> jv.gram(np.ones((2, 4, 4, 3), np.float32)).shape
    (2, 3, 3)
    """
    rows = jnp.asarray(acts).reshape(*acts.shape[:-3], -1, acts.shape[-1])
    return jnp.einsum("...pc,...pd->...cd", rows, rows) / rows.shape[-2]


def style(layer: str, images: ArrayLike | None = None, *, grams: ArrayLike | None = None) -> Objective:
    """Maximize the match with the texture of an image: minus the squared distance of Gram matrices, relative to the target.

    `-|G - T|^2 / |T|^2`, with the Gram matrices `G = F^T F / positions` of the optimized image and T of the target. Gatys et
    al. (2016) sum `|F^T F - A^T A|^2 / (4 C^2 positions^2)` over layers, which differs by one factor for each layer; this one
    weighs layers equally and does not depend on image sizes. For several layers, `sum(style(name, photo) for name in names)`.

    Args:
        layer: a node or module name, one with positions.
        images: float32 (H, W, C) in [0, 1], or (K, H, W, C) for K units of work, used at their own size and untransformed.
            They need not be the images of `match_image` and `near`.
        grams: instead of images, float32 (C, C) or (K, C, C), as `gram` computes them from activations.

    Raises:
        ArgumentError: both or none of images and grams, or another shape or range.

    >>> photo, painting = photos
    >>> objective = jv.match_image("layer3", photo) + sum(0.5 * jv.style(name, painting) for name in ("layer1", "layer2"))
    >>> jv.visualize(model, objective, start=photo, steps=1).labels
    ('layer3 match',)
    """
    if (images is None) == (grams is None):
        raise ArgumentError("Expected images or grams, not both.")
    if images is not None:
        return StyleImage(layer, as_images(images))
    target = np.asarray(grams, np.float32)
    square = target.ndim in (2, 3) and target.size and target.shape[-1] == target.shape[-2]
    if not square or not np.isfinite(target).all():
        raise ArgumentError(f"Expected finite Gram matrices (C, C) or (K, C, C); got shape {target.shape}.")
    return Style(layer, target)


def _channels(model: Model, layer: str, size: tuple[int, int]) -> int:
    shape = layer_shape(model.network, layer, size)
    if len(shape) != 3:
        raise ArgumentError(f"Layer {layer!r} has no positions (shape {shape}), so it has no style.")
    return shape[-1]
