"""The rules of layer-wise relevance propagation: how an output shares its relevance among its contributions.

An output is a sum of contributions, z_j = sum_i z_ij with z_ij = x_i w_ij; the bias is one of them. A `Rule` shares the
relevance R_j among the positive and among the negative contributions, in proportion; an `ImageRule`, for the first convolution,
shares by bounds or by place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from jaxviz._errors import ArgumentError
from jaxviz._pytree import leaf, pytree
from jaxviz._types import Array

Product: TypeAlias = Callable[[Array, Array], Array]  # (input, kernel) -> convolution or matrix product, without bias


def _ratio(a: Array, b: Array) -> Array:
    """Return a / b, and 0 where b is 0."""
    return jnp.where(b != 0, a / jnp.where(b != 0, b, 1), 0)


class Rule:
    """Base of rules that share in proportion to contributions: R_i = sum_j (A_j z_ij+ + B_j z_ij-) R_j / z_j.

    A rule is a pytree whose numbers are data: another epsilon compiles nothing again.
    """

    signed = True  # z_ij+ and z_ij- are split by the sign of the contribution; otherwise by that of the weight, as in Captum
    exact = False  # both sums of contributions need full relative precision, even the smaller one
    plain = False  # A = B, so that no sums of contributions are needed

    def coefficients(self, z: Array, positive: Array, negative: Array, bias: Array) -> tuple[Array, Array]:
        """Return A and B.

        Args:
            z: the output.
            positive, negative: the sums of its contributions of each sign, including the bias.
            bias: the bias, for rules that treat it separately.
        """
        raise NotImplementedError


class ImageRule:
    """Base of rules for the convolution that takes the image."""

    def relevance(self, product: Product, x: Array, kernel: Array, bounds: tuple[Array, Array], relevance: Array) -> Array:
        """Return the relevance of every pixel and color of the normalized image, given that of the outputs.

        Args:
            product: the convolution.
            x: the normalized image (n, H, W, C).
            kernel: (kh, kw, C, K).
            bounds: black and white after the normalization, (C,) each.
            relevance: of the outputs, (n, h, w, K).
        """
        raise NotImplementedError


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Epsilon(Rule):
    """The rule of `epsilon_rule`."""

    epsilon: Array
    plain = True

    def coefficients(self, z: Array, positive: Array, negative: Array, bias: Array) -> tuple[Array, Array]:
        size = jnp.abs(z)
        factor = jnp.where(size + self.epsilon > 0, size / jnp.maximum(size + self.epsilon, jnp.finfo(z.dtype).tiny), 1)
        return factor, factor


def epsilon_rule(epsilon: float = 1e-6) -> Epsilon:
    """Share in proportion to contributions: A = B = z / (z + epsilon sign(z)) (Bach et al., 2015).

    With epsilon 0 (LRP-0) and ReLUs it is input x gradient; a larger epsilon absorbs the relevance of weak outputs.
    """
    return Epsilon(leaf(epsilon, "epsilon", low=0))


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Gamma(Rule):
    """The rule of `gamma_rule`."""

    gamma: Array

    def coefficients(self, z: Array, positive: Array, negative: Array, bias: Array) -> tuple[Array, Array]:
        share = _ratio(z, z + self.gamma * jnp.where(z >= 0, positive, negative))
        more = share * (1 + self.gamma)
        return jnp.where(z >= 0, more, share), jnp.where(z >= 0, share, more)


def gamma_rule(gamma: float = 0.25) -> Gamma:
    """Favor contributions of the output's sign by 1 + gamma (Montavon et al., 2019; for both signs: Andeol et al., 2021).

    For z > 0 the shares are z_ij + gamma z_ij+ over their sum; for z < 0, which occurs at the sums of residual blocks,
    z_ij + gamma z_ij-. The sum is never smaller in magnitude than the output, so that there is no division by almost 0.
    """
    return Gamma(leaf(gamma, "gamma", low=0))


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class ZPlus(Rule):
    """The rule of `z_plus_rule`."""

    def coefficients(self, z: Array, positive: Array, negative: Array, bias: Array) -> tuple[Array, Array]:
        up = z >= 0
        share = _ratio(z, jnp.where(up, positive, negative))
        return jnp.where(up, share, 0), jnp.where(up, 0, share)


def z_plus_rule() -> ZPlus:
    """Share only among contributions of the output's sign: for z > 0 the z+ rule (Montavon et al., 2017).

    The limit of `gamma_rule` for an infinite gamma. Negative outputs share among their negative contributions, so that
    relevance is conserved there too.
    """
    return ZPlus()


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class AlphaBeta(Rule):
    """The rule of `alpha_beta_rule`."""

    alpha: Array
    beta: Array
    exact = True

    def coefficients(self, z: Array, positive: Array, negative: Array, bias: Array) -> tuple[Array, Array]:
        up = z >= 0
        own, other = jnp.where(up, positive, negative), jnp.where(up, negative, positive)
        opposed = jnp.abs(other) > 1e-6 * jnp.abs(own)
        first = _ratio(z, own) * jnp.where(opposed, self.alpha, 1)
        second = -self.beta * jnp.where(opposed, _ratio(z, other), 0)
        return jnp.where(up, first, second), jnp.where(up, second, first)


def alpha_beta_rule(alpha: float = 2.0, beta: float = 1.0) -> AlphaBeta:
    """Give alpha R to contributions of the output's sign and -beta R to the others (Bach et al., 2015).

    An output without contributions of the other sign gives R to its own, so that relevance is conserved.

    Args:
        alpha: at least 1.
        beta: alpha - 1.

    Raises:
        ArgumentError: alpha - beta is not 1, or a value is out of range.

    >>> attribution = jaxviz.attribution.lrp(model, images, rule=jaxviz.ops.alpha_beta_rule(2.0, 1.0))
    """
    if abs(alpha - beta - 1) > 1e-5:
        raise ArgumentError(f"Expected alpha - beta = 1, so that relevance is conserved; got {alpha} and {beta}.")
    return AlphaBeta(leaf(alpha, "alpha", low=1), leaf(beta, "beta", low=0))


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class CaptumGamma(Rule):
    """Captum's `GammaRule`: weights w + gamma w+ for any sign of input and output, the bias unchanged."""

    gamma: Array
    signed = False

    def coefficients(self, z: Array, positive: Array, negative: Array, bias: Array) -> tuple[Array, Array]:
        total = z + self.gamma * (positive - jnp.maximum(bias, 0))
        share = z / (total + jnp.where(total >= 0, 1e-9, -1e-9))
        return share * (1 + self.gamma), share


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class CaptumAlpha1Beta0(Rule):
    """Captum's `Alpha1_Beta0_Rule`: weights w+ for any sign of the input, the bias unchanged, even where negative."""

    signed = False

    def coefficients(self, z: Array, positive: Array, negative: Array, bias: Array) -> tuple[Array, Array]:
        total = positive + jnp.minimum(bias, 0)
        return z / (total + jnp.where(total >= 0, 1e-9, -1e-9)), jnp.zeros_like(z)


