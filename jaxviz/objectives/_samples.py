"""Objectives that compare the samples of a unit: diversity, alignment, interpolation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._pytree import leaf as number
from jaxviz._types import Array, ArrayLike
from jaxviz.models import Model
from jaxviz.objectives._algebra import Activations, Objective, checked_objective, leaf, pytree
from jaxviz.objectives._basic import LayerObjective

_RAMP = 0.1  # of the best sample's score, over which the push of `diverse` grows from nothing to all
_REACH = 4  # neighbors on each side that alignment looks at, as Lucid's


@pytree
class Diversity(LayerObjective):
    """How alike the samples' textures are; see `diversity`."""

    def __call__(self, acts: Activations, images: Array) -> Array:
        return _likeness(acts[self.layer], acts[self.layer])

    def own(self, acts: Activations) -> Array:
        """Return the same with the other samples held fixed: a sample's likeness has a gradient only for that sample."""
        return _likeness(acts[self.layer], jax.lax.stop_gradient(acts[self.layer]))

    def labels(self, model: Model) -> tuple[str, ...]:
        return (f"{self.layer} diversity",)


@pytree
class Diverse(Objective):
    """A score and a push apart; see `diverse`."""

    term: Objective
    likeness: Diversity
    weight: ArrayLike = leaf()
    floor: ArrayLike = leaf()
    enough: ArrayLike = leaf()

    def __call__(self, acts: Activations, images: Array) -> Array:
        score, likeness = self.term(acts, images), self.likeness.own(acts) / (len(images) - 1)
        height = jax.lax.stop_gradient(jnp.maximum(score, 0))
        share = height / jnp.maximum(height.max(), 1e-12)
        push = jnp.clip((share - jnp.asarray(self.floor)) / _RAMP, 0, 1)
        excess = jnp.maximum(likeness - jnp.asarray(self.enough), 0)
        return score - jnp.asarray(self.weight) * height * push * excess


@pytree
class Alignment(LayerObjective):
    """How near neighboring samples are; see `alignment`."""

    decay_ratio: ArrayLike = leaf()

    def __call__(self, acts: Activations, images: Array) -> Array:
        act = acts[self.layer]
        samples = _group(act, "alignment")
        score = jnp.zeros(samples, act.dtype)
        for distance in range(1, min(_REACH, samples - 1) + 1):
            gap = jnp.square(act[distance:] - act[:-distance]).reshape(samples - distance, -1).mean(1)
            gap = gap / jnp.asarray(self.decay_ratio) ** distance / 2  # half to each of the two
            score = score.at[distance:].add(-gap).at[:-distance].add(-gap)
        return score

    def labels(self, model: Model) -> tuple[str, ...]:
        return (f"{self.layer} alignment",)


@pytree
class Interpolation(Objective):
    """From one objective to another over the samples; see `interpolate`."""

    first: Objective
    last: Objective

    def __call__(self, acts: Activations, images: Array) -> Array:
        first, last = self.first(acts, images), self.last(acts, images)
        share = jnp.linspace(0.0, 1.0, _group(first, "interpolate"), dtype=first.dtype)
        return (1 - share) * first + share * last


def diversity(layer: str) -> Objective:
    """Score how alike the samples of a unit are in texture; subtract it to make them differ (Olah et al. 2017).

    With `G_i = F_i^T F_i / |F_i^T F_i|`, `F_i` the activations (positions, C) of sample i, sample i scores the sum of
    `<G_i, G_j>` over all other samples j: between 0 and S - 1. The mean over samples is Lucid's term, so that its weights,
    about 1e2 against a channel, carry over. Exact, and linear in the number of samples.

    Args:
        layer: a node or module name.

    Raises:
        ArgumentError: when run with one sample.

    >>> objective = jv.channel("layer3", 7) - 1.0 * jv.diversity("layer3")
    >>> jv.visualize(model, objective, samples=4, steps=1, size=32).images.shape
    (1, 4, 32, 32, 3)
    """
    return Diversity(layer)


