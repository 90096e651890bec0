"""The defaults, on a trained network of each family of architectures: the activations that they reach, frozen."""

from __future__ import annotations

import numpy as np
import pytest

import jaxviz as jv
from jaxviz._visualize.run import default_learning_rate
from jaxviz.models import has_batch_norm
from tests.families.networks import SIZE, network
from tests.tiny import tiny_model

pytestmark = [pytest.mark.once, pytest.mark.full]

STEPS = 48
# Family -> the layer, its units, what each reaches on the best of 500 photos of 64 pixels, and by the defaults in STEPS steps.
FROZEN: dict[str, tuple[str, list[int], list[float], list[float]]] = {
    "resnet": ("layer3", [0, 40, 85, 170], [1.486, 2.984, 1.986, 1.622], [2.968, 4.731, 3.35, 4.466]),
    "vgg": ("features.14", [0, 17, 34, 51], [1.471, 1.501, 1.493, 0.47], [6.869, 5.656, 2.769, 1.398]),
    "vgg_bn": ("features.20", [0, 17, 34, 51], [0.935, 0.976, 1.192, 0.628], [2.897, 1.169, 2.103, 1.277]),
}


@pytest.mark.parametrize("family", FROZEN)
def test_the_activation_reached_at_fixed_steps(family: str) -> None:
    """No less than when the defaults were chosen (5 % for other versions and machines), far above photos and noise."""
    layer, units, photos, reached = FROZEN[family]
    model = network(family)
    result = jv.visualize(model, jv.channel(layer, units), size=SIZE, steps=STEPS)
    np.testing.assert_array_less(0.95 * np.array(reached), result.scores[:, 0])
    assert np.median(result.scores[:, 0] / photos) > 1.7 and (result.scores[:, 0] > photos).all()
    noise = np.random.default_rng(0).uniform(size=(16, SIZE, SIZE, 3)).astype(np.float32)
    excited = np.asarray(model.activations(noise, layer)[layer])[..., units].mean((1, 2)).max(0)
    assert (result.scores[:, 0] > 2 * excited).all()
    assert (result.diagnosis == "ok").all()


def test_families_are_known_by_their_normalisation() -> None:
    rates = {family: default_learning_rate(network(family)) for family in ("resnet", "vgg", "vgg_bn")}
    assert rates == {"resnet": 0.01, "vgg": 0.02, "vgg_bn": 0.01}
    assert has_batch_norm(jv.load().network) and not has_batch_norm(tiny_model().network)
    pure = jv.from_function(lambda images: images.mean((1, 2)))
    assert has_batch_norm(pure.network) is None and default_learning_rate(pure) == 0.01
    assert jv.visualize(tiny_model(), "relu:0", steps=1, size=16).settings["learning_rate"] == 0.02


@pytest.mark.parametrize("family", ["vgg", "vgg_bn"])
def test_the_small_networks_are_trained(family: str) -> None:
    """Their units mean something: the pictures of classes, made through the whole network, are those classes."""
    model = network(family)
    result = jv.visualize(model, "fc:0,4,8", size=SIZE, steps=STEPS)
    assert np.asarray(model(result.images[:, 0])).argmax(1).tolist() == [0, 4, 8]
