"""What became of an ascent: a word for every image, instead of a grey picture without an explanation."""

from __future__ import annotations

import numpy as np

OK = "ok"
NOT_FINITE = "not finite"
NO_GRADIENT = "no gradient"
NO_RISE = "no rise"


def diagnose(scores: np.ndarray, history: np.ndarray, moved: np.ndarray, finite: np.ndarray) -> np.ndarray:
    """Return (k, S) of `"ok"` or what went wrong.

    `scores` (k, S) and `history` (k, S, steps) as in a `Result`; `moved` (k, S): there was ever a gradient; `finite` (k, S):
    there was never a NaN.

    - `"not finite"`: a NaN or an infinity was met; the image is the last one before it.
    - `"no gradient"`: the gradient was zero at every step (a dead unit); the image is the start.
    - `"no rise"`: over the last quarter of the steps, what was optimised was no higher on average than at the first step.
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
