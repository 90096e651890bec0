"""Status of each optimized image: a word that explains a gray picture."""

from __future__ import annotations

import numpy as np

OK = "ok"
NOT_FINITE = "not finite"
NO_GRADIENT = "no gradient"
NO_RISE = "no rise"


def diagnose(scores: np.ndarray, history: np.ndarray, moved: np.ndarray, finite: np.ndarray) -> np.ndarray:
    """Return the status of each image, str (k, S).

    - `"ok"`.
    - `"not finite"`: there was a NaN or an infinity; the image is the last one before it.
    - `"no gradient"`: the gradient was zero at every step (a dead unit); the image is the start.
    - `"no rise"`: over the last quarter of the steps, the optimized value was on average no higher than at the first step.

    Args:
        scores: (k, S), see `Result`.
        history: (k, S, steps), see `Result`.
        moved: bool (k, S), whether there was ever a gradient.
        finite: bool (k, S), whether there was never a NaN.
    """
    words = np.full(scores.shape, OK, dtype=f"<U{max(map(len, (OK, NOT_FINITE, NO_GRADIENT, NO_RISE)))}")
    steps = history.shape[-1]
    if steps:
        with np.errstate(invalid="ignore"):
            late = history[..., -max(1, steps // 4) :].mean(-1)
            words[(late <= history[..., 0]) & (steps > 1)] = NO_RISE
        words[~moved] = NO_GRADIENT
    words[~finite | ~np.isfinite(scores)] = NOT_FINITE
    return words
