"""The cascade: what becomes random and in which order, how alike maps are, and whom the check lets pass."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxviz as jv
from jaxviz import metrics
from jaxviz.attribution import Attribution, saliency
from jaxviz.metrics import cascade, initial, weight_layers
from jaxviz.metrics._similarity import spearman, ssim
from tests.compilations import compilations
from tests.models.reference import network
from tests.tiny import random_images, tiny_model


def parameters(model) -> dict[str, np.ndarray]:
    return {".".join(map(str, path)): np.asarray(v[...]) for path, v in nnx.to_flat_state(model.state)}


def resnet(*blocks: int, rngs: nnx.Rngs | None = None) -> jv.Model:
    return jv.from_module(jv.models.ResNet("basic", blocks, num_classes=4, rngs=rngs), input_size=(32, 32))


def test_spearman_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 40, 30)).astype(np.float32)
    other = other + 0.5 * one
    for a, b in ((one, other), (np.round(one), np.round(other)), (np.maximum(one, 0), np.maximum(other, 0))):
        np.testing.assert_allclose(jax.jit(spearman)(a, b), stats.spearmanr(a.ravel(), b.ravel()).statistic, atol=1e-5)
    assert np.isnan(jax.jit(spearman)(one, np.zeros_like(one)))
    large = rng.normal(size=(2, 224, 224)).astype(np.float32)
    expected = stats.spearmanr(large[0].ravel(), large[1].ravel()).statistic
    np.testing.assert_allclose(jax.jit(spearman)(jnp.asarray(large[0]), jnp.asarray(large[1])), expected, atol=1e-5)


def test_ssim_by_its_formula() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    one, other = random_images(2, 40, 48)
    x, y = one / one.max(), other / other.max()

    def mean(m):
        inside = ndimage.gaussian_filter(np.ones_like(m), 1.5, mode="constant", truncate=8)
        return ndimage.gaussian_filter(m.astype(float), 1.5, mode="constant", truncate=8) / inside

    mx, my = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    expected = (2 * mx * my + 1e-4) * (2 * vxy + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    np.testing.assert_allclose(jax.jit(ssim)(one, other), expected.mean(), atol=1e-4)
    np.testing.assert_allclose(jax.jit(ssim)(one, 3 * one), 1, atol=1e-5)


def test_layers_go_from_the_top_down() -> None:
    layers = weight_layers(resnet(2, 2, 2, 2))
    assert layers[0] == "fc" and layers[-1] == "conv1+bn1" and len(layers) == 21
    assert layers.index("layer4.1.conv2+layer4.1.bn2") < layers.index("layer4.1.conv1+layer4.1.bn1")
    assert layers.index("layer4.0.downsample.0+layer4.0.downsample.1") < layers.index("layer3.1.conv1+layer3.1.bn1")
    vgg = jv.from_module(network("vgg11", classes=4, head=8), input_size=(32, 32))
    assert weight_layers(vgg)[:4] == ["classifier.6", "classifier.3", "classifier.0", "features.18"]


def test_every_stage_makes_its_layer_random_and_keeps_the_rest() -> None:
    model = tiny_model()
    before = parameters(model)
    seen = set()
    for name, made in cascade(model):
        seen.add(name)
        for path, value in parameters(made).items():
            changed = path.rsplit(".", 1)[0] in seen
            # A bias that begins with 0 and is 0 stays.
            assert (value != before[path]).any() == (changed and before[path].any()), (name, path)
    assert seen == {"fc", "conv2", "conv1"}


def test_new_weights_are_those_of_the_beginning() -> None:
    """Of batch normalisation the statistics too; kernels have the deviation that they have in a new network."""
    model = resnet(1, 1, 1, 1)
    filled = jax.tree.map(lambda leaf: leaf + 3.0, model.state)
    model = model.with_state(filled)
    *_, (_, last) = cascade(model)
    found = parameters(last)
    fresh = parameters(resnet(1, 1, 1, 1, rngs=nnx.Rngs(0)))
    assert found.keys() == fresh.keys()
    for path, value in found.items():
        if path.endswith("kernel"):
            assert abs(value.std() / fresh[path].std() - 1) < 0.1 and abs(value.mean()) < 0.1 * value.std(), path
        else:
            np.testing.assert_array_equal(value, fresh[path], err_msg=path)


def test_weights_depend_on_the_seed_and_the_name_alone() -> None:
    model = tiny_model()
    whole = dict(cascade(model))["conv1"]
    alone = dict(cascade(model, ["conv1"]))["conv1"]
    other = dict(cascade(model, ["conv1"], seed=1))["conv1"]
    kernel = "conv1.kernel"
    np.testing.assert_array_equal(parameters(whole)[kernel], parameters(alone)[kernel])
    assert (parameters(whole)[kernel] != parameters(other)[kernel]).all()
    assert [name for name, _ in cascade(model, ["fc", "conv2+conv1"])] == ["fc", "conv2+conv1"]


def constant(model, images, target=None, **run) -> Attribution:
    """A method that looks at the image alone."""
    maps = np.abs(np.diff(np.asarray(images), axis=1, prepend=0))
    return Attribution(maps, np.zeros(len(maps)), np.full(len(maps), ""), None, "edges", spatial=False)


def test_a_method_that_ignores_the_network_is_found_out() -> None:
    model, x = tiny_model(), random_images(3, 16, 16, 3)
    found = metrics.model_randomization(model, x, constant)
    np.testing.assert_allclose(found.spearman, 1, atol=1e-6)
    np.testing.assert_allclose(found.ssim, 1, atol=1e-5)
    assert found.method == "constant" and found.layers == ("fc", "conv2", "conv1")
    honest = metrics.model_randomization(model, x, "saliency")
    assert honest.spearman.shape == honest.ssim.shape == (3, 3) and (np.abs(honest.spearman[:, -1]) < 0.7).all()


def test_spearman_of_maps_by_hand() -> None:
    stats = pytest.importorskip("scipy.stats")
    model, x = tiny_model(), random_images(2, 16, 16, 3)
    found = metrics.model_randomization(model, x, "saliency", [[0, 3]], layers=["fc", "conv1"], seed=4)
    assert found.spearman.shape == (2, 2, 2)
    before = saliency(model, x, [[0, 3]]).reduce("sum_abs").maps
    for stage, (_, random) in enumerate(cascade(model, ["fc", "conv1"], seed=4)):
        after = saliency(random, x, [[0, 3]]).reduce("sum_abs").maps
        for i in range(2):
            for k in range(2):
                expected = stats.spearmanr(before[i, k].ravel(), after[i, k].ravel()).statistic
                assert abs(found.spearman[i, k, stage] - expected) < 1e-5


def test_one_program_serves_all_stages() -> None:

    model, x = tiny_model(), random_images(3, 16, 16, 3)
    first = metrics.model_randomization(model, x, layers=["fc"])
    with compilations() as compiled:
        every = metrics.model_randomization(model, 1 - x)
        other = metrics.model_randomization(model, 1 - x, seed=3, target=[0, 1, 2])
    assert not compiled.names
    assert first.spearman.shape == (3, 1) and every.spearman.shape == other.spearman.shape == (3, 3)


def test_the_class_stays_that_of_the_trained_network() -> None:
    """Otherwise a random network's own top class would be explained."""
    model, x = tiny_model(), random_images(2, 16, 16, 3)
    asked = []

    def spy(model, images, target=None, **run):
        asked.append(np.asarray(target).tolist())
        return saliency(model, images, target, **run)

    metrics.model_randomization(model, x, spy)
    assert asked == [np.asarray(model(x)).argmax(1).tolist()] * 4


