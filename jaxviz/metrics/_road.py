"""ROAD: the score as pixels are removed in the order of a map and imputed from the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz import engine
from jaxviz._errors import ArgumentError
from jaxviz._pytree import leaf, pytree
from jaxviz._types import Array, ArrayLike
from jaxviz.attribution._sampling import as_ids, as_seed, draw_keys, repeated
from jaxviz.attribution._target import AsTarget, Score, Target, target_values
from jaxviz.attribution._types import Reduction
from jaxviz.engine import RunOptions
from jaxviz.metrics._arguments import Maps, as_question, scores_of_each
from jaxviz.metrics._curves import has_order, ranks
from jaxviz.metrics._inpaint import impute
from jaxviz.models import Model
from jaxviz.models._network import Network

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclasses.dataclass(frozen=True, eq=False)
class Road:
    """Change of the score as F shares of the pixels are removed, for N images (and K targets).

    Attributes:
        most: float32 (N, F) or (N, K, F), the score minus the score of the whole image, with the most relevant pixels removed:
            negative for a good map.
        least: the same with the least relevant pixels removed.
        fractions: float32 (F,), the removed shares of the pixels.
    """

    most: np.ndarray
    least: np.ndarray
    fractions: np.ndarray

    @property
    def most_first(self) -> np.ndarray:
        """Mean of `most` over the shares, float32 (N,) or (N, K): lower is better."""
        return self.most.mean(-1)

    @property
    def least_first(self) -> np.ndarray:
        """Mean of `least` over the shares, float32 (N,) or (N, K): higher is better."""
        return self.least.mean(-1)

    @property
    def value(self) -> np.ndarray:
        """(least_first - most_first) / 2, float32 (N,) or (N, K): higher is better."""
        return (self.least_first - self.most_first) / 2


@pytree
@dataclasses.dataclass(frozen=True)
class Remove:
    """`Reduction` over shares: the scores of images with a share of the pixels imputed, for both orders."""

    network: Network
    target: Target
    fractions: Array  # float32 (F,)
    noise: Array  # float32 (C,)
    seed: Array
    by_percentile: bool = dataclasses.field(metadata=dict(static=True))

    def start(self, items: dict[str, Any]) -> dict[str, Any]:
        scores, chosen = target_values(self.network, self.target, items["images"], items["index"])
        return {"scores": scores.T, "index": chosen, "ranks": ranks(items["maps"])}

    def step(self, items: dict[str, Any], fixed: dict[str, Any], numbers: Array, valid: Array) -> Array:
        images, (n, k, h, w) = items["images"], items["maps"].shape
        least, share = (numbers % 2)[:, None, None, None, None], self.fractions[numbers // 2][:, None, None, None, None]
        if self.by_percentile:
            maps = jnp.where(least == 1, 1 - items["maps"], items["maps"])  # (s, n, K, H, W)
            flat = maps.reshape(len(numbers), n, k, -1)
            limit = jax.vmap(lambda values, q: jnp.quantile(values, q, axis=-1, keepdims=True))(flat, 1 - share.reshape(-1))
            keep = maps < limit[..., None]
        else:
            count = jnp.clip(jnp.round(share * (h * w)), 0, h * w - 1)
            place = jnp.where(least == 1, h * w - 1 - fixed["ranks"], fixed["ranks"])
            keep = place >= count
        shape = (len(numbers), n, k, h, w, images.shape[-1])
        filled = impute(jnp.broadcast_to(images[:, None], shape).reshape(-1, *shape[3:]), keep.reshape(-1, h, w)).reshape(shape)
        keys = draw_keys(self.seed, items["ids"], numbers).reshape(-1)
        draws = jax.vmap(lambda key: jax.random.normal(key, (h * w * shape[-1],)))(keys)
        noise = draws.reshape(len(numbers), n, 1, h, w, -1) * self.noise
        filled = (filled + jnp.where(keep[..., None], 0, noise)).reshape(-1, k, *shape[3:])
        scores = scores_of_each(self.network, self.target, filled, repeated(fixed["index"], len(numbers)))
        places = jax.nn.one_hot(numbers, 2 * len(self.fractions)) * valid[:, None]
        return jnp.einsum("snk,sp->nkp", scores.reshape(shape[:3]), places, precision="highest")

    def finish(self, items: dict[str, Any], fixed: dict[str, Any], sums: Array) -> dict[str, Array]:
        changes = sums - fixed["scores"][..., None]
        if not self.by_percentile:
            changes = jnp.where(has_order(items["maps"])[..., None], changes, jnp.nan)
        return {"most": changes[..., 0::2], "least": changes[..., 1::2]}


def road(
    model: Model,
    images: ArrayLike,
    maps: Maps,
    target: AsTarget = None,
    *,
    fractions: Sequence[float] = FRACTIONS,
    score: Score = "probability",
    noise: float = 0.01,
    seed: int = 0,
    ids: ArrayLike | Sequence[int] | None = None,
    reduce: Reduction = "sum",
    convention: Literal["pytorch-grad-cam"] | None = None,
    **run: Unpack[RunOptions],
) -> Road:
    """Return how the score changes as pixels are removed and imputed with noise (ROAD, Rong et al., 2022).

    Args:
        model, images, maps, target, score, reduce: see `deletion`.
        fractions: the shares of the pixels to remove, each above 0 and below 1.
        noise: standard deviation of the noise on imputed pixels, in units of the image in [0, 1].
        seed: seed of the noise.
        ids: int (N,); images with the same id get the same noise. All images do by default.
        convention: None removes exactly the given share, ties in row-major order. `"pytorch-grad-cam"` keeps pixels strictly
            below a percentile of the map, so that more pixels, or all of them, go if a map has ties; its noise is in units of
            normalized images. Maps must then be in [0, 1].
        **run: see `jaxviz.RunOptions`.

    Returns:
        `Road`; NaN if a map is constant or not finite.

    Raises:
        ArgumentError: arguments that do not fit each other.

    >>> maps = jv.attribute(model, images, "grad_cam")
    >>> jv.metrics.road(model, images, maps, fractions=(0.2, 0.5)).value.shape == (len(images),)
    True
    """
    if convention not in (None, "pytorch-grad-cam"):
        raise ArgumentError(f"A convention is None or 'pytorch-grad-cam'; got {convention!r}.")
    shares = np.asarray(fractions, np.float32)
    if shares.ndim != 1 or not shares.size or not ((shares > 0) & (shares < 1)).all():
        raise ArgumentError(f"Expected fractions above 0 and below 1; got {fractions!r}.")
    question = as_question(model, images, maps, target, score)
    pixels = question.pixels(reduce)
    size = leaf(noise, "noise", low=0.0) * (model.std if convention is not None else jnp.ones_like(model.std))
    program = Remove(
        model.network,
        question.target,
        jnp.asarray(shares),
        size,
        as_seed(seed),
        convention is not None,
    )
    items = question.items(maps=pixels, ids=as_ids(ids, len(pixels)))
    found = engine.reduce_images(program, items, 2 * len(shares), cost=pixels.shape[1], **run)
    return Road(question.shaped(found["most"]), question.shaped(found["least"]), shares)
