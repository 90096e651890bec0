"""Published lists of transforms."""

from __future__ import annotations

from jaxviz.transforms._compose import Compose, compose
from jaxviz.transforms._geometry import jitter, pad, rotate, scale


def standard() -> Compose:
    """Lucid's standard transforms: padding, jitter by 8, scaling by 0.9 to 1.1, rotation by up to 10 degrees, jitter by 4.

    The factors (0.9, 0.92, ... 1.1) and angles (-10, -9, ... 10 degrees, 0 six times as likely as each other) are
    Lucid's lists. Lucid pads by 12, and its two jitters crop 8 + 4 pixels again. Here jitter keeps the size, so the padding is
    6: the network gets the same H + 12 by W + 12 pixels. Lucid's scaled size varies, and it fills with gray, then black; here
    the size is fixed and all fill is gray (0.5).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> standard()(jax.random.key(0), jnp.ones((32, 32, 3))).shape
        (44, 44, 3)
    """
    return compose(
        pad(6, 0.5),
        jitter(8),
        scale([1 + (i - 5) / 50 for i in range(11)]),
        rotate([*range(-10, 11), 0, 0, 0, 0, 0]),
        jitter(4),
    )


def all_stops() -> Compose:
    """Lucid's strongest robustness ("breaking out all the stops"): scaling by 0.8 to 1.19, rotation, jitter by 8 and 2.

    The factors (0.8, 0.81, ... 1.19) and angles (-10 to 9 degrees, -5 to 4 again, and -2 to 1 ten times more) are those of
    Lucid's tutorial. It pads by 16, and its two jitters crop 8 + 2 again; here jitter keeps the size, so the padding is 11.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> all_stops()(jax.random.key(0), jnp.ones((32, 32, 3))).shape
        (54, 54, 3)
    """
    return compose(
        pad(11, 0.5),
        jitter(8),
        scale([n / 100 for n in range(80, 120)]),
        rotate([*range(-10, 10), *range(-5, 5), *(10 * [-2, -1, 0, 1])]),
        jitter(2),
    )


def caricature() -> Compose:
    """Lucid's transforms for caricatures and feature inversion: milder, and half of the draws are not scaled.

    Factors 0.9, 0.95, 1.05, 1.1 and four times 1; angles -5 to 4 degrees, and five more times 0. Lucid pads by 8, and its two
    jitters crop 8 + 2 again; here jitter keeps the size, so the padding is 3.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> caricature()(jax.random.key(0), jnp.ones((32, 32, 3))).shape
        (38, 38, 3)
    """
    return compose(
        pad(3, 0.5),
        jitter(8),
        scale([0.9, 0.95, 1.05, 1.1, 1, 1, 1, 1]),
        rotate([*range(-5, 5), 0, 0, 0, 0, 0]),
        jitter(2),
    )
