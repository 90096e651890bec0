"""ROAD against pytorch-grad-cam, its solver against SciPy's sparse one, and its noise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz as jv
from jaxviz import metrics
from jaxviz.metrics._inpaint import impute
from tests.attribution.reference import assert_close, full, images, normalised, pair
from tests.tiny import random_images, tiny_model
from tests.torch_reference import import_torchvision


def solved(x: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Return what a sparse direct solver makes of the system, written down pixel by pixel, in float64."""
    sparse = pytest.importorskip("scipy.sparse")
    linalg = pytest.importorskip("scipy.sparse.linalg")
    h, w = keep.shape
    number = {place: i for i, place in enumerate(zip(*np.nonzero(~keep), strict=True))}
    system, right = sparse.lil_matrix((len(number), len(number))), np.zeros((len(number), x.shape[-1]))
    for (r, c), i in number.items():
        for dr in (-1, 0, 1):
            for dc in (-1, 0, 1):
                weight = {0: 0, 1: 1 / 6, 2: 1 / 12}[abs(dr) + abs(dc)]
                at = (r + dr, c + dc)
                if weight and 0 <= at[0] < h and 0 <= at[1] < w:
                    system[i, i] += weight
                    if at in number:
                        system[i, number[at]] -= weight
                    else:
                        right[i] += weight * x[at]
    filled = x.astype(np.float64).copy()
    filled[~keep] = linalg.spsolve(system.tocsc(), right).reshape(len(number), -1)
    return filled


def blob(h: int, w: int, share: float, seed: int = 0) -> np.ndarray:
    """Return what to keep where a share of the pixels is missing in few pieces."""
    ndimage = pytest.importorskip("scipy.ndimage")
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(h, w)), min(h, w) / 8)
    return field > np.quantile(field, share)


@pytest.mark.parametrize("size", [(48, 48), (37, 45), (3, 5), (1, 9)])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_impute_solves_the_system(size: tuple[int, int], share: float) -> None:
    x = images(2, *size, 3)
    noise = np.random.default_rng(0).uniform(size=size)
    keep = np.stack([blob(*size, share) if min(size) > 8 else noise >= noise.max() * share, noise >= np.quantile(noise, share)])
    found = jax.jit(impute)(x, keep)
    for i in range(2):
        assert np.abs(np.asarray(found[i]) - solved(x[i], keep[i])).max() < 5e-5
        np.testing.assert_array_equal(np.asarray(found[i])[keep[i]], x[i][keep[i]])


def test_impute_of_a_large_hole_is_quick_and_right() -> None:
    x, keep = images(1, 112, 112, 3), blob(112, 112, 0.9)[None]
    assert np.abs(np.asarray(jax.jit(impute)(x, keep)[0]) - solved(x[0], keep[0])).max() < 2e-4


def test_impute_does_not_look_at_its_neighbor_sum() -> None:
    x = images(3, 32, 32, 3)
    keep = np.stack([blob(32, 32, 0.9), blob(32, 32, 0.2, 1), np.zeros((32, 32), bool)])
    together = np.asarray(jax.jit(impute)(x, keep))
    for i in range(3):
        np.testing.assert_allclose(together[i], np.asarray(jax.jit(impute)(x[i : i + 1], keep[i : i + 1]))[0], atol=2e-5)
    assert not together[2].any()


@pytest.mark.parametrize(
    ("name", "head"), [("small_vgg", None), ("small_bottleneck", None), full("vgg11", 64), full("resnet50", None)]
)
def test_road_is_pgcs(name: str, head: int | None) -> None:
    pytest.importorskip("torch")
    import_torchvision()
    pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.metrics.perturbation_confidence import (
        PerturbationConfidenceMetric,
        RemoveLeastRelevantFirst,
        RemoveMostRelevantFirst,
    )
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    module, model = pair(name, head)
    x, shares, classes = images(2, 45, 45, 3), (0.25, 0.6, 0.9), [3, 7]
    ndimage = pytest.importorskip("scipy.ndimage")
    maps = ndimage.gaussian_filter(np.random.default_rng(2).normal(size=(2, 45, 45)), (0, 4, 4)).astype(np.float32)
    maps = (maps - maps.min((1, 2), keepdims=True)) / np.ptp(maps, (1, 2), keepdims=True)
    targets = [lambda out, c=c: out[c] for c in classes]
    found = metrics.road(model, x, maps, classes, fractions=shares, noise=0, convention="pytorch-grad-cam", score="logit")
    for remove, ours in ((RemoveMostRelevantFirst, found.most), (RemoveLeastRelevantFirst, found.least)):
        for j, share in enumerate(shares):
            metric = PerturbationConfidenceMetric(remove(100 * (1 - share), NoisyLinearImputer(noise=0)))
            theirs = metric(normalised(x), maps, targets, module)
            assert_close(ours[:, j], theirs, f"{remove.__name__} {share}", tolerance=1e-3)
    np.testing.assert_allclose(found.value, (found.least.mean(1) - found.most.mean(1)) / 2, rtol=1e-6)


def test_ties_are_removed_by_the_share_asked_for() -> None:
    """Of a map that is 0 almost everywhere pgc removes everything for any percentile that is 0; we do not."""
    model, x = tiny_model(), random_images(1, 16, 16, 3)
    maps = np.zeros((1, 16, 16), np.float32)
    maps[0, 5, 5] = 1
    pgc = metrics.road(model, x, maps, noise=0, fractions=(0.1, 0.5), convention="pytorch-grad-cam", score="logit")
    ours = metrics.road(model, x, maps, noise=0, fractions=(0.1, 0.5), score="logit")
    assert pgc.most[0, 0] == pgc.most[0, 1]
    assert ours.most[0, 0] != ours.most[0, 1]
    # Without ties both conventions remove the same, but for rounding of the count.
    maps = random_images(1, 16, 16, seed=1)
    pgc = metrics.road(model, x, maps, noise=0, fractions=(0.1, 0.5), convention="pytorch-grad-cam", score="logit")
    ours = metrics.road(model, x, maps, noise=0, fractions=(0.1, 0.5), score="logit")
    assert np.abs(ours.most - pgc.most).max() < 0.1 * np.abs(pgc.most).max()


def test_noise_is_seeded_and_of_its_size() -> None:
    model, x, maps = tiny_model(), random_images(2, 16, 16, 3), random_images(2, 16, 16, seed=1)
    one = metrics.road(model, x, maps, noise=0.1, seed=1)
    np.testing.assert_array_equal(one.most, metrics.road(model, x, maps, noise=0.1, seed=1).most)
    assert (one.most != metrics.road(model, x, maps, noise=0.1, seed=2).most).all()
    same = metrics.road(model, x[[0, 0]], maps[[0, 0]], noise=0.1)
    assert np.abs(same.most[0] - same.most[1]).max() < 1e-6
    other = metrics.road(model, x[[0, 0]], maps[[0, 0]], noise=0.1, ids=[4, 9])
    assert (other.most[0] != other.most[1]).all()

    # A network that shows the spread of its input: of a flat image only the noise is left.
    spread = jv.from_function(lambda x: jnp.stack([x.std((1, 2, 3)), x.mean((1, 2, 3))], -1), input_size=(16, 16))
    flat = np.full((1, 16, 16, 3), 0.5, np.float32)
    found = metrics.road(spread, flat, maps[:1], 0, noise=0.1, score="logit", fractions=(0.98,))
    assert abs(found.most[0, 0] - 0.1) < 0.01
