"""Layer-wise relevance propagation (Bach et al., 2015), which conserves relevance through skip connections too."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias, Unpack, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz import engine
from jaxviz._errors import ArgumentError, near_matches
from jaxviz._pytree import leaf, pytree
from jaxviz._types import Array, ArrayLike
from jaxviz.attribution._attribution import Attribution, finished
from jaxviz.attribution._linearity.linear import check_linear
from jaxviz.attribution._methods.gradient import pull_back_all
from jaxviz.attribution._target import AsTarget, Target, as_target
from jaxviz.engine import RunOptions
from jaxviz.models import Model, capture, normalize
from jaxviz.models._network import Network
from jaxviz.ops import (
    Composite,
    Rule,
    alpha_beta_rule,
    epsilon_rule,
    flat_rule,
    gamma_rule,
    z_box_rule,
    z_plus_rule,
)
from jaxviz.ops._rules.lrp_propagation import Bias, Propagation, Residual
from jaxviz.ops._rules.lrp_rules import CaptumAlpha1Beta0, CaptumGamma

RuleName: TypeAlias = Literal[
    "epsilon",
    "gamma",
    "z_plus",
    "alpha_beta",
    "z_box",
    "flat",
    "epsilon_plus",
    "epsilon_plus_flat",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
]


@pytree
@dataclasses.dataclass(frozen=True)
class Relevance:
    """The relevance of every pixel and color of some images: a program of the engine."""

    network: Network
    target: Target
    composite: Composite
    bias: Bias = dataclasses.field(metadata=dict(static=True))
    residual: Residual = dataclasses.field(metadata=dict(static=True))

    def __call__(self, items: dict[str, Any]) -> dict[str, Any]:
        network, images = self.network, items["images"]
        bounds = (0 - network.mean) / network.std, (1 - network.mean) / network.std

        def scores(images: Array, absorbed: Array, direct: Array) -> tuple[Array, Array | None]:
            x = normalize(network, images)
            table = Propagation(self.composite, x, absorbed, direct, bounds, bias=self.bias, residual=self.residual)
            acts = capture(network, x, self.target.layers(), ops=table.ops())
            table.check()
            chosen = self.target.choose(acts, items["index"])
            return self.target.scores(acts, images, chosen), chosen

        zeros = jnp.zeros((len(images),), images.dtype), jnp.zeros_like(images)
        found, pull, chosen = jax.vjp(scores, images, *zeros, has_aux=True)
        per_value, absorbed, direct = pull_back_all(pull, found)
        # The normalized image is 0 at the mean color; its scale is in the gradient.
        maps = per_value * (images - network.mean)[None] + direct
        made = {"maps": maps, "scores": found, "absorbed": absorbed, "delta": maps.sum((2, 3, 4)) - found}
        return {**{name: jnp.moveaxis(value, 0, 1) for name, value in made.items()}, "index": chosen}


def lrp(
    model: Model,
    images: ArrayLike,
    target: AsTarget = None,
    *,
    rule: RuleName | Rule | Composite = "epsilon_gamma_box",
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    alpha: float = 2.0,
    beta: float = 1.0,
    bias: Bias = "share",
    residual: Residual = "contribution",
    convention: Literal["captum"] | None = None,
    **run: Unpack[RunOptions],
) -> Attribution:
    """Return the relevance of every pixel and color: the score, shared backwards from output to image, layer by layer.

    A ReLU passes relevance on, max pooling gives it to the winner (of equals the first), average pooling shares in proportion
    to values; a normalization is folded into the convolution before it. What the target reads has relevance value x gradient of
    the score, which adds up to the score where that is linear, as a logit is; of a probability, `delta` says how far it is off.

    Args:
        model: a network that computes through `ops`; between operations, what is linear (means, reshapes) may stand.
        images: float32 (N, H, W, C) in [0, 1].
        target: what is explained, see `attribute`.
        rule: `"epsilon"`, `"gamma"`, `"z_plus"` or `"alpha_beta"` for all convolutions and fully connected layers; `"z_box"`
            or `"flat"` for the first convolution, epsilon elsewhere; or a composite, epsilon for fully connected layers and z+
            (`"epsilon_plus"`), alpha-beta (`"epsilon_alpha2_beta1"`) or gamma (`"epsilon_gamma_box"`) for convolutions, the
            first one flat (`"..._flat"`) or z-box (`"..._box"`). Or a `jaxviz.ops.Rule` or `Composite`. For the formulas see
            `jaxviz.ops.epsilon_rule`, `gamma_rule`, `z_plus_rule`, `alpha_beta_rule`, `z_box_rule` and `flat_rule`.
        epsilon, gamma, alpha, beta: of the rules that are named; data, so that another value compiles nothing again.
        bias: what becomes of the relevance that belongs to a bias or to the shift of a normalization. `"share"`: the inputs of
            its operation get it, in proportion to the magnitude of their own shares, so that the map's sum is the score; only
            where all of them are 0 it stays. `"absorb"`, as published and in the peers: it stays there, and
            `extra["absorbed"]` says how much it is.
        residual: how a sum x + y that closes a residual block shares. `"contribution"`: x / (x + y) and y / (x + y), as
            everywhere else; `"magnitude"`: |x| / (|x| + |y|) and |y| / (|x| + |y|) (Otsuki et al., 2024), which lets nothing
            cancel and makes smoother maps.
        convention: `"captum"`, for `"epsilon"`, `"gamma"` and `"z_plus"` (its `Alpha1_Beta0_Rule`): weights are told apart by
            their sign whatever that of the input is, biases absorb and have no share in a rule, a normalization is an operation
            of its own. Captum itself is wrong on networks with skip connections.
        **run: see `jaxviz.engine.RunOptions`.

    Returns:
        `maps` float32 (N, H, W, C), signed; (N, K, H, W, C) for K targets, which share one forward pass. `delta`: their sum
        less the score. `extra["absorbed"]` (N,) or (N, K): what biases and stabilisers kept; with it the sum is the score.

    Raises:
        ArgumentError: an unknown rule, alpha - beta that is not 1, or images or target that do not fit.
        UnsupportedError: a network that does not compute through `ops`; a rule for the first convolution where none is.

    >>> relevance = lrp(model, images)
    >>> bool(abs(relevance.maps.sum((1, 2, 3)) - relevance.scores).max() < 1e-3 * abs(relevance.scores).max())
    True
    """
    _check_choice("bias", bias, get_args(Bias))
    numbers = {"epsilon": epsilon, "gamma": gamma, "alpha": alpha, "beta": beta}
    composite = _peer_composite(rule, convention, numbers) if convention else _composite(rule, numbers)
    if convention:
        bias, residual = "absorb", "contribution"
    _check_choice("residual", residual, get_args(Residual))
    images = model.check_images(images)
    made, index = as_target(model, target, images)
    check_linear(model, (images.shape[1], images.shape[2]), made.layers(), "lrp")
    program = Relevance(model.network, made, composite, bias, residual)
    found = engine.map_images(program, {"images": images, "index": index}, **run)
    absorbed: np.ndarray = found.pop("absorbed")
    settings = {"rule": rule, **numbers, "bias": bias, "residual": residual, "convention": convention}
    extra = {"absorbed": absorbed if made.many else absorbed[:, 0]}
    return finished("lrp", model, made, found, spatial=False, settings=settings, extra=extra)


def _check_choice(name: str, value: Any, known: Iterable[str]) -> None:
    if value not in known:
        raise ArgumentError(f"Expected {name} to be {' or '.join(map(repr, known))}; got {value!r}.")


def _composite(rule: Any, numbers: Mapping[str, float]) -> Composite:
    """Return the rules that a user means."""
    if isinstance(rule, Composite):
        return rule
    if isinstance(rule, Rule):
        return Composite(rule, rule)
    if not isinstance(rule, str) or rule not in get_args(RuleName):
        near = near_matches(rule, get_args(RuleName)) if isinstance(rule, str) else ""
        known = ", ".join(get_args(RuleName))
        raise ArgumentError(f"A rule is {known}, or a `Rule` or `Composite` of jaxviz.ops; got {rule!r}.{near}")
    weak, favour = epsilon_rule(numbers["epsilon"]), gamma_rule(numbers["gamma"])
    chosen = alpha_beta_rule(numbers["alpha"], numbers["beta"])
    plus, two_to_one = z_plus_rule(), alpha_beta_rule(2.0, 1.0)
    return {
        "epsilon": Composite(weak, weak),
        "gamma": Composite(favour, favour),
        "z_plus": Composite(plus, plus),
        "alpha_beta": Composite(chosen, chosen),
        "z_box": Composite(weak, weak, z_box_rule()),
        "flat": Composite(weak, weak, flat_rule()),
        "epsilon_plus": Composite(plus, weak),
        "epsilon_plus_flat": Composite(plus, weak, flat_rule()),
        "epsilon_alpha2_beta1": Composite(two_to_one, weak),
        "epsilon_alpha2_beta1_flat": Composite(two_to_one, weak, flat_rule()),
        "epsilon_gamma_box": Composite(favour, weak, z_box_rule()),
    }[rule]


def _peer_composite(rule: Any, convention: str, numbers: Mapping[str, float]) -> Composite:
    """Return the rules that a peer follows."""
    _check_choice("convention", convention, ("captum",))
    peers: dict[str, Rule] = {
        "epsilon": epsilon_rule(numbers["epsilon"]),
        "gamma": CaptumGamma(leaf(numbers["gamma"], "gamma", low=0)),
        "z_plus": CaptumAlpha1Beta0(),
    }
    if not isinstance(rule, str) or rule not in peers:
        raise ArgumentError(f"Under convention='captum' a rule is {', '.join(map(repr, peers))}; got {rule!r}.")
    return Composite(peers[rule], peers[rule], fold=False)
