"""DeepLIFT (Shrikumar et al., 2017): what each pixel's change from a baseline contributes to the change of the score."""

from __future__ import annotations

import dataclasses
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz import engine
from jaxviz._pytree import pytree
from jaxviz._types import Array, ArrayLike
from jaxviz.attribution._attribution import Attribution, finished
from jaxviz.attribution._baseline import Baseline, as_baselines
from jaxviz.attribution._linearity.linear import check_linear
from jaxviz.attribution._methods.gradient import pull_back_all
from jaxviz.attribution._target import AsTarget, Target, as_target
from jaxviz.engine import RunOptions
from jaxviz.models import Model, capture, normalize
from jaxviz.models._network import Network
from jaxviz.ops._rules.deep_lift import Record, Rescale

NODES = 16  # of the mean gradient of a score that is not linear, from the baseline to the image


@pytree
@dataclasses.dataclass(frozen=True)
class DeepLift:
    """Contributions, or multipliers, of some images: a program of the engine.

    A baseline that is the same for all images runs once for all of them: `shared` (1, H, W, C); others come with the items.
    """

    network: Network
    target: Target
    shared: Array | None
    multiply: bool = dataclasses.field(metadata=dict(static=True))

    def __call__(self, items: dict[str, Any]) -> dict[str, Any]:
        network, target, images = self.network, self.target, items["images"]
        base = items["baseline"] if self.shared is None else self.shared
        layers, record = target.layers(), Record()
        base_acts = capture(network, normalize(network, base), layers, ops=record.ops())
        ops = Rescale(record).ops()
        acts, pull = jax.vjp(lambda images: capture(network, normalize(network, images), layers, ops=ops), images)
        chosen = target.choose(acts, items["index"])

        def scores(values: tuple[dict[str, Array], Array]) -> Array:
            return target.scores(*values, chosen)

        here = acts, images
        start = jax.tree.map(lambda a, b: jnp.broadcast_to(a, b.shape), (base_acts, base), here)
        found, before = scores(here), scores(start)
        of_acts, of_images = _mean_gradient(scores, start, here)
        multipliers = of_images + (jax.vmap(lambda g: pull(g)[0])(of_acts) if layers else 0)
        maps = multipliers * (images - base)[None]
        delta = maps.sum((2, 3, 4)) - (found - before)
        made = {"maps": maps if self.multiply else multipliers, "scores": found, "delta": delta, "before": before}
        return {**{name: jnp.moveaxis(value, 0, 1) for name, value in made.items()}, "index": chosen}


def _mean_gradient(scores: Any, start: Any, end: Any) -> Any:
    """Return the mean gradients of K scores along the straight line between two pytrees, K in front.

    It is the gradient where the scores are linear. Its product with the difference is the change of the scores, as Rescale asks
    of the multipliers of an operation that makes one value of several.
    """

    def at(where: Array) -> Any:
        found, pull = jax.vjp(scores, jax.tree.map(lambda a, b: a + where * (b - a), start, end))
        return pull_back_all(pull, found)[0]

    def add(total: Any, node: tuple[Array, Array]) -> tuple[Any, None]:
        return jax.tree.map(lambda t, g: t + node[1] * g, total, at(node[0])), None

    zeros = jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), jax.eval_shape(at, jnp.float32(0)))
    abscissas, weights = np.polynomial.legendre.leggauss(NODES)
    nodes = jnp.asarray((1 + abscissas) / 2, jnp.float32), jnp.asarray(weights / 2, jnp.float32)
    return jax.lax.scan(add, zeros, nodes)[0]


def deep_lift(
    model: Model,
    images: ArrayLike,
    target: AsTarget = None,
    *,
    baseline: Baseline = "mean",
    multiply: bool = True,
    **run: Unpack[RunOptions],
) -> Attribution:
    """Return what each pixel's difference from a baseline contributes to the score's (Rescale rule, Shrikumar et al., 2017).

    A ReLU passes (relu(x) - relu(x0)) / (x - x0) of a multiplier on, max pooling gives the change of a window's maximum to the
    elements that it comes from, and everything else is linear. Every call has its own rule, so modules may be used again, as in
    ResNets. A score that is not linear in what it reads has its mean gradient from baseline to image as a multiplier.

    Args:
        model: a network that computes through `ops`; between operations, what is linear (means, reshapes) may stand.
        images: float32 (N, H, W, C) in [0, 1].
        target: what is explained, see `attribute`.
        baseline: see `attribute`. One that is the same for all images runs once for all of them.
        multiply: whether to multiply by the difference; otherwise the maps are multipliers, per unit of the image in [0, 1].
        **run: see `jaxviz.engine.RunOptions`.

    Returns:
        `maps` float32 (N, H, W, C), signed; (N, K, H, W, C) for K targets, which share one forward pass. `delta`: the sum
        of the contributions less score(image) - score(baseline): rounding error. `extra["baseline_scores"]`: (N,) or (N, K).

    Raises:
        ArgumentError: images, target or baseline that do not fit.
        UnsupportedError: a network that does not compute through `ops`.

    >>> deep_lift(model, images, "church", baseline="blur").maps.shape
    (2, 128, 128, 3)
    """
    images = model.check_images(images)
    made, index = as_target(model, target, images)
    check_linear(model, (images.shape[1], images.shape[2]), made.layers(), "deep_lift")
    items: dict[str, Any] = {"images": images, "index": index}
    own = np.ndim(baseline) == 4 or (isinstance(baseline, str) and baseline == "blur")
    if own:
        items["baseline"], shared = as_baselines(model, baseline, images), None
    else:
        shared = as_baselines(model, baseline, images[:1])
    found = engine.map_images(DeepLift(model.network, made, shared, multiply), items, cost=2 if own else 1, **run)
    before: np.ndarray = found.pop("before")
    settings = {"baseline": baseline, "multiply": multiply}
    extra = {"baseline_scores": before if made.many else before[:, 0]}
    return finished("deep_lift", model, made, found, spatial=False, settings=settings, extra=extra)
