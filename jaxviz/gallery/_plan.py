"""Plan of a gallery: its layers and units, checked before the first step, and the parts of the network between them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz.gallery._site import Passed, slugs
from jaxviz.models import LayerTable, Model, ReceptiveField
from jaxviz.models._layer_table import Layer as TableLayer
from jaxviz.objectives import Objective, parse
from jaxviz.objectives._basic import Channel, Logit


@dataclass(frozen=True)
class PlannedLayer:
    """A layer to build.

    Attributes:
        name: as given.
        slug: name of its folder.
        row: its row of the layer table.
        units: numbers of the units to show, rising.
        objective: of these units.
        classes: names of all units of the logits; empty for other layers.
    """

    name: str
    slug: str
    row: TableLayer
    units: np.ndarray
    objective: Objective
    classes: tuple[str, ...]


def read_layers(text: str | Sequence[str]) -> list[str]:
    """Split `"layer3:0-31,40,layer4"` into layers; a part that begins with a digit belongs to the layer before it."""
    parts = [part.strip() for part in (text.split(",") if isinstance(text, str) else text)]
    layers: list[str] = []
    for part in parts:
        if isinstance(text, str) and layers and re.fullmatch(r"\d+(-\d+)?", part):
            layers[-1] += f",{part}"
        elif part:
            layers.append(part)
    return layers


def plan(model: Model, layers: str | Sequence[str], size: tuple[int, int], table: LayerTable) -> list[PlannedLayer]:
    """Return the layers to build, in the order of computation.

    Raises:
        ArgumentError: no layer, a layer given twice, or something other than channels of a layer.
        LayerError, UnitError: an unknown layer or unit.
    """
    texts = read_layers(layers)
    if not texts:
        raise ArgumentError("Expected at least one layer, such as 'layer3' or 'layer4:0-31'; got none.")
    last = table.names[-1]
    by_node: dict[str, tuple[str, np.ndarray, Objective]] = {}
    for text in texts:
        objective = parse(text).bind(model, size)
        if not isinstance(objective, Channel | Logit):
            raise ArgumentError(f"A gallery shows the channels of layers, such as 'layer3' or 'layer4:0-31'; got {text!r}.")
        (layer,), name = objective.layers(), text.partition(":")[0]
        node = table[layer].name
        units = np.unique(np.atleast_1d(np.asarray(objective.index)))
        if node in by_node:
            raise ArgumentError(f"'{name}' and '{by_node[node][0]}' are the same layer: give its units together.")
        name = node if isinstance(objective, Logit) else name
        by_node[node] = (name, units, Channel(name, units.astype(np.int32)))
    order = sorted(by_node, key=table.names.index)
    names = slugs([by_node[node][0] for node in order])
    classes = {last: tuple(model.class_names)}
    return [
        PlannedLayer(by_node[node][0], slug, table[node], *by_node[node][1:], classes.get(node, ()))
        for node, slug in zip(order, names, strict=True)
    ]


def layers_and_gaps(table: LayerTable, planned: Sequence[PlannedLayer]) -> list[PlannedLayer | Passed]:
    """Return the planned layers in the network's order, and the names of the modules between them.

    Each gap is named by the largest modules that contain no planned layer.
    """
    shown = {layer.row.name: layer for layer in planned}
    modules = [f"{layer.name}." for layer in planned if layer.name != layer.row.name]  # their last node stands for them

    def contains_shown(path: str) -> bool:
        return any(node == path or node.startswith(f"{path}.") for node in shown)

    way: list[PlannedLayer | Passed] = []
    names: list[str] = []
    for layer in table:
        if layer.name in shown:
            if names:
                way.append(Passed(tuple(names)))
            way.append(shown[layer.name])
            names = []
            continue
        parts = layer.name.split(".")
        paths = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
        largest = next((path for path in paths if not contains_shown(path)), layer.name)
        if largest not in names and not any(layer.name.startswith(module) for module in modules):
            names.append(largest)
    return [*way, Passed(tuple(names))] if names else way


def describe_field(field: ReceptiveField | None, size: tuple[int, int]) -> tuple[str, tuple[float, float] | None]:
    """Return a receptive field in words, and as shares of the image's height and width; "" and None if unknown."""
    if field is None:
        return "", None
    height, width = (min(1.0, a / b) for a, b in zip(field.size, size, strict=True))
    if field.whole or (height == 1 and width == 1):
        return "the whole image", (1.0, 1.0)
    if field.size == (1, 1):
        return "one pixel", (height, width)
    return f"{field.size[0]} \N{MULTIPLICATION SIGN} {field.size[1]} pixels", (height, width)
