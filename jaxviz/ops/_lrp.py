"""The rules of layer-wise relevance propagation: how the relevance of an output is shared among what contributes to it.

An output is a sum of contributions, z_j = sum_i z_ij with z_ij = x_i w_ij, the bias being one of them. `Rule`s share its
relevance R_j among its positive and its negative contributions, each in proportion; `ImageRule`s, of the first convolution, share
by bounds or by place instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxviz._errors import ArgumentError
from jaxviz._static import leaf, pytree
from jaxviz._types import Array, ArrayLike

Product: TypeAlias = Callable[[Array, Array], Array]  # of an input and a kernel: a convolution or matrix product, without bias


def _number(default: float, what: str) -> Any:
    return dataclasses.field(default=default, metadata={"what": what})


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

    def __post_init__(self) -> None:
        _check_numbers(self)


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


def _check_numbers(rule: Any) -> None:
    for field in dataclasses.fields(rule):
        value = getattr(rule, field.name)
        # What JAX puts in while it handles structures only is let through.
        if "what" in field.metadata and isinstance(value, int | float):
            object.__setattr__(rule, field.name, leaf(value, field.metadata["what"], low=0))


@pytree
@dataclasses.dataclass(frozen=True)
class Epsilon(Rule):
    """Share in proportion to contributions: A = B = z / (z + epsilon sign(z)) (Bach et al., 2015).

    With epsilon 0 (LRP-0) it is input x gradient, for networks of ReLUs; a larger one absorbs relevance of weak outputs.
    """

    epsilon: ArrayLike = _number(1e-6, "epsilon")
    plain = True

    def coefficients(self, z: Array, positive: Array, negative: Array, bias: Array) -> tuple[Array, Array]:
        size = jnp.abs(z)
        factor = jnp.where(size + self.epsilon > 0, size / jnp.maximum(size + self.epsilon, jnp.finfo(z.dtype).tiny), 1)
        return factor, factor


@pytree
@dataclasses.dataclass(frozen=True)
class Gamma(Rule):
    """Favour contributions of the output's own sign by 1 + gamma (Montavon et al., 2019; for both signs: Andeol et al., 2021).

    For z > 0, z_ij + gamma z_ij+ over its sum; for z < 0, which the sums of residual blocks bring, z_ij + gamma z_ij-. The sum
    is never smaller than the output, so nothing is divided by almost 0.
    """

    gamma: ArrayLike = _number(0.25, "gamma")

    def coefficients(self, z: Array, positive: Array, negative: Array, bias: Array) -> tuple[Array, Array]:
        share = _ratio(z, z + self.gamma * jnp.where(z >= 0, positive, negative))
        more = share * (1 + self.gamma)
        return jnp.where(z >= 0, more, share), jnp.where(z >= 0, share, more)


@pytree
@dataclasses.dataclass(frozen=True)
class ZPlus(Rule):
    """Share among the contributions of the output's own sign only: for z > 0 the z+ rule (Montavon et al., 2017).

    It is `Gamma` with gamma to infinity; of outputs below 0 the negative contributions, so that relevance is kept there too.
    """

    def coefficients(self, z: Array, positive: Array, negative: Array, bias: Array) -> tuple[Array, Array]:
        up = z >= 0
        share = _ratio(z, jnp.where(up, positive, negative))
        return jnp.where(up, share, 0), jnp.where(up, 0, share)


@pytree
@dataclasses.dataclass(frozen=True)
class AlphaBeta(Rule):
    """Give alpha of the relevance to contributions of the output's own sign, take beta from the others (Bach et al., 2015).

    alpha - beta is 1. An output without any contribution of the other sign gives 1 to its own, so that relevance is kept.
    """

    alpha: ArrayLike = _number(2.0, "alpha")
    beta: ArrayLike = _number(1.0, "beta")
    exact = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.alpha, jax.Array) or isinstance(self.beta, jax.Array):
            return
        try:
            wrong = abs(float(self.alpha) - float(self.beta) - 1) > 1e-5  # type: ignore[arg-type]
        except TypeError:  # a structure without numbers
            return
        if wrong:
            raise ArgumentError(f"Expected alpha - beta = 1, so that relevance is kept; got {self.alpha} and {self.beta}.")

    def coefficients(self, z: Array, positive: Array, negative: Array, bias: Array) -> tuple[Array, Array]:
        up = z >= 0
        own, other = jnp.where(up, positive, negative), jnp.where(up, negative, positive)
        opposed = jnp.abs(other) > 1e-6 * jnp.abs(own)
        first = _ratio(z, own) * jnp.where(opposed, self.alpha, 1)
        second = -self.beta * jnp.where(opposed, _ratio(z, other), 0)
        return jnp.where(up, first, second), jnp.where(up, second, first)


@pytree
@dataclasses.dataclass(frozen=True)
class PeerGamma(Rule):
    """Captum's `GammaRule`: weights w + gamma w+ whatever the sign of input and output, the bias as it is."""

    gamma: ArrayLike = _number(0.25, "gamma")
    signed = False

    def coefficients(self, z: Array, positive: Array, negative: Array, bias: Array) -> tuple[Array, Array]:
        total = z + self.gamma * (positive - jnp.maximum(bias, 0))
        share = z / (total + jnp.where(total >= 0, 1e-9, -1e-9))
        return share * (1 + self.gamma), share


@pytree
@dataclasses.dataclass(frozen=True)
class PeerAlpha1Beta0(Rule):
    """Captum's `Alpha1_Beta0_Rule`: weights w+ whatever the sign of the input, the bias as it is, even below 0."""

    signed = False

    def coefficients(self, z: Array, positive: Array, negative: Array, bias: Array) -> tuple[Array, Array]:
        total = positive + jnp.minimum(bias, 0)
        return z / (total + jnp.where(total >= 0, 1e-9, -1e-9)), jnp.zeros_like(z)


def transposed(product: Product, kernel: Array, x: Array, g: Array) -> Array:
    """Return the product's transpose applied to g, of x's shape."""
    return jax.linear_transpose(lambda x: product(x, kernel), x)(g)[0]


@pytree
@dataclasses.dataclass(frozen=True)
class ZBox(ImageRule):
    """Share by how far a pixel is from its bounds l, black, and h, white (Montavon et al., 2017).

    R_i = sum_j (x_i w_ij - l_i w_ij+ - h_i w_ij-) R_j over its sum, to which the bias does not belong.
    """

    def relevance(self, product: Product, x: Array, kernel: Array, bounds: tuple[Array, Array], relevance: Array) -> Array:
        low, high = (jnp.broadcast_to(bound, x.shape) for bound in bounds)
        parts = ((x, kernel), (-low, jnp.maximum(kernel, 0)), (-high, jnp.minimum(kernel, 0)))
        share = _ratio(relevance, sum((product(value, part) for value, part in parts[1:]), product(*parts[0])))
        return sum((value * transposed(product, part, x, share) for value, part in parts), jnp.zeros_like(x))


@pytree
@dataclasses.dataclass(frozen=True)
class Flat(ImageRule):
    """Share evenly among all pixels and colours that an output sees (Lapuschkin et al., 2017)."""

    def relevance(self, product: Product, x: Array, kernel: Array, bounds: tuple[Array, Array], relevance: Array) -> Array:
        ones = jnp.ones_like(kernel)
        return transposed(product, ones, x, _ratio(relevance, product(jnp.ones_like(x), ones)))
