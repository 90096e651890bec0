"""RISE: the mean score of images seen through random soft masks, by whether a place was to be seen."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, TypeAlias, Unpack

import jax
import jax.numpy as jnp

from jaxviz import engine
from jaxviz._errors import ArgumentError
from jaxviz._pytree import leaf, pytree
from jaxviz._types import Array, ArrayLike, PyTree
from jaxviz.attribution._attribution import Attribution, finished
from jaxviz.attribution._baseline import Baseline, as_baselines
from jaxviz.attribution._sampling import (
    along,
    apart,
    as_count,
    as_ids,
    as_seed,
    draw_keys,
    evaluate,
    repeated,
    together,
    weighted_sum,
)
from jaxviz.attribution._target import AsTarget, Target, as_target
from jaxviz.engine import RunOptions
from jaxviz.models import Model
from jaxviz.models._network import Network

Normalize: TypeAlias = Literal["masks", "expectation"]


def random_masks(keys: Array, grid: int, probability: Array, size: tuple[int, int]) -> Array:
    """Return masks float32 (s, n, H, W) in [0, 1] for keys (s, n).

    `grid` x `grid` cells, each open with a probability, are enlarged bilinearly by (grid + 1) / grid of what would cover the
    image, and the image's size is cut out at a random whole pixel within the first cell: a shift of its own for every mask.
    """
    cells = tuple(-(-side // grid) for side in size)

    def one(key: Array) -> Array:
        values = jax.random.uniform(key, (grid * grid + 2,))  # one draw: each further one takes a second to compile
        opened = (values[2:] < probability).astype(jnp.float32).reshape(grid, grid)
        rows, columns = (
            _enlarge(grid, side, cell, jnp.minimum((shift * cell).astype(jnp.int32), cell - 1))
            for side, cell, shift in zip(size, cells, values[:2], strict=True)
        )
        return rows @ opened @ columns.T

    return jax.vmap(jax.vmap(one))(keys)


def _enlarge(grid: int, side: int, cell: int, shift: Array) -> Array:
    """Return the matrix (side, grid) of linear interpolation from cells to pixels; beyond the outer centres it is constant."""
    place = (jnp.arange(side) + shift + 0.5) * grid / ((grid + 1) * cell) - 0.5
    place = jnp.clip(place, 0, grid - 1)
    return jnp.maximum(0, 1 - jnp.abs(place[:, None] - jnp.arange(grid)))


@pytree
@dataclasses.dataclass(frozen=True)
class Rise:
    """Sums of masks and of masks times the scores they leave: a program of the engine."""

    network: Network
    target: Target
    probability: Array
    seed: Array
    samples: Array
    expectation: Array  # bool, traced
    grid: int = dataclasses.field(metadata=dict(static=True))

    def start(self, items: dict[str, Any]) -> dict[str, Any]:
        found = evaluate(self.network, self.target, items["images"], items["index"])
        return {"scores": found["scores"], "index": found["index"]}

    def step(self, items: dict[str, Any], fixed: dict[str, Any], numbers: Array, valid: Array) -> PyTree:
        s, images = len(numbers), items["images"]
        masks = random_masks(
            draw_keys(self.seed, items["ids"], numbers), self.grid, self.probability, (images.shape[1], images.shape[2])
        )
        seen = items["baseline"][None] + masks[..., None] * (images - items["baseline"])[None]
        found = evaluate(self.network, self.target, together(seen), repeated(fixed["index"], s))
        assert found["scores"] is not None
        # Scores less that of the whole image: a constant in all of them would leave nothing but rounding.
        change = apart(found["scores"], s) - fixed["scores"][None]
        products = jnp.einsum("snk,snhw->nkhw", along(valid, change) * change, masks)
        return {"products": products, "masks": weighted_sum(valid, masks)}

    def finish(self, items: dict[str, Any], fixed: dict[str, Any], sums: dict[str, Array]) -> dict[str, Any]:
        masks, scores = sums["masks"][:, None], fixed["scores"][..., None, None]
        expected = (sums["products"] + scores * masks) / (self.samples * self.probability)
        maps = jnp.where(self.expectation, expected, scores + sums["products"] / jnp.maximum(masks, 1e-6))
        return {**fixed, "maps": maps}


def rise(
    model: Model,
    images: ArrayLike,
    target: AsTarget = None,
    *,
    samples: int = 4000,
    grid: int = 7,
    probability: float = 0.5,
    baseline: Baseline = "mean",
    normalize: Normalize = "masks",
    seed: int = 0,
    ids: ArrayLike | None = None,
    **run: Unpack[RunOptions],
) -> Attribution:
    """Return the score to expect where a pixel is to be seen, over random soft masks (Petsiuk et al., 2018).

    Asks for nothing but scores: one forward pass a mask. The paper explains probabilities:
    `target=jv.attribution.probability()`.

    Args:
        model: any network or function.
        images: float32 (N, H, W, C) in [0, 1].
        target: what is explained, see `attribute`.
        samples: masks. Another number compiles nothing new.
        grid: cells along a side of a mask, before it is enlarged and shifted.
        probability: that a cell is open.
        baseline: what is seen where a mask is closed, see `attribute`.
        normalize: `"masks"` divides the sum of masks times scores by the sum of the masks at each pixel; `"expectation"`, the
            paper's, by what that is in the mean, samples x probability. Both have the same limit; under the first a constant
            added to the score adds just that to the map, under the second it adds the unevenness of the masks, too.
        seed: of the masks. An image's map is the same alone or in any batch.
        ids: whole numbers (N,), one for each image, for masks of its own; all images share theirs unless given.
        **run: see `jaxviz.engine.RunOptions`.

    Returns:
        `maps` float32 (N, H, W), or (N, K, H, W) for K targets: mean scores, not differences to the image's own.

    Raises:
        ArgumentError: images, target, baseline or a number that do not fit.
    """
    samples, grid = as_count(samples, "samples"), as_count(grid, "grid", 2)
    if normalize not in ("masks", "expectation"):
        raise ArgumentError(f"normalize is 'masks' or 'expectation'; got {normalize!r}.")
    images = model.check_images(images)
    made, index = as_target(model, target, images)
    program = Rise(
        model.network,
        made,
        leaf(probability, "probability", low=0.001, high=1),
        as_seed(seed),
        leaf(samples, "samples"),
        jnp.asarray(normalize == "expectation"),
        grid,
    )
    items = {
        "images": images,
        "baseline": as_baselines(model, baseline, images),
        "index": index,
        "ids": as_ids(ids, len(images)),
    }
    found = engine.reduce_images(program, items, samples, **run)
    settings = {
        "samples": samples,
        "grid": grid,
        "probability": probability,
        "baseline": baseline,
        "normalize": normalize,
        "seed": seed,
        "ids": ids,
    }
    return finished("rise", model, made, found, spatial=True, settings=settings)
