"""The rules of layer-wise relevance propagation: how the relevance of an output is shared among what contributes to it.

An output is a sum of contributions, z_j = sum_i z_ij with z_ij = x_i w_ij, the bias being one of them. A `Rule` shares its
relevance R_j among its positive and its negative contributions, each in proportion; an `ImageRule`, of the first convolution,
shares by bounds or by place instead.
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

Product: TypeAlias = Callable[[Array, Array], Array]  # of an input and a kernel: a convolution or matrix product, without bias


def _ratio(a: Array, b: Array) -> Array:
    """Return a / b, and 0 where b is 0."""
    return jnp.where(b != 0, a / jnp.where(b != 0, b, 1), 0)


class Rule:
    """Base of rules that share in proportion to contributions: R_i = sum_j (A_j z_ij+ + B_j z_ij-) R_j / z_j.

    A rule is a pytree: its numbers are data, and another epsilon compiles nothing again.
    """

    signed = True  # contributions are told apart by their sign; otherwise by that of the weight, as peers do
    exact = False  # both sums of contributions are needed to full relative precision, the smaller one too
    plain = False  # A and B are the same, so that no sums of contributions are needed

    def coefficients(self, z: Array, positive: Array, negative: Array, bias: Array) -> tuple[Array, Array]:
        """Return A and B.

        Args:
            z: the output.
            positive, negative: the sums of its contributions of either sign, the bias included.
            bias: the bias, for rules that treat it apart.
        """
        raise NotImplementedError


class ImageRule:
    """Base of rules for the convolution that takes the image."""

    def relevance(self, product: Product, x: Array, kernel: Array, bounds: tuple[Array, Array], relevance: Array) -> Array:
        """Return the relevance of every pixel and colour of the normalised image x, given that of the outputs.

        Args:
            product: the convolution, of an input and a kernel.
            x: (n, H, W, C).
            kernel: (kh, kw, C, K).
            bounds: what black and white are after the normalisation, (C,) each.
            relevance: (n, h, w, K).
        """
        raise NotImplementedError


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Epsilon(Rule):
    """Made by `epsilon_rule`."""

    epsilon: Array
    plain = True

    def coefficients(self, z: Array, positive: Array, negative: Array, bias: Array) -> tuple[Array, Array]:
        size = jnp.abs(z)
        factor = jnp.where(size + self.epsilon > 0, size / jnp.maximum(size + self.epsilon, jnp.finfo(z.dtype).tiny), 1)
        return factor, factor


def epsilon_rule(epsilon: float = 1e-6) -> Epsilon:
    """Share in proportion to contributions: A = B = z / (z + epsilon sign(z)) (Bach et al., 2015).

    With epsilon 0 (LRP-0) it is input x gradient, for networks of ReLUs; a larger one absorbs relevance of weak outputs.
    """
    return Epsilon(leaf(epsilon, "epsilon", low=0))


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Gamma(Rule):
    """Made by `gamma_rule`."""

    gamma: Array

    def coefficients(self, z: Array, positive: Array, negative: Array, bias: Array) -> tuple[Array, Array]:
        share = _ratio(z, z + self.gamma * jnp.where(z >= 0, positive, negative))
        more = share * (1 + self.gamma)
        return jnp.where(z >= 0, more, share), jnp.where(z >= 0, share, more)


def gamma_rule(gamma: float = 0.25) -> Gamma:
    """Favour contributions of the output's own sign by 1 + gamma (Montavon et al., 2019; for both signs: Andeol et al., 2021).

    For z > 0, z_ij + gamma z_ij+ over its sum; for z < 0, which the sums of residual blocks bring, z_ij + gamma z_ij-. The sum
    is never smaller than the output, so nothing is divided by almost 0.
    """
    return Gamma(leaf(gamma, "gamma", low=0))


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class ZPlus(Rule):
    """Made by `z_plus_rule`."""

    def coefficients(self, z: Array, positive: Array, negative: Array, bias: Array) -> tuple[Array, Array]:
        up = z >= 0
        share = _ratio(z, jnp.where(up, positive, negative))
        return jnp.where(up, share, 0), jnp.where(up, 0, share)


def z_plus_rule() -> ZPlus:
    """Share among the contributions of the output's own sign only: for z > 0 the z+ rule (Montavon et al., 2017).

    It is `Gamma` with gamma to infinity; of outputs below 0 the negative contributions, so that relevance is kept there too.
    """
    return ZPlus()


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class AlphaBeta(Rule):
    """Made by `alpha_beta_rule`."""

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
    """Give alpha of the relevance to contributions of the output's own sign, take beta from the others (Bach et al., 2015).

    alpha - beta is 1. An output without any contribution of the other sign gives 1 to its own, so that relevance is kept.
    """
    if abs(alpha - beta - 1) > 1e-5:
        raise ArgumentError(f"Expected alpha - beta = 1, so that relevance is kept; got {alpha} and {beta}.")
    return AlphaBeta(leaf(alpha, "alpha", low=1), leaf(beta, "beta", low=0))


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class PeerGamma(Rule):
    """Captum's `GammaRule`: weights w + gamma w+ whatever the sign of input and output, the bias as it is."""

    gamma: Array
    signed = False

    def coefficients(self, z: Array, positive: Array, negative: Array, bias: Array) -> tuple[Array, Array]:
        total = z + self.gamma * (positive - jnp.maximum(bias, 0))
        share = z / (total + jnp.where(total >= 0, 1e-9, -1e-9))
        return share * (1 + self.gamma), share


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class PeerAlpha1Beta0(Rule):
    """Captum's `Alpha1_Beta0_Rule`: weights w+ whatever the sign of the input, the bias as it is, even below 0."""

    signed = False

    def coefficients(self, z: Array, positive: Array, negative: Array, bias: Array) -> tuple[Array, Array]:
        total = positive + jnp.minimum(bias, 0)
        return z / (total + jnp.where(total >= 0, 1e-9, -1e-9)), jnp.zeros_like(z)


def transposed(product: Product, kernel: Array, x: Array, g: Array) -> Array:
    """Return the product's transpose applied to g, of x's shape."""
    return jax.vjp(lambda x: product(x, kernel), x)[1](g)[0]


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class ZBox(ImageRule):
    """Made by `z_box_rule`."""

    def relevance(self, product: Product, x: Array, kernel: Array, bounds: tuple[Array, Array], relevance: Array) -> Array:
        low, high = (jnp.broadcast_to(bound, x.shape) for bound in bounds)
        parts = ((x, kernel), (-low, jnp.maximum(kernel, 0)), (-high, jnp.minimum(kernel, 0)))
        share = _ratio(relevance, sum((product(value, part) for value, part in parts[1:]), product(*parts[0])))
        return sum((value * transposed(product, part, x, share) for value, part in parts), jnp.zeros_like(x))


def z_box_rule() -> ZBox:
    """Share by how far a pixel is from its bounds l, black, and h, white (Montavon et al., 2017).

    R_i = sum_j (x_i w_ij - l_i w_ij+ - h_i w_ij-) R_j over its sum, to which the bias does not belong.
    """
    return ZBox()


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Flat(ImageRule):
    """Made by `flat_rule`."""

    def relevance(self, product: Product, x: Array, kernel: Array, bounds: tuple[Array, Array], relevance: Array) -> Array:
        ones = jnp.ones_like(kernel)
        return transposed(product, ones, x, _ratio(relevance, product(jnp.ones_like(x), ones)))


def flat_rule() -> Flat:
    """Share evenly among all pixels and colours that an output sees (Lapuschkin et al., 2017)."""
    return Flat()
