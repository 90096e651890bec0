"""Relevance through a network: tables of operations whose gradient times the input is the relevance.

The backward pass carries c = R / value, the relevance per unit of a value, instead of the relevance R. For operations that are
linear or select one of their inputs, c obeys the chain rule as gradients do: ReLUs, pooling, sums, reshapes and skips need no
rule, and R_i = value_i c_i is the share in proportion to contributions. There is no division by values, so that nothing
explodes where a value is almost 0. Only convolutions and matrix products have rules.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias, Unpack

import jax
import jax.numpy as jnp

from jaxviz._errors import UnsupportedError
from jaxviz._pytree import pytree
from jaxviz._types import Array
from jaxviz.ops._conv.geometry import NO_PADDING, Geometry, MaxPoolOptions, Pair, Pairs
from jaxviz.ops._rules.lrp_rules import ImageRule, Product, Rule, transposed
from jaxviz.ops._table import EXACT, Ops, conv

Bias: TypeAlias = Literal["absorb", "share"]
Residual: TypeAlias = Literal["contribution", "magnitude"]


@pytree
@dataclasses.dataclass(frozen=True)
class Composite:
    """The rule of each operation, by its kind and place.

    Attributes:
        conv: rule of convolutions.
        linear: rule of fully connected layers.
        first: rule of the convolution that takes the image; that of `conv` by default.
        fold: whether a batch normalization right after a convolution is first folded into its kernel.
    """

    conv: Rule
    linear: Rule
    first: Rule | ImageRule | None = None
    fold: bool = dataclasses.field(default=True, metadata=dict(static=True))


class _Convolution(NamedTuple):
    """A convolution without bias; hashable, so that it can be static."""

    geometry: Geometry

    def __call__(self, x: Array, kernel: Array) -> Array:
        stride, padding, dilation, groups = self.geometry
        return conv(x, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups)


def _matrix_product(x: Array, kernel: Array) -> Array:
    return x @ kernel


class _Operation(NamedTuple):
    """A convolution that was computed: its product, input, kernel and bias."""

    product: Product
    x: Array
    kernel: Array
    bias: Array | None


class _RuleResidual(NamedTuple):
    rule: Rule
    x: Array
    kernel: Array
    bias: Array
    z: Array


class _ImageRuleResidual(NamedTuple):
    rule: ImageRule
    x: Array
    kernel: Array
    bounds: tuple[Array, Array]
    z: Array


def _per_image(x: Array) -> Array:
    return x.reshape(len(x), -1).sum(1)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _ruled(
    product: Product,
    nonnegative: bool,
    share: bool,
    rule: Rule,
    x: Array,
    kernel: Array,
    bias: Array,
    z: Array,
    absorbed: Array,
) -> Array:
    """Return z, which is product(x, kernel) + bias. The cotangent of `absorbed` (n,) is the relevance absorbed here."""
    return z


def _ruled_forward(
    product: Product, nonnegative: bool, share: bool, rule: Rule, x: Array, kernel: Array, bias: Array, z: Array, *rest: Any
) -> tuple[Array, _RuleResidual]:
    return z, _RuleResidual(rule, x, kernel, bias, z)


def _ruled_backward(
    product: Product, nonnegative: bool, share: bool, residual: _RuleResidual, c: Array
) -> tuple[None, Array, None, None, None, Array]:
    rule, x, kernel, bias, z = residual
    back = partial(transposed, product)
    up, down = jnp.maximum(kernel, 0), jnp.minimum(kernel, 0)
    if rule.plain and not share:
        a, _ = rule.coefficients(z, z, z, bias)
        x_cotangent = back(kernel, x, a * c)
    else:
        # Where inputs are not negative, or their sign does not matter, the sign of a contribution is that of the weight.
        simple = nonnegative or not rule.signed
        above, below = jnp.maximum(x, 0), jnp.minimum(x, 0)
        positive = product(x, up) if simple else product(above, up) + product(below, down)
        if rule.exact:
            negative = product(x, down) if simple else product(above, down) + product(below, up)
        else:
            negative = z - bias - positive
        if rule.signed:  # rounding may leave a trace of the wrong sign
            positive, negative = jnp.maximum(positive, 0), jnp.minimum(negative, 0)
        b_up, b_down = jnp.maximum(bias, 0), jnp.minimum(bias, 0)
        a, b = rule.coefficients(z, positive + b_up, negative + b_down, bias)
        if share:
            a, b = _with_bias(a, b, positive, negative, b_up * a + b_down * b)
        a, b = a * c, b * c
        x_cotangent = back(kernel, x, b) + back(up, x, a - b)
        if not simple:
            x_cotangent = jnp.where(x > 0, x_cotangent, jnp.where(x < 0, back(kernel, x, a) + back(up, x, b - a), 0))
    absorbed = _per_image(z * c) - _per_image(x * x_cotangent)
    return None, x_cotangent, None, None, None, absorbed


def _with_bias(a: Array, b: Array, positive: Array, negative: Array, lost: Array) -> tuple[Array, Array]:
    """Return a rule's coefficients with the share of the bias, `lost`, given to the inputs.

    It is split in proportion to the magnitudes of the inputs' own shares; where all of these are 0, of their contributions.
    Where no input contributes, the share of the bias stays there.
    """
    own = jnp.abs(a), jnp.abs(b)
    any_share = own[0] * positive - own[1] * negative > 1e-6 * jnp.abs(lost)
    size_a, size_b = (jnp.where(any_share, size, 1) for size in own)
    total = size_a * positive - size_b * negative
    heavy = total > 1e-6 * jnp.abs(lost)
    more = jnp.where(heavy, lost / jnp.where(heavy, total, 1), 0)
    return a + more * size_a, b - more * size_b


_ruled.defvjp(_ruled_forward, _ruled_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _image_ruled(
    product: Product,
    rule: ImageRule,
    x: Array,
    kernel: Array,
    z: Array,
    bounds: tuple[Array, Array],
    absorbed: Array,
    direct: Array,
) -> Array:
    """Return z. The cotangent of `direct`, which has x's shape, is the relevance of the pixels."""
    return z


