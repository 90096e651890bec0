"""Relevance through a network: tables of operations whose gradient times the input is the relevance.

What runs backwards is c = R / value, the relevance of a value per unit of it, and not the relevance itself. For everything that
is linear, or picks one of its inputs, c obeys the chain rule as gradients do: ReLUs, pooling, sums, reshapes and skips need no
rule of their own, and R_i = value_i c_i is the share in proportion to contributions. No value is divided by on the way, so that
nothing explodes where one is almost 0. Only convolutions and matrix products have rules.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp

from jaxviz._errors import UnsupportedError
from jaxviz._pytree import pytree
from jaxviz._types import Array
from jaxviz.ops._conv.geometry import Pair, Pairs
from jaxviz.ops._rules.lrp_rules import ImageRule, Product, Rule, transposed
from jaxviz.ops._table import EXACT, Ops, conv

Bias: TypeAlias = Literal["absorb", "share"]
Residual: TypeAlias = Literal["contribution", "magnitude"]


@pytree
@dataclasses.dataclass(frozen=True)
class Composite:
    """Which rule each operation follows, by its kind and place.

    Attributes:
        conv: of convolutions.
        linear: of fully connected layers.
        first: of the convolution that takes the image; as `conv` unless given.
        fold: whether a normalisation right after a convolution is folded into its kernel first.
    """

    conv: Rule
    linear: Rule
    first: Rule | ImageRule | None = None
    fold: bool = dataclasses.field(default=True, metadata=dict(static=True))


@dataclasses.dataclass(frozen=True)
class _Convolution:
    """A convolution without bias, equal to another of the same options."""

    options: tuple[tuple[str, Any], ...]

    def __call__(self, x: Array, kernel: Array) -> Array:
        return conv(x, kernel, **dict(self.options))


def _matrix_product(x: Array, kernel: Array) -> Array:
    return x @ kernel


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
    """Return z, which is product(x, kernel) + bias. The cotangent of `absorbed` (n,) is the relevance that ends here."""
    return z


def _ruled_forward(
    product: Product, nonnegative: bool, share: bool, rule: Rule, x: Array, kernel: Array, bias: Array, z: Array, *rest: Any
) -> tuple[Array, tuple]:
    return z, (rule, x, kernel, bias, z)


def _ruled_backward(product: Product, nonnegative: bool, share: bool, residual: tuple, c: Array) -> tuple:
    rule, x, kernel, bias, z = residual
    back = partial(transposed, product)
    up, down = jnp.maximum(kernel, 0), jnp.minimum(kernel, 0)
    if rule.plain and not share:
        a, _ = rule.coefficients(z, z, z, bias)
        found = back(kernel, x, a * c)
    else:
        # Of inputs that are not below 0, or not to be told apart, the sign of a contribution is that of the weight.
        simple = nonnegative or not rule.signed
        above, below = jnp.maximum(x, 0), jnp.minimum(x, 0)
        positive = product(x, up) if simple else product(above, up) + product(below, down)
        if rule.exact:
            negative = product(x, down) if simple else product(above, down) + product(below, up)
        else:
            negative = z - bias - positive
        if rule.signed:  # rounding may have left a trace of the wrong sign
            positive, negative = jnp.maximum(positive, 0), jnp.minimum(negative, 0)
        b_up, b_down = jnp.maximum(bias, 0), jnp.minimum(bias, 0)
        a, b = rule.coefficients(z, positive + b_up, negative + b_down, bias)
        if share:
            a, b = _with_bias(a, b, positive, negative, b_up * a + b_down * b)
        a, b = a * c, b * c
        found = back(kernel, x, b) + back(up, x, a - b)
        if not simple:
            found = jnp.where(x > 0, found, jnp.where(x < 0, back(kernel, x, a) + back(up, x, b - a), 0))
    absorbed = _per_image(z * c) - _per_image(x * found)
    return None, found, None, None, None, absorbed


def _with_bias(a: Array, b: Array, positive: Array, negative: Array, lost: Array) -> tuple[Array, Array]:
    """Return a rule's coefficients with the share of the bias, `lost`, given to the inputs.

    In proportion to the magnitude of each one's own share; where none has one, of its contribution; where no input contributes
    anything to speak of, nobody gets it.
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
def _of_image(
    product: Product,
    rule: ImageRule,
    x: Array,
    kernel: Array,
    z: Array,
    bounds: tuple[Array, Array],
    absorbed: Array,
    direct: Array,
) -> Array:
    """Return z. The cotangent of `direct`, of x's shape, is the relevance of the pixels."""
    return z


def _of_image_forward(product: Product, rule: ImageRule, x: Array, kernel: Array, z: Array, *rest: Any) -> tuple[Array, tuple]:
    return z, (rule, x, kernel, rest[0], z)


def _of_image_backward(product: Product, residual: tuple, c: Array) -> tuple:
    rule, x, kernel, bounds, z = residual
    relevance = rule.relevance(product, x, kernel, bounds, z * c)
    return None, None, None, None, None, _per_image(z * c) - _per_image(relevance), relevance


