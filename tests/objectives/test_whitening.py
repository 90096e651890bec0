"""Whitened directions, exact and with a ridge."""

from __future__ import annotations

import numpy as np
import pytest

import jaxviz as jv
from jaxviz.objectives._whitening import whiten, whiten_with_ridge

RNG = np.random.default_rng(0)
VECTOR = RNG.normal(size=12)


def test_whitening_undoes_what_channels_share():
    samples = RNG.normal(size=(500, 3)) @ np.array([[2.0, 0, 0], [1, 1, 0], [0, 0, 0.1]])
    want = VECTOR[:3] @ np.linalg.inv(samples.T @ samples / 500)
    np.testing.assert_allclose(whiten(VECTOR[:3], samples), want, rtol=1e-4)
    np.testing.assert_allclose(whiten(np.stack([VECTOR[:3]] * 2), samples.reshape(5, 10, 10, 3)), [want, want], rtol=1e-4)
    with pytest.raises(jv.ArgumentError, match="span"):
        whiten(VECTOR[:3], samples * [1, 1, 0])
    with pytest.raises(jv.ArgumentError, match=r"\(4,\)"):
        whiten(VECTOR[:4], samples)


def test_with_a_ridge_directions_are_the_same_where_the_samples_span_the_layer():
    samples, vectors = RNG.uniform(size=(60, 6)), RNG.uniform(size=(3, 6))
    exact = whiten(vectors, samples)
    ridged = whiten_with_ridge(vectors, samples, ridge=1e-9)
    cosine = (exact * ridged).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(ridged, axis=1)
    np.testing.assert_allclose(cosine, 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(ridged, axis=1), np.linalg.norm(vectors, axis=1), rtol=1e-5)
    few = whiten_with_ridge(vectors, samples[:2] * [1, 1, 1, 1, 1, 0])  # a silent channel, and too few samples to invert
    assert np.isfinite(few).all()
    for wrong in (samples[:, :5], samples * 0, samples[:0], samples * np.nan):
        with pytest.raises(jv.ArgumentError):
            whiten_with_ridge(vectors, wrong)