def _image_ruled_forward(
    product: Product, rule: ImageRule, x: Array, kernel: Array, z: Array, bounds: tuple[Array, Array], *rest: Any
) -> tuple[Array, _ImageRuleResidual]:
    return z, _ImageRuleResidual(rule, x, kernel, bounds, z)


def _image_ruled_backward(
    product: Product, residual: _ImageRuleResidual, c: Array
) -> tuple[None, None, None, None, None, Array, Array]:
    rule, x, kernel, bounds, z = residual
    relevance = rule.relevance(product, x, kernel, bounds, z * c)
    return None, None, None, None, None, _per_image(z * c) - _per_image(relevance), relevance


_image_ruled.defvjp(_image_ruled_forward, _image_ruled_backward)


@jax.custom_vjp
def _normalized(x: Array, factor: Array, offset: Array, absorbed: Array) -> Array:
    return x * factor + offset


def _normalized_forward(x: Array, factor: Array, offset: Array, absorbed: Array) -> tuple[Array, tuple[Array, Array]]:
    return x * factor + offset, (factor, offset)


def _normalized_backward(residual: tuple[Array, Array], c: Array) -> tuple[Array, None, None, Array]:
    factor, offset = residual
    return c * factor, None, None, _per_image(c * offset)


_normalized.defvjp(_normalized_forward, _normalized_backward)


@jax.custom_vjp
def magnitude_add(x: Array, y: Array) -> Array:
    """Return x + y; its relevance is shared in proportion to |x| and |y| (ratio-based splitting, Otsuki et al., 2024)."""
    return x + y


def _magnitude_forward(x: Array, y: Array) -> tuple[Array, tuple[Array, Array]]:
    return x + y, (x, y)


def _magnitude_backward(residual: tuple[Array, Array], c: Array) -> tuple[Array, Array]:
    x, y = residual
    total = jnp.abs(x) + jnp.abs(y)
    share = jnp.where(total > 0, (x + y) / jnp.where(total > 0, total, 1), 0) * c
    return jnp.sign(x) * share, jnp.sign(y) * share


magnitude_add.defvjp(_magnitude_forward, _magnitude_backward)


