"""Comparing gradients of piecewise linear networks at many points."""

from __future__ import annotations

import numpy as np


def assert_images_close(ours: np.ndarray, theirs: np.ndarray, what: str = "", tolerance: float = 1e-4) -> None:
    """Assert that the maps of most images differ by at most `tolerance` of the largest value, and none by more than 0.05.

    Where the input of a ReLU is zero but for rounding, one library lets the gradient through and the other does not: both are
    right. Among millions of inputs it happens for one point in ten or so, and moves some pixels by a hundredth.
    """
    assert ours.shape == theirs.shape and np.isfinite(ours).all()
    axes = tuple(range(1, ours.ndim))
    errors = np.abs(ours - theirs).max(axes) / np.abs(theirs).max(axes)
    assert np.median(errors) <= tolerance and errors.max() < 0.05, f"{what}: differs by {errors} of the largest values"
