"""Model: calling, validation, names, classes, taps, compilation, export, and networks of one's own."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from flax import nnx

from jaxviz import ArgumentError, LayerError, UnitError, UnsupportedError
from jaxviz.models import ResNet, activations, forward, from_function, from_module, intervene, no_tap, scope
from jaxviz.models._files.checkpoint import to_state
from jaxviz.ops import EXACT, GUIDED
from tests.tiny import TinyNet, random_images, tiny_model


@pytest.fixture(scope="module")
def tiny():
    return tiny_model()


@pytest.fixture(scope="module")
def resnet():
    """A ResNet with one block a stage, its weights filled without compiling anything."""
    return fill(ResNet("basic", (1, 1, 1, 1), num_classes=10))


def fill(module, **options):
    rng = np.random.default_rng(0)
    graphdef, state = nnx.split(module)
    fan = lambda a: int(np.prod(a.shape[:-1])) or 1  # noqa: E731
    leaves = {"scale": 1.0, "var": 1.0, "bias": 0.1, "mean": 0.1}
    flat = []
    for path, variable in nnx.to_flat_state(state):
        value = variable[...]
        if path[-1] == "kernel":
            new = rng.normal(size=value.shape) * np.sqrt(2 / fan(value))
        else:
            new = leaves[path[-1]] * rng.uniform(0.5, 1.5, value.shape)
        flat.append((path, variable.replace(jnp.asarray(new, jnp.float32))))
    filled = nnx.merge(graphdef, nnx.from_flat_state(flat))
    return from_module(filled, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25), **options)


def test_call_is_normalise_then_network(tiny):
    x = random_images(2, 16, 16, 3)
    module = tiny.module()
    expected = module((x - np.float32(0.5)) / np.float32(0.25))
    np.testing.assert_allclose(tiny(x), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(tiny(x), tiny(jnp.asarray(x)))
    assert tiny(x).dtype == jnp.float32 and tiny(x.astype(np.float64)).shape == (2, 5)


def test_jit_equals_eager(resnet):
    x = random_images(1, 40, 33, 3)
    gradient = jax.grad(lambda x: (forward(resnet.network, x) ** 2).sum())
    np.testing.assert_allclose(resnet(x), forward(resnet.network, x), rtol=1e-4, atol=1e-5)
    ours, jitted = np.asarray(gradient(x)), np.asarray(jax.jit(gradient)(x))
    assert np.abs(ours - jitted).max() <= 1e-4 * np.abs(ours).max()


@pytest.mark.parametrize(
    "images, said",
    [
        (np.zeros((2, 16, 16, 3), np.uint8), "Divide 8-bit images by 255"),
        (np.zeros((2, 16, 16, 3), np.int32), "Divide 8-bit"),
        (np.zeros((16, 16, 3), np.float32), r"images\[None\]"),
        (np.zeros((2, 3, 16, 16), np.float32), "Move the channels last"),
        (np.zeros((2, 16, 16, 4), np.float32), r"float32 \(2, 16, 16, 4\)"),
        (np.zeros((0, 16, 16, 3), np.float32), r"float32 \(0, 16, 16, 3\)"),
        (np.zeros((2, 16), np.float32), r"float32 \(2, 16\)"),
        (np.full((1, 16, 16, 3), 255.0, np.float32), "values from 255 to 255"),
        (np.full((1, 16, 16, 3), -1.0, np.float32), "values from -1 to -1"),
        (jnp.full((1, 16, 16, 3), 255.0), "values from 255 to 255"),
        (np.full((1, 16, 16, 3), np.nan, np.float32), "nan"),
        ([[0.5]], "got list"),
    ],
)
def test_wrong_images_are_refused(tiny, images, said):
    for call in (tiny, lambda x: tiny.activations(x, "relu")):
        with pytest.raises(ArgumentError, match=said) as error:
            call(images)
        assert "(N, H, W, 3) in [0, 1], channels last" in str(error.value)


def test_other_weights_and_names_do_not_compile_again():
    traces = []

    class Counted(TinyNet):
        def __call__(self, x, *, tap=no_tap, ops=EXACT):
            traces.append(x.shape)
            return super().__call__(x, tap=tap, ops=ops)

    def made(seed):
        options = {"mean": [0.1 * seed] * 3, "name": f"net {seed}", "class_names": [f"{seed} {i}" for i in range(5)]}
        return from_module(Counted(rngs=nnx.Rngs(seed)), **options)

    x = random_images(1, 16, 16, 3)
    outputs = [np.asarray(made(seed)(x)) for seed in range(3)]
    assert traces.count((1, 16, 16, 3)) == 1
    assert not np.allclose(outputs[0], outputs[1])


def test_model_is_a_frozen_pytree_of_weights(tiny):
    leaves, treedef = jax.tree.flatten(tiny)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves) and len(leaves) == 7  # 3 kernels, 2 biases, mean, std
    again = jax.tree.unflatten(treedef, leaves)
    assert (again.name, again.class_names, again.input_size) == (tiny.name, tiny.class_names, tiny.input_size)
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny.name = "other"
    named = dataclasses.replace(tiny, name="other", class_names=())
    assert jax.tree.structure(named) != treedef
    assert jax.tree.structure(named.network) == jax.tree.structure(tiny.network)  # a name never compiles a program again
    halved = tiny.with_state(jax.tree.map(lambda leaf: leaf / 2, tiny.state))
    assert jax.tree.structure(halved) == treedef and halved.class_names == tiny.class_names
    np.testing.assert_array_equal(halved.state["conv1"]["kernel"][...], tiny.state["conv1"]["kernel"][...] / 2)


def test_activations_stop_at_the_deepest_layer(tiny):
    x = random_images(1, 16, 16, 3)
    found = tiny.activations(x, ["relu", "conv1"])
    assert list(found) == ["relu", "conv1"]
    np.testing.assert_array_equal(found["relu"], np.maximum(found["conv1"], 0))
    traced = str(jax.make_jaxpr(lambda x: activations(tiny.network, x, ("relu",)))(x))
    assert traced.count("conv_general_dilated[") == 1, "the second convolution was traced"
    assert list(tiny.activations(x, "output")) == ["output"]
    np.testing.assert_allclose(tiny.activations(x, "output")["output"], tiny(x), rtol=1e-6)
    both = tiny.activations(x, ["fc", "logits"])
    np.testing.assert_array_equal(both["fc"], both["logits"])


def test_names(resnet):
    assert resnet.resolve("layer1.0.relu") == "layer1.0.relu"  # a node, though also a module of torchvision's
    assert resnet.resolve("layer1") == resnet.resolve("layer1.0") == "layer1.0.relu_1"
    assert resnet.resolve("layer2.0.downsample") == "layer2.0.downsample.1"
    assert resnet.resolve("output") == resnet.resolve("logits") == "fc"
    for wrong, near in (("layr3", "'layer3'"), ("layer1.0.rel", "'layer1.0.relu'"), ("FC", "'fc'"), ("layer", "'layer")):
        with pytest.raises(LayerError, match=f"(?s){wrong}.*{near}"):
            resnet.resolve(wrong)
    with pytest.raises(LayerError, match="layer3"):
        resnet.activations(random_images(1, 32, 32, 3), ["layr3"])


def test_an_intervention_gives_the_gradient_at_a_layer(resnet):
    x = random_images(1, 32, 32, 3)
    value = resnet.activations(x, "layer3")["layer3"]

    def score(delta):
        acts, before = intervene(resnet.network, x, ("output",), {"layer3": lambda value: value + delta})
        return acts["output"][0, 3], before["layer3"]

    (logit, seen), gradient = jax.jit(jax.value_and_grad(score, has_aux=True))(jnp.zeros_like(value))
    np.testing.assert_allclose(seen, value, rtol=1e-4, atol=1e-5 * float(jnp.abs(value).max()))  # of two compilations
    np.testing.assert_allclose(logit, resnet(x)[0, 3], rtol=1e-4)
    # The network above the layer, by hand: the same derivative.
    module = resnet.module()

    def head(value):
        y = module.layer4[0](value, tap=no_tap, ops=EXACT).mean((1, 2))
        return module.fc(y, EXACT)[0, 3]

    np.testing.assert_allclose(gradient, jax.jit(jax.grad(head))(value), rtol=1e-3, atol=1e-6)
    with pytest.raises(LayerError):
        intervene(resnet.network, x, ("output",), {"nowhere": jnp.zeros_like})


def test_classes(tiny):
    assert tiny.class_index("golf ball") == tiny.class_index("GOLF Ball ") == tiny.class_index("golf") == 1
    assert tiny.class_index(4) == 4 and tiny.num_classes == 5 and tiny.in_channels == 3
    several = "names 3 classes: 0 'tench', 2 'church', 4 'chain saw'"
    for wrong, said in (("gulf ball", "'golf ball'"), ("ch", several), ("", "no class"), (5, "0 to 4"), (-1, "0 to 4")):
        with pytest.raises(UnitError, match=said):
            tiny.class_index(wrong)
    with pytest.raises(UnitError, match="as an index"):
        dataclasses.replace(tiny, class_names=()).class_index("church")


def test_state_dict_and_save_round_trip(resnet, tmp_path):
    named = dataclasses.replace(resnet, class_names=tuple("abcdefghij"))
    with pytest.raises(UnsupportedError, match="not one of the networks"):  # one block a stage has no name
        named.save(tmp_path / "net.safetensors")
    real = fill(ResNet("basic", (2, 2, 2, 2), num_classes=10), class_names=tuple("abcdefghij"), input_size=(64, 48))
    with pytest.raises(ArgumentError, match="safetensors"):
        real.save(tmp_path / "net.pth")
    path = real.save(tmp_path / "net.safetensors")
    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    assert metadata["architecture"] == "resnet18"
    assert json.loads(metadata["class_names"]) == list("abcdefghij") and json.loads(metadata["size"]) == [64, 48]
    np.testing.assert_allclose(json.loads(metadata["mean"]), (0.5, 0.4, 0.3), rtol=1e-6)
    np.testing.assert_allclose(json.loads(metadata["std"]), (0.2, 0.3, 0.25), rtol=1e-6)
    assert tensors["conv1.weight"].shape == (64, 3, 7, 7) and tensors["bn1.num_batches_tracked"].dtype == np.int64
    _, state = to_state(lambda: ResNet("basic", (2, 2, 2, 2), num_classes=10), tensors)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(state), jax.tree.leaves(real.state))


@pytest.mark.parametrize("kind", ["forward", "gradient"])
def test_lowers_for_every_platform(resnet, kind):
    functions = {"forward": forward, "gradient": lambda m, x: jax.grad(lambda x: forward(m, x).sum())(x)}
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), resnet.network)
    exported = jax.export.export(jax.jit(functions[kind]), platforms=("cpu", "cuda", "tpu"))
    assert exported(shapes, jax.ShapeDtypeStruct((1, 64, 48, 3), "float32")).platforms == ("cpu", "cuda", "tpu")


class Own(nnx.Module):
    """A network as a user would write it: no ops, a submodule, one name used twice, dropout and BatchNorm of flax."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, deterministic=True)
        self.inner = Inner(rngs)

    def __call__(self, x, *, tap=no_tap):
        x = tap("relu", nnx.relu(tap("conv", self.norm(self.conv(x)))))
        x = tap("relu", nnx.relu(self.inner(x, tap=scope(tap, "inner"))))
        return tap("logits", self.dropout(x).mean((1, 2)))