_of_image.defvjp(_of_image_forward, _of_image_backward)


@jax.custom_vjp
def _normalised(x: Array, factor: Array, offset: Array, absorbed: Array) -> Array:
    return x * factor + offset


def _normalised_forward(x: Array, factor: Array, offset: Array, absorbed: Array) -> tuple[Array, tuple]:
    return x * factor + offset, (factor, offset)


def _normalised_backward(residual: tuple, c: Array) -> tuple:
    factor, offset = residual
    return c * factor, None, None, _per_image(c * offset)


_normalised.defvjp(_normalised_forward, _normalised_backward)


@jax.custom_vjp
def magnitude_add(x: Array, y: Array) -> Array:
    """Return x + y, whose relevance is shared in proportion to |x| and |y| (ratio-based splitting, Otsuki et al., 2024)."""
    return x + y


def _magnitude_forward(x: Array, y: Array) -> tuple[Array, tuple]:
    return x + y, (x, y)


def _magnitude_backward(residual: tuple, c: Array) -> tuple:
    x, y = residual
    total = jnp.abs(x) + jnp.abs(y)
    share = jnp.where(total > 0, (x + y) / jnp.where(total > 0, total, 1), 0) * c
    return jnp.sign(x) * share, jnp.sign(y) * share


magnitude_add.defvjp(_magnitude_forward, _magnitude_backward)


class Propagation:
    """The table of operations of one traced run: it remembers which values come out of what.

    Args:
        composite: the rules.
        image: the normalised image (n, H, W, C), the very object that the network is called with.
        absorbed: zeros (n,), to differentiate with respect to: the relevance that biases and stabilisers absorb.
        direct: zeros of the image's shape, to differentiate with respect to: the relevance by an `ImageRule`.
        bounds: black and white after the normalisation, (C,) each.
        bias: "absorb" as published, or "share": what a bias would absorb goes to the inputs of its operation, in proportion to
            the magnitude of their own shares.
        residual: how a sum of two branches shares: in proportion to the two values, or to their magnitudes.
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
        # By identity; the values are kept, too, so that no later one gets the same identity.
        self.convolved: dict[int, tuple[Array, tuple]] = {}
        self.nonnegative: dict[int, Array] = {}
        self.saw_image = False

    def ops(self) -> Ops:
        """Return the table."""
        return Ops(self.conv, self.linear, self.batch_norm, self.relu, self.max_pool, self.avg_pool, self.add)

    def check(self) -> None:
        """Raise an UnsupportedError where the image's rule was never used; call it when the network has run."""
        if self.composite.first is not None and not self.saw_image:
            raise UnsupportedError(
                "A rule for the first convolution needs one that takes the image itself; in this network none does. Use a rule "
                "without one, such as 'epsilon_plus'."
            )

    def conv(
        self,
        x: Array,
        kernel: Array,
        bias: Array | None = None,
        *,
        stride: Pair = (1, 1),
        padding: Pairs = ((0, 0), (0, 0)),
        dilation: Pair = (1, 1),
        groups: int = 1,
    ) -> Array:
        product = _Convolution((("stride", stride), ("padding", padding), ("dilation", dilation), ("groups", groups)))
        made = self._product(product, x, kernel, bias, product(x, kernel) if bias is None else product(x, kernel) + bias)
        self.convolved[id(made)] = made, (product, x, kernel, bias)
        return made

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
            return _of_image(product, rule, x, kernel, value, self.bounds, self.absorbed, self.direct)
        return _ruled(product, id(x) in self.nonnegative, self.share, rule, x, kernel, bias, value, self.absorbed)

    def batch_norm(self, x: Array, scale: Array, bias: Array, mean: Array, var: Array, *, epsilon: float = 1e-5) -> Array:
        factor = scale * jax.lax.rsqrt(var + epsilon)
        offset = bias - mean * factor
        if not self.composite.fold or id(x) not in self.convolved:
            return _normalised(x, factor, offset, self.absorbed)
        # One operation of the convolution's input. The value stays the network's own to the last bit, so that no ReLU near 0
        # and no maximum among near equals turns out another way.
        product, below, kernel, own = self.convolved[id(x)][1]
        value = EXACT.batch_norm(x, scale, bias, mean, var, epsilon=epsilon)
        return self._product(product, below, kernel * factor, offset if own is None else offset + own * factor, value)

    def relu(self, x: Array) -> Array:
        return self._mark(EXACT.relu(x))

    def max_pool(self, x: Array, **options: Any) -> Array:
        made = EXACT.max_pool(x, **options)
        return self._mark(made) if id(x) in self.nonnegative else made

    def avg_pool(self, x: Array, **options: Any) -> Array:
        made = EXACT.avg_pool(x, **options)
        return self._mark(made) if id(x) in self.nonnegative else made

    def add(self, x: Array, y: Array) -> Array:
        return magnitude_add(x, y) if self.residual == "magnitude" else EXACT.add(x, y)

    def _mark(self, value: Array) -> Array:
        self.nonnegative[id(value)] = value
        return value