def diverse(objective: Objective, layer: str, *, weight: float = 3.5, floor: float = 0.94, enough: float = 0.55) -> Objective:
    """Maximize an objective with samples that differ, without sacrificing any of them.

    Each sample maximizes `score - weight * score * push * max(likeness - enough, 0)`. The likeness is a sample's mean Gram
    cosine with the others (`diversity` over S - 1). It is multiplied by the sample's own score, so that one weight works for
    units of any height. Samples that differ enough are not pushed. Nor is a sample whose score is below `floor` of the best
    sample's; above, the push grows from 0 to 1 over `0.1`. The factors score and push have no gradient, so a lower score gains
    nothing. The other samples in the likeness have no gradient either: each sample is pushed by its own term alone, and one
    that still scores 0 is left alone. Subtracting `diversity` itself lets single samples pay for all.

    The defaults were chosen on sixteen units of the bundled network's `layer3` (four samples, 64 pixels). There, samples are
    29 % less alike, and each keeps at least 81 % of its score. In another draw of sixteen (`benchmarks/diversity.py`) they are
    24 % less alike; one sample in 64 keeps 77 %, all others at least 80 %. A higher weight, or a lower `floor` or `enough`,
    makes samples differ more and score less.

    Args:
        objective: what every sample maximizes.
        layer: where likeness is measured, usually the objective's own layer.
        weight: how strongly samples are pushed apart, at least 0; traced.
        floor: the share of the best sample's score below which a sample is not pushed, 0 to 1; traced.
        enough: the likeness below which a sample is not pushed, 0 to 1; traced.

    Raises:
        ArgumentError: not an objective, a number out of range, or, when run, one sample.

    >>> objective = jv.diverse(jv.channel("layer3", range(2)), "layer3")
    >>> jv.visualize(model, objective, samples=4, steps=1, size=32).images.shape
    (2, 4, 32, 32, 3)
    """
    limits = (number(weight, "weight", low=0), number(floor, "floor", low=0, high=1), number(enough, "enough", low=0, high=1))
    return Diverse(checked_objective(objective, "an objective"), Diversity(layer), *limits)


def alignment(layer: str, decay_ratio: float = 2.0) -> Objective:
    """Score how near neighboring samples are in a layer; add it to keep what they share in place.

    Minus the mean square difference of samples at distances 1 to 4, over `decay_ratio ** distance`: Lucid's formula. A pair's
    share is half to each, so that the sum over samples is Lucid's term.

    Args:
        layer: a node or module name.
        decay_ratio: positive; traced.

    Raises:
        ArgumentError: a ratio that is not positive, or, when run, one sample.

    >>> mix = jv.interpolate(jv.channel("layer3", 7), jv.channel("layer3", 9))
    >>> jv.visualize(model, mix + 0.1 * jv.alignment("layer2"), samples=5, steps=1, size=32).images.shape
    (1, 5, 32, 32, 3)
    """
    decay = number(decay_ratio, "decay_ratio")
    if isinstance(decay, np.ndarray) and decay <= 0:
        raise ArgumentError(f"decay_ratio must be positive, got {decay_ratio!r}.")
    return Alignment(layer, decay)


def interpolate(first: Objective, last: Objective) -> Objective:
    """Interpolate between two objectives over the samples: sample i of S maximizes `(1 - t) first + t last`, t = i / (S - 1).

    The objectives may read any layers. `alignment` makes neighboring samples change gradually.

    Raises:
        ArgumentError: not two objectives, or, when run, one sample.

    >>> mix = jv.interpolate(jv.channel("layer3", 7), jv.logit("church"))
    >>> jv.visualize(model, mix, samples=3, steps=1, size=32).images.shape
    (1, 3, 32, 32, 3)
    """
    first, last = (checked_objective(objective, "two objectives to interpolate") for objective in (first, last))
    return Interpolation(first, last)


def _likeness(act: Array, others: Array) -> Array:
    """Return the sum of each sample's Gram cosines with all other samples, (S,); `others` are the same activations."""
    samples = _group(act, "diversity")
    act, others = (x.reshape(samples, -1, x.shape[-1]) for x in (act, others))
    _, positions, channels = act.shape
    if samples * positions < channels:  # <F^T F, E^T E> = |F E^T|^2 needs no channel-by-channel matrix
        square = jnp.square(jnp.einsum("ipc,jqc->ijpq", act, others)).sum((2, 3))
        norm, size = (jnp.square(jnp.einsum("ipc,iqc->ipq", x, x)).sum((1, 2)) for x in (act, others))
        cosine = square / jnp.sqrt(jnp.maximum(norm, 1e-24)[:, None] * jnp.maximum(size, 1e-24)[None])
        return cosine.sum(1) - jnp.diagonal(cosine)
    gram, fixed = (_unit_gram(x) for x in (act, others))
    return (gram * (fixed.sum(0) - fixed)).sum((1, 2))  # with the sum of the others: linear in the samples


def _unit_gram(act: Array) -> Array:
    gram = jnp.einsum("spc,spd->scd", act, act)
    return gram / jnp.sqrt(jnp.maximum(jnp.square(gram).sum((1, 2), keepdims=True), 1e-24))


def _group(values: Array, what: str) -> int:
    if values.shape[0] < 2:
        raise ArgumentError(f"{what} compares the samples of a unit: give samples=2 or more.")
    return values.shape[0]
