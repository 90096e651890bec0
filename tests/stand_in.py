"""Examples made small: the bundled network's layers without its work, and calls with two steps on small images."""

from __future__ import annotations

import ast
from itertools import pairwise

import numpy as np
from flax import nnx

from jaxviz.models import Model, from_module
from jaxviz.models._taps import no_tap
from jaxviz.models._zoo.layers import Conv, Linear, around, both
from jaxviz.ops import EXACT

RUNS = ("visualize", "iter_visualize", "invert", "caricature", "accentuate", "deepdream")
BUILT_OF_RUNS = ("build", "activation_atlas", "activation_grid", "activation_groups")  # which have a size of their own
WITH_TRANSFORMS = ("visualize", "iter_visualize", "caricature", "accentuate")


class Small(ast.NodeTransformer):
    """Two steps, small images and no transforms where a text leaves them to the defaults; `more` options where it does, too."""

    def __init__(self, plain: bool, **more: str) -> None:
        self._plain = plain
        self._more = more

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        name = ast.unparse(node.func).rpartition(".")[2] if node.args else ""
        options = {"steps": "2", "size": "32"} if name in RUNS else {"steps": "2"} if name in BUILT_OF_RUNS else {}
        if "steps" in {keyword.arg for keyword in node.keywords}:
            options = {}
        if self._plain and name in WITH_TRANSFORMS:
            options["transforms"] = "()"
        if name in RUNS or name in BUILT_OF_RUNS:
            options |= {option: value for option, value in self._more.items() if option != "param" or name != "deepdream"}
        for option, value in options.items():
            if option not in {keyword.arg for keyword in node.keywords}:
                node.keywords.append(ast.keyword(option, ast.parse(value, mode="eval").body))
        return node


WIDTHS = {"conv1": 64, "layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512}


class Alike(nnx.Module):
    """The layers of the bundled network by name and number of channels, each a single convolution: it compiles at once."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        for name, (a, b) in zip(WIDTHS, pairwise([3, *WIDTHS.values()]), strict=True):
            setattr(self, name, Conv(a, b, both(3), stride=both(2), padding=around(1), rngs=rngs))
        self.fc = Linear(512, 10, rngs=rngs)

    def __call__(self, x, *, tap=no_tap, ops=EXACT):
        for name in WIDTHS:
            x = tap(name, ops.relu(getattr(self, name)(x, ops)))
        return tap("fc", self.fc(x.mean((1, 2)), ops))


def alike(model: Model, seed: int = 0) -> Model:
    """Return a stand-in for the bundled network."""
    mean, std = np.asarray(model.mean), np.asarray(model.std)
    names, size = model.class_names, model.input_size
    return from_module(Alike(nnx.Rngs(seed)), mean=mean, std=std, class_names=names, input_size=size)
