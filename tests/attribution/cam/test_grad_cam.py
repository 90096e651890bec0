"""Gradient class activation maps: equal to pytorch-grad-cam and Captum, one forward pass, explained where there is nothing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz as jv
from jaxviz import attribution as at
from jaxviz._errors import ArgumentError, LayerError, UnsupportedError
from jaxviz.attribution._cam.formulas import FORMULAS, make_map
from jaxviz.attribution._cam.program import GradientMaps
from jaxviz.attribution._target import as_target
from jaxviz.engine import make_mesh
from jaxviz.models import forward
from tests.attribution.pgc import CASES, LARGE, last_steps, pgc_map, pgc_raw_maps
from tests.attribution.reference import RESNET, assert_close, full, images, normalised, pair, per_pixel
from tests.compilations import compilations
from tests.contracts import PLATFORMS, convolutions
from tests.models.reference import network
from tests.tiny import random_images, tiny_model

PGC = {
    "grad_cam": "GradCAM",
    "grad_cam_plus_plus": "GradCAMPlusPlus",
    "xgrad_cam": "XGradCAM",
    "hires_cam": "HiResCAM",
    "layer_cam": "LayerCAM",
    "grad_cam_elementwise": "GradCAMElementWise",
}
RAW = {"methods": tuple(PGC), "resize": False, "convention": "pytorch-grad-cam"}  # one compiled program for several tests


def classes_of(model, x, ranks=(-1, -3)) -> np.ndarray:
    """Return for each image the class at a rank, -1 being the top one."""
    return np.take_along_axis(np.asarray(model(x)).argsort(-1), np.asarray(ranks)[:, None], 1)[:, 0]


@pytest.mark.parametrize("name, head, layer, path", CASES)
def test_equal_to_pgc(name: str, head: int | None, layer: str, path: str) -> None:
    module, model = pair(name, head)
    x = images(2, 64, 64, 3, seed=3)  # on which no ReLU of the four networks is within rounding of 0
    classes = classes_of(model, x)
    theirs = pgc_raw_maps(list(PGC.values()), module, path, x, classes)
    for method, ours in at.gradient_cams(model, x, classes, layer=layer, relu=False, **RAW).items():
        assert_close(ours.maps, theirs[PGC[method]], method)


@pytest.mark.parametrize("name, head, layer", [("small_vgg", None, "features.15"), full("vgg16", 64, "features.16")])
def test_equal_to_pgc_after_its_last_steps(name: str, head: int | None, layer: str) -> None:
    module, model = pair(name, head)
    x = images(2, 32, 32, 3)
    classes = classes_of(model, x)
    methods = ("grad_cam", "layer_cam")
    for method, ours in at.gradient_cams(model, x, classes, methods=methods, layer=layer, resize=False).items():
        assert_close(last_steps(ours.maps, 32), pgc_map(PGC[method], module, layer, x, classes), method)


@pytest.mark.parametrize(
    "name, head, layer, path",
    [
        ("small_resnet", None, "layer3", "layer3.0"),
        ("small_vgg", None, "features.20", "features.20"),
        full(*LARGE[0]),
        full(*LARGE[3]),
    ],
)
def test_equal_to_captum(name: str, head: int | None, layer: str, path: str) -> None:
    module, model = pair(name, head)
    captum = pytest.importorskip("captum.attr")
    import torch

    x = images(2, 64, 64, 3)
    classes = classes_of(model, x)
    where, target = module.get_submodule(path), torch.from_numpy(classes)
    ours = at.gradient_cams(model, x, classes, layer=layer, relu=False, **RAW)
    grad_cam = captum.LayerGradCam(module, where).attribute(normalised(x), target)
    assert_close(ours["grad_cam"].maps, grad_cam.detach().numpy()[:, 0], "Grad-CAM")
    product = captum.LayerGradientXActivation(module, where).attribute(normalised(x), target)
    assert_close(ours["hires_cam"].maps, product.detach().numpy().sum(1), "gradient x activation")
    assert (ours["grad_cam"].maps < 0).any()


@pytest.mark.parametrize("name, block", [("small_resnet", 0), full("resnet18", 1)])
def test_several_layers_as_pgc_averages_them(name: str, block: int) -> None:
    module, model = pair(name)
    x = images(2, 64, 64, 3)
    ours = at.grad_cam(model, x, [3, 4], layer=["layer2", "layer3"])
    theirs = pgc_map("GradCAM", module, [f"layer2.{block}", f"layer3.{block}"], x, [3, 4])
    assert_close(last_steps(ours.maps, 64), theirs)
    assert ours.layer == f"layer2.{block}.relu_1 + layer3.{block}.relu_1"


def test_bilinear_resizing_is_torchs() -> None:
    torch = pytest.importorskip("torch")
    model, x = tiny_model(), random_images(2, 18, 14, 3)
    small = at.grad_cam(model, x, 1, relu=False, resize=False).maps
    theirs = torch.nn.functional.interpolate(torch.tensor(small)[:, None], (18, 14), mode="bilinear", align_corners=False)
    assert_close(at.grad_cam(model, x, 1, relu=False).maps, theirs[:, 0].numpy())


@pytest.mark.parametrize("name", RESNET)
def test_cam_is_the_linear_layer_times_the_map(name: str) -> None:
    module, model = pair(name)
    import torch

    x = images(2, 64, 64, 3)
    kept: list[torch.Tensor] = []
    handle = module.layer4.register_forward_hook(lambda _m, _i, out: kept.append(out))
    with torch.no_grad():
        logits = module(normalised(x))
    handle.remove()
    weights = module.fc.weight[[2, 7]].detach()
    theirs = torch.einsum("nc,nchw->nhw", weights, kept[0]).numpy()
    found = at.gradient_cams(model, x, [2, 7], methods=("cam", "grad_cam"), relu=False, resize=False)
    ours = found["cam"]
    assert_close(ours.maps, theirs)
    bias = module.fc.bias[[2, 7]].detach().numpy()
    np.testing.assert_allclose(ours.maps.mean((1, 2)), logits[[0, 1], [2, 7]].numpy() - bias, rtol=1e-4, atol=1e-4)
    factor = theirs[0].size
    assert_close(ours.maps, found["grad_cam"].maps * factor)


def test_cam_refuses_what_is_not_pooling_and_a_linear_layer() -> None:
    tiny, x = tiny_model(), random_images(1, 16, 16, 3)
    assert at.cam(tiny, x).layer == "relu_1"
    assert at.cam(tiny, x, lambda logits: logits[:, 0] - 2 * logits[:, 1]).maps.any()
    for options in ({"layer": "conv2"}, {"target": at.probability(1)}, {"target": at.margin(1)}):
        with pytest.raises(UnsupportedError, match="not linear in the layer's values"):
            at.cam(tiny, x, **options)
    with pytest.raises(UnsupportedError, match="weighs the positions of the layer differently"):
        at.cam(flat_model(), x)
    assert at.hires_cam(flat_model(), x).maps.any()
    with pytest.raises(ArgumentError, match="CAM looks at one layer"):
        at.cam(tiny, x, layer=["relu", "relu_1"])  # type: ignore[arg-type]


def flat_model() -> jv.Model:
    """Return a network in which a linear layer looks at every position by itself."""
    from flax import nnx

    class Flat(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.conv = nnx.Conv(3, 4, (3, 3), strides=4, rngs=rngs)
            self.fc = nnx.Linear(4 * 4 * 4, 5, rngs=rngs)

        def __call__(self, x, *, tap):
            x = tap("features", jnp.abs(self.conv(x)))
            return tap("fc", self.fc(x.reshape(len(x), -1)))

    return jv.models.from_module(Flat(nnx.Rngs(0)), input_size=(16, 16))


def test_published_grad_cam_plus_plus_is_equation_19() -> None:
    rng = np.random.default_rng(0)
    values, slopes = rng.uniform(0, 2, (2, 3, 4, 5)), rng.normal(size=(1, 2, 3, 4, 5))
    alpha = slopes**2 / (2 * slopes**2 + values.sum((1, 2), keepdims=True) * slopes**3)
    weights = (np.maximum(slopes, 0) * alpha).sum((2, 3))[:, :, None, None]
    expected = (weights * values).sum(-1)
    for scale in (1.0, 1e-5):  # the scale of the score is one of the map, and nothing else
        small = np.float32(slopes * scale)
        found = make_map("grad_cam_plus_plus", None, np.float32(values), small)
        if scale == 1:
            assert_close(found, expected)
    below = 2 + values.sum((1, 2), keepdims=True) * slopes * 1e-5
    faint = ((np.maximum(slopes, 0) * 1e-5 / below).sum((2, 3))[:, :, None, None] * values).sum(-1)
    assert_close(found, faint)


def test_k_targets_are_the_single_ones() -> None:
    model, x = tiny_model(), random_images(3, 16, 16, 3)
    many = at.gradient_cams(model, x, [[0, 3]], methods=tuple(FORMULAS))
    for k, one in enumerate((0, 3)):
        for method, single in at.gradient_cams(model, x, one, methods=tuple(FORMULAS)).items():
            np.testing.assert_allclose(many[method].maps[:, k], single.maps, atol=1e-6, err_msg=method)
            assert (many[method].diagnosis[:, k] == single.diagnosis).all()
    assert many["grad_cam"].maps.shape == (3, 2, 16, 16) and many["grad_cam"].targets[0].tolist() == ["tench", "gas pump"]


def test_alone_in_any_batch_in_any_chunk() -> None:
    model, x = tiny_model(), random_images(5, 16, 16, 3)
    whole = at.gradient_cams(model, x)
    for options in ({"chunk": 2, "mesh": make_mesh(1)}, {"chunk": 3}):
        for method, made in at.gradient_cams(model, x, **options).items():
            np.testing.assert_allclose(made.maps, whole[method].maps, atol=1e-6, err_msg=method)
    for method, made in at.gradient_cams(model, x[3:4]).items():
        np.testing.assert_allclose(made.maps, whole[method].maps[3:4], atol=1e-6, err_msg=method)


def test_another_image_class_or_network_compiles_nothing() -> None:
    model, x = tiny_model(), random_images(2, 16, 16, 3)
    at.grad_cam(model, x, 1)
    with compilations() as compiled:
        at.grad_cam(model, 1 - x, 3)
        at.grad_cam(tiny_model(seed=1), x, [0, 2])
    assert not compiled.names


@pytest.mark.parametrize("classes", [[[4]], [[4, 1, 7]]])
def test_one_forward_pass_and_the_tails_backward_pass(classes) -> None:
    model = jv.models.from_module(network("resnet18", classes=10))
    x = jnp.asarray(images(1, 64, 64, 3))
    target, index = as_target(model, classes, x)
    items = {"images": x, "index": jnp.asarray(index)}
    methods = tuple(name for name in FORMULAS if not name.startswith("eigen"))
    program = GradientMaps(model.network, target, ("layer4.1.relu_1",), methods)
    plain = convolutions(lambda images: forward(model.network, images), x)
    assert convolutions(lambda p, i: p(i), program, items) == plain == 20
    flops = [
        jax.jit(fn).lower(*args).cost_analysis()["flops"]
        for fn, *args in ((lambda p, i: p(i), program, items), (lambda m, i: forward(m, i), model.network, x))
    ]
    assert flops[0] <= 1.05 * flops[1]
    # One block further down, its two convolutions, and no other, are computed backwards once for all targets.
    lower = GradientMaps(model.network, target, ("layer4.0.relu_1",), methods)
    assert convolutions(lambda p, i: p(i), lower, items) == 20 + 2


def test_lowers_for_every_platform() -> None:
    model, x = tiny_model(), jnp.asarray(random_images(2, 16, 16, 3))
    target, index = as_target(model, [[0, 1]], x)
    program = GradientMaps(model.network, target, ("relu", "relu_1"), tuple(FORMULAS))
    items = {"images": x, "index": jnp.asarray(index)}
    assert jax.export.export(jax.jit(lambda p, i: p(i)), platforms=PLATFORMS)(program, items).platforms == PLATFORMS


def test_traced_maps() -> None:
    model, x = tiny_model(), jnp.asarray(random_images(2, 16, 16, 3))
    fn = jax.jit(lambda images: at.traced_cam(model, images, 2, layer="conv2", relu=False))
    np.testing.assert_allclose(fn(x), at.grad_cam(model, x, 2, layer="conv2", relu=False).maps, atol=1e-6)
    assert at.traced_cam(model, x, [[0, 1, 2]], method="layer_cam").shape == (2, 3, 16, 16)


@pytest.mark.parametrize("name, one", [("small_resnet", 9), full("resnet18", 4)])
def test_a_loss_on_maps_has_torchs_derivative(name: str, one: int) -> None:
    module, model = pair(name)
    import torch

    x = images(1, 64, 64, 3)
    kept: list[torch.Tensor] = []
    handle = module.layer3.register_forward_hook(lambda _m, _i, out: kept.append(out))
    image = normalised(x).requires_grad_()
    score = module(image)[0, one]
    handle.remove()
    (slope,) = torch.autograd.grad(score, kept[0], create_graph=True)
    theirs = torch.relu((slope.mean((2, 3), keepdim=True) * kept[0]).sum(1))
    (expected,) = torch.autograd.grad((theirs**2).sum(), image)

    def loss(images):
        return (at.traced_cam(model, images, one, layer="layer3", resize=False) ** 2).sum()

    assert_close(jax.jit(jax.grad(loss))(jnp.asarray(x)), per_pixel(expected))


def test_blank_maps_say_why() -> None:
    model, x = tiny_model(), random_images(2, 16, 16, 3)
    everything = lambda logits: -logits.sum(-1)  # noqa: E731
    signed = at.hires_cam(model, x, everything, relu=False, resize=False)
    positive = tiny_model(seed=0)
    state = jax.tree.map(jnp.abs, positive.state)  # all weights positive: all speaks against the negative sum
    against = at.gradient_cams(model.with_state(state), x, everything)
    assert signed.diagnosis.tolist() == ["ok", "ok"]
    assert set(against["grad_cam"].diagnosis) == {"negative everywhere, cut off by ReLU"} and not against["grad_cam"].maps.any()
    dead = jax.tree.map(jnp.zeros_like, model.state)
    assert set(at.grad_cam(model.with_state(dead), x).diagnosis) == {"zero everywhere"}


def test_errors() -> None:
    model, x = tiny_model(), random_images(2, 16, 16, 3)
    with pytest.raises(ArgumentError, match=r"needs a layer with positions.*'fc' has the shape \(5,\).*'relu_1'"):
        at.grad_cam(model, x, layer="fc")
    with pytest.raises(LayerError, match="Did you mean 'relu_1'"):
        at.grad_cam(model, x, layer="relu1")
    with pytest.raises(ArgumentError, match="does not depend on the layer 'relu_1'"):
        at.grad_cam(model, x, jv.channel("relu", 2))
    with pytest.raises(ArgumentError, match="averaged at one size"):
        at.grad_cam(model, x, layer=["relu", "relu_1"], resize=False)
    with pytest.raises(ArgumentError, match="Did you mean 'grad_cam'"):
        at.gradient_cams(model, x, methods=["gradcam"])
    with pytest.raises(ArgumentError, match="None or 'pytorch-grad-cam'"):
        at.grad_cam_plus_plus(model, x, convention="captum")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="has no option 'smooth'"):
        at.attribute(model, x, "grad_cam", smooth=True)