def test_table_of_several_methods() -> None:
    model, x = tiny_model(), random_images(2, 16, 16, 3)
    wanted = {"saliency": {}, "input_x_gradient": {"baseline": "black"}, "guided_backprop": {}, "deconvnet": {"typo": 1}}
    found = metrics.sanity_check(model, x, wanted, layers=["fc", "conv2+conv1"])
    assert list(found.found) == ["saliency", "input_x_gradient", "guided_backprop"]
    assert "no option 'typo'" in found.failed["deconvnet"]
    lines = found.markdown().splitlines()
    assert len(lines) == 6 and len({line.count("|") for line in lines}) == 1
    assert lines[0].startswith("| method | `fc` | `conv2+conv1` |")
    means = {name: np.abs(made.spearman.mean(0)) for name, made in found.found.items()}
    for line, (name, mean) in zip(lines[2:5], means.items(), strict=True):
        first = "fc" if mean[0] <= 0.5 else "conv2+conv1" if mean[1] <= 0.5 else None
        assert found.changes_from(name) == first
        assert (f"from `{first}`" if first else "**no**") in line and f"{mean[0]:.2f}" in line
    assert found.changes_from("saliency", limit=1.0) == "fc" and found.changes_from("saliency", limit=-1.0) is None


def test_errors() -> None:
    x = random_images(1, 16, 16, 3)
    with pytest.raises(jv.LayerError, match="no module 'conv9'"):
        metrics.model_randomization(tiny_model(), x, layers=["conv9"])
    with pytest.raises(jv.UnsupportedError, match="pure function"):
        metrics.model_randomization(jv.from_function(lambda x: x.mean((1, 2))), x)
    with pytest.raises(jv.UnsupportedError, match=r"'embed\.table'"):
        initial(jax.random.key(0), "embed.table", jnp.zeros((3, 3)))
    made = list(cascade(tiny_model(), ["fc"], draw=lambda key, path, value: jnp.zeros_like(value)))
    assert not parameters(made[0][1])["fc.kernel"].any()
