"""Lists of transforms that others published."""

from __future__ import annotations

from jaxviz.transforms._compose import Compose, compose
from jaxviz.transforms._geometry import jitter, pad, rotate, scale


def standard() -> Compose:
    """Lucid's standard transforms: padding, jitter by 8, scaling by 0.9 to 1.1, rotation by up to 10 degrees, jitter by 4.

    The factors (0.9, 0.92, ... 1.1) and angles (-10, -9, ... 10 degrees, 0 six times as likely as each other) are
    Lucid's lists. Lucid pads by 12, and its two jitters crop 8 + 4 again; ours keep the size and so the padding is 6:
    the network sees the same H + 12 by W + 12 pixels. Lucid lets the scaled size vary and fills with grey, then
    black; here the size is fixed and all fill is grey (0.5).

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
