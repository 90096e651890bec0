"""Objectives that look at the samples of a group together: diversity, alignment, interpolation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._pytree import leaf as number
from jaxviz._types import Array, ArrayLike
from jaxviz.models import Model
from jaxviz.objectives._algebra import Activations, Objective, leaf, pytree
from jaxviz.objectives._basic import LayerObjective

_RAMP = 0.1  # of the best sample's score, over which the push of `diverse` grows from nothing to all
_REACH = 4  # neighbours on each side that alignment looks at, as Lucid's


@pytree
class Diversity(LayerObjective):
    """How alike the samples' textures are; see `diversity`."""

    def __call__(self, acts: Activations, images: Array) -> Array:
        return _likeness(acts[self.layer], acts[self.layer])

    def own(self, acts: Activations) -> Array:
        """Return the same with the others held fixed: a sample's likeness has a gradient to itself alone."""
        return _likeness(acts[self.layer], jax.lax.stop_gradient(acts[self.layer]))

    def labels(self, model: Model) -> tuple[str, ...]:
        return (f"{self.layer} diversity",)


@pytree
class Diverse(Objective):
    """A score, and samples that differ; see `diverse`."""

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
    """How near neighbouring samples are; see `alignment`."""

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
    """Score how alike the samples of a unit are in texture; subtract it, so that they differ (Olah et al. 2017).

    With `G_i = F_i^T F_i / |F_i^T F_i|`, `F_i` the activations (positions, C) of sample i, sample i scores the sum of
    `<G_i, G_j>` over all other samples j: between 0 and S - 1. The mean over samples is Lucid's term, so that its weights,
    about 1e2 against a channel, carry over. Exact, and linear in the number of samples.

    Args:
        layer: a node or module name.

    Raises:
        ArgumentError: when run with one sample.

    >>> jaxviz.visualize(model, channel("layer3", 7) - 1.0 * diversity("layer3"), samples=4)
    """
    return Diversity(layer)


def diverse(objective: Objective, layer: str, *, weight: float = 3.5, floor: float = 0.94, enough: float = 0.55) -> Objective:
    """Maximise an objective with samples that differ, none of which is sacrificed for the difference.

    `score - weight * score * push * max(likeness - enough, 0)`: the likeness is a sample's mean Gram cosine with the others
    (`diversity` over S - 1), in units of its own score, so that one weight serves units of any height. Samples that differ
    enough are not pushed on. Nor is a sample whose score falls below `floor` of the best one's; from there the push grows, to
    its whole over `0.1`. The score and the push as factors have no gradient: nothing is gained by scoring less. Nor have the
    other samples in the likeness: each is pushed by its own term alone, and one that scores nothing yet is left to find its
    unit. Subtracting `diversity` itself lets single samples pay for all.

    On the sixteen units of the bundled network's `layer3` on which the defaults were chosen (four samples, 64 pixels), samples
    are 29 % less alike, and each keeps 81 % or more of what it scores without; in another draw of sixteen
    (`benchmarks/diversity.py`) they are 24 % less alike, and one sample in 64 keeps 77 %, all others 80 % or more. A higher
    weight, or a lower floor or `enough`, makes them differ more, and lose more.

    Args:
        objective: what every sample is to excite.
        layer: where likeness is measured, such as the objective's own layer.
        weight: how strongly samples are pushed apart, at least 0; traced.
        floor: the share of the best sample's score below which a sample is left alone, 0 to 1; traced.
        enough: the likeness below which a sample is left alone, 0 to 1; traced.

    >>> jaxviz.visualize(model, diverse(channel("layer3", range(8)), "layer3"), samples=4)
    """
    if not isinstance(objective, Objective):
        raise ArgumentError(f"Expected an objective such as channel('layer3', 7), got {objective!r}.")
    limits = (number(weight, "weight", low=0), number(floor, "floor", low=0, high=1), number(enough, "enough", low=0, high=1))
    return Diverse(objective, Diversity(layer), *limits)


def alignment(layer: str, decay_ratio: float = 2.0) -> Objective:
    """Score how near neighbouring samples are in a layer, so that what they share stays where it is; add it.

    Minus the mean square difference of samples at distances 1 to 4, over `decay_ratio ** distance`: Lucid's formula. A pair's
    share is half to each, so that the sum over samples is Lucid's term.

    Args:
        layer: a node or module name.
        decay_ratio: positive; traced.

    Raises:
        ArgumentError: when run with one sample.

    >>> mix = interpolate(channel("layer3", 7), channel("layer3", 9))
    >>> jaxviz.visualize(model, mix + 0.1 * alignment("layer2"), samples=5)
    """
    decay = number(decay_ratio, "decay_ratio")
    if isinstance(decay, np.ndarray) and decay <= 0:
        raise ArgumentError(f"decay_ratio must be positive, got {decay_ratio!r}.")
    return Alignment(layer, decay)


def interpolate(first: Objective, last: Objective) -> Objective:
    """Go from one objective to another over the samples: sample i of S maximises `(1 - t) first + t last`, t = i / (S - 1).

    Any two objectives, on any layers; see `alignment` for samples that change little by little.

    Raises:
        ArgumentError: not two objectives; or, when run, one sample.
    """
    for one in (first, last):
        if not isinstance(one, Objective):
            raise ArgumentError(f"Expected two objectives to interpolate between, got {one!r}.")
    return Interpolation(first, last)


def _likeness(act: Array, others: Array) -> Array:
    """Return the sum of each sample's Gram cosines with all other samples, (S,); `others` are the same activations."""
    samples = _group(act, "diversity")
    act, others = (x.reshape(samples, -1, x.shape[-1]) for x in (act, others))
    _, positions, channels = act.shape
    if samples * positions < channels:  # <F^T F, E^T E> = |F E^T|^2: no channel-by-channel matrix is made
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