def transposed(product: Product, kernel: Array, x: Array, g: Array) -> Array:
    """Return the product's transpose applied to g, with x's shape."""
    return jax.vjp(lambda x: product(x, kernel), x)[1](g)[0]


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class ZBox(ImageRule):
    """The rule of `z_box_rule`."""

    def relevance(self, product: Product, x: Array, kernel: Array, bounds: tuple[Array, Array], relevance: Array) -> Array:
        low, high = (jnp.broadcast_to(bound, x.shape) for bound in bounds)
        parts = ((x, kernel), (-low, jnp.maximum(kernel, 0)), (-high, jnp.minimum(kernel, 0)))
        share = _ratio(relevance, sum((product(value, part) for value, part in parts[1:]), product(*parts[0])))
        return sum((value * transposed(product, part, x, share) for value, part in parts), jnp.zeros_like(x))


def z_box_rule() -> ZBox:
    """Share by the distance of a pixel from its bounds l (black) and h (white) (Montavon et al., 2017).

    R_i = sum_j R_j (x_i w_ij - l_i w_ij+ - h_i w_ij-) / (sum of the same over i), without the bias.
    """
    return ZBox()


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Flat(ImageRule):
    """The rule of `flat_rule`."""

    def relevance(self, product: Product, x: Array, kernel: Array, bounds: tuple[Array, Array], relevance: Array) -> Array:
        ones = jnp.ones_like(kernel)
        return transposed(product, ones, x, _ratio(relevance, product(jnp.ones_like(x), ones)))


def flat_rule() -> Flat:
    """Share evenly among all pixels and colors in an output's window (Lapuschkin et al., 2017)."""
    return Flat()