class Propagation:
    """The table of operations of one traced run; it remembers which operation a value comes from.

    Args:
        composite: the rules.
        image: the normalized image (n, H, W, C), the same object that the network is called with.
        absorbed: zeros (n,); the derivative with respect to it is the relevance that biases and stabilizers absorb.
        direct: zeros of the image's shape; the derivative with respect to it is the relevance by an `ImageRule`.
        bounds: black and white after the normalization, (C,) each.
        bias: "absorb" as published, or "share": what a bias would absorb goes to the inputs of its operation, in proportion to
            the magnitudes of their own shares.
        residual: a sum of two branches shares in proportion to their values ("contribution") or to their "magnitude".
    """

    def __init__(
        self,
        composite: Composite,
        image: Array,
        absorbed: Array,
        direct: Array,
        bounds: tuple[Array, Array],
        *,
        bias: Bias,
        residual: Residual,
    ):
        self.composite, self.image, self.absorbed, self.direct, self.bounds = composite, image, absorbed, direct, bounds
        self.share, self.residual = bias == "share", residual
        # By identity; the values are kept too, so that no later one gets the same identity.
        self.convolved: dict[int, tuple[Array, _Operation]] = {}
        self.nonnegative: dict[int, Array] = {}
        self.saw_image = False

    def ops(self) -> Ops:
        """Return the table."""
        return Ops(self.conv, self.linear, self.batch_norm, self.relu, self.max_pool, self.avg_pool, self.add)

    def check(self) -> None:
        """Raise an UnsupportedError if the rule of the first convolution was not used; call it after the network has run."""
        if self.composite.first is not None and not self.saw_image:
            raise UnsupportedError(
                "The rule for the first convolution needs a convolution that takes the image itself; this network has none. "
                "Use a rule without it, such as 'epsilon_plus'."
            )

    def conv(
        self,
        x: Array,
        kernel: Array,
        bias: Array | None = None,
        *,
        stride: Pair = (1, 1),
        padding: Pairs = NO_PADDING,
        dilation: Pair = (1, 1),
        groups: int = 1,
    ) -> Array:
        product = _Convolution(Geometry(stride, padding, dilation, groups))
        y = self._product(product, x, kernel, bias, product(x, kernel) if bias is None else product(x, kernel) + bias)
        self.convolved[id(y)] = y, _Operation(product, x, kernel, bias)
        return y

    def linear(self, x: Array, kernel: Array, bias: Array | None = None) -> Array:
        return self._product(_matrix_product, x, kernel, bias, EXACT.linear(x, kernel, bias))

    def _product(self, product: Product, x: Array, kernel: Array, bias: Array | None, value: Array) -> Array:
        value = jax.lax.stop_gradient(value)
        bias = jnp.zeros((kernel.shape[-1],), x.dtype) if bias is None else bias
        rule: Rule | ImageRule = self.composite.linear if product is _matrix_product else self.composite.conv
        if x is self.image and product is not _matrix_product:
            self.saw_image = True
            rule = self.composite.first or rule
        if isinstance(rule, ImageRule):
            return _image_ruled(product, rule, x, kernel, value, self.bounds, self.absorbed, self.direct)
        return _ruled(product, id(x) in self.nonnegative, self.share, rule, x, kernel, bias, value, self.absorbed)

    def batch_norm(self, x: Array, scale: Array, bias: Array, mean: Array, var: Array, *, epsilon: float = 1e-5) -> Array:
        factor = scale * jax.lax.rsqrt(var + epsilon)
        offset = bias - mean * factor
        if not self.composite.fold or id(x) not in self.convolved:
            return _normalized(x, factor, offset, self.absorbed)
        # One operation on the convolution's input. The value is the network's own to the last bit, so that no ReLU near 0 and
        # no maximum among near equals changes.
        product, conv_input, kernel, conv_bias = self.convolved[id(x)][1]
        value = EXACT.batch_norm(x, scale, bias, mean, var, epsilon=epsilon)
        folded = offset if conv_bias is None else offset + conv_bias * factor
        return self._product(product, conv_input, kernel * factor, folded, value)

    def relu(self, x: Array) -> Array:
        return self._mark(EXACT.relu(x))

    def max_pool(self, x: Array, **options: Unpack[MaxPoolOptions]) -> Array:
        y = EXACT.max_pool(x, **options)
        return self._mark(y) if id(x) in self.nonnegative else y

    def avg_pool(self, x: Array, *, size: Pair) -> Array:
        y = EXACT.avg_pool(x, size=size)
        return self._mark(y) if id(x) in self.nonnegative else y

    def add(self, x: Array, y: Array) -> Array:
        return magnitude_add(x, y) if self.residual == "magnitude" else EXACT.add(x, y)

    def _mark(self, value: Array) -> Array:
        """Remember that a value is nowhere negative."""
        self.nonnegative[id(value)] = value
        return value
