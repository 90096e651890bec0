"""What became of an ascent: a word for every image, instead of a grey picture without an explanation."""

from __future__ import annotations

import numpy as np

from jaxviz.engine._execute import Chunk

OK = "ok"
NOT_FINITE = "not finite"
NO_GRADIENT = "no gradient"
NO_RISE = "no rise"


def diagnose(chunk: Chunk) -> np.ndarray:
    """Return (k, S) of `"ok"` or what went wrong.

    - `"not finite"`: a NaN or an infinity was met; the image is the last one before it.
    - `"no gradient"`: the gradient was zero at every step (a dead unit); the image is the start.
    - `"no rise"`: over the last quarter of the steps, what was optimised was no higher on average than at the first step.
    """
    words = np.full(chunk.scores.shape, OK, dtype=f"<U{max(map(len, (OK, NOT_FINITE, NO_GRADIENT, NO_RISE)))}")
    steps = chunk.history.shape[-1]
    if steps:
        with np.errstate(invalid="ignore"):
            late = chunk.history[..., -max(1, steps // 4) :].mean(-1)
            words[(late <= chunk.history[..., 0]) & (steps > 1)] = NO_RISE
        words[~chunk.moved] = NO_GRADIENT
    words[~chunk.finite | ~np.isfinite(chunk.scores)] = NOT_FINITE
    return words