class Inner(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(4, 6, (3, 3), rngs=rngs)

    def __call__(self, x, *, tap):
        return tap("conv", self.conv(x))


def test_a_network_of_ones_own():
    module = Own(nnx.Rngs(0))
    model = from_module(module, input_size=(16, 12))
    x = random_images(2, 16, 12, 3)
    np.testing.assert_allclose(model(x), module(jnp.asarray(x)), rtol=1e-5, atol=1e-6)
    table = model.layers()
    assert table.names == ["conv", "relu", "inner.conv", "relu_1", "logits"]
    assert table["inner"].shape == (8, 6, 6) and table["inner"].module == "inner.conv" and table["conv"].kind == "conv"
    assert table["relu_1"].receptive_field is None and model.resolve("inner") == "inner.conv"
    assert model.activations(x, "inner")["inner"].shape == (2, 8, 6, 6)
    with pytest.raises(UnsupportedError, match="Own calls its operations directly"):
        forward(model.network, x, ops=GUIDED)
    # Training the module further does not change the model.
    before = np.asarray(model(x))
    module.conv.kernel[...] = module.conv.kernel[...] * 2
    np.testing.assert_array_equal(model(x), before)


def test_a_network_that_cannot_be_looked_into():
    class Mute(nnx.Module):
        def __call__(self, x):
            return x

    with pytest.raises(UnsupportedError, match="no argument `tap`"):
        from_module(Mute())
    with pytest.raises(ArgumentError, match=r"nnx\.Module"):
        from_module(lambda x: x)


def test_a_network_in_training_mode_is_refused():
    module = Own(nnx.Rngs(0))
    module.norm.use_running_average = False
    with pytest.raises(UnsupportedError, match="norm"):
        from_module(module)


def test_a_network_with_ops_follows_rules(tiny):
    x = random_images(1, 16, 16, 3)
    gradients = [jax.grad(lambda x, ops=ops: forward(tiny.network, x, ops=ops)[0, 0])(x) for ops in (EXACT, GUIDED)]
    assert np.abs(gradients[0] - gradients[1]).max() > 0
    np.testing.assert_allclose(forward(tiny.network, x, ops=GUIDED), forward(tiny.network, x), rtol=1e-5)


def test_class_names_must_fit_the_logits():
    with pytest.raises(ArgumentError, match=r"5 class names.*got 2"):
        from_module(TinyNet(rngs=nnx.Rngs(0)), class_names=("a", "b"))


@pytest.mark.parametrize("mean, std", [((0.5,), (0.5, 0.5, 0.5)), ((0.5,) * 3, (0.0,) * 3), (0.5, 0.5), ((np.nan,), (1,))])
def test_wrong_preprocessing(mean, std):
    with pytest.raises(ArgumentError, match="mean"):
        from_module(TinyNet(rngs=nnx.Rngs(0)), mean=mean, std=std)


def test_a_pure_function():
    def brightness(images):
        return images.mean((1, 2))

    model = from_function(brightness, input_size=(8, 8))
    x = random_images(2, 8, 8, 3)
    np.testing.assert_allclose(model(x), x.mean((1, 2)), rtol=1e-6)
    assert model.name == "brightness" and model.layers().names == ["output"] and model.num_classes == 3
    np.testing.assert_array_equal(model.activations(x, "output")["output"], model(x))
    with pytest.raises(UnsupportedError, match="pure function"):
        forward(model.network, x, ops=GUIDED)
    for call in (model.state_dict, model.module):
        with pytest.raises(UnsupportedError):
            call()


def test_a_pure_function_with_parameters():
    def linear(params, images):
        return images.reshape(images.shape[0], -1) @ params["w"]

    x = random_images(2, 4, 4, 1)
    for seed in range(2):
        w = np.random.default_rng(seed).normal(size=(16, 3)).astype(np.float32)
        model = from_function(linear, params={"w": w}, channels=1, input_size=(4, 4))
        np.testing.assert_allclose(model(x), x.reshape(2, -1) @ w, rtol=1e-4, atol=1e-5)


def test_a_function_that_cannot_be_a_key():
    @dataclasses.dataclass
    class Unhashable:
        def __call__(self, images):
            return images

    with pytest.raises(ArgumentError, match="hashable"):
        from_function(Unhashable())
