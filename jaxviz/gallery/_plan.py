"""What a gallery is asked for: layers and units by name, checked before the first step, and the network's way around them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz.gallery._site import Passed, slugs
from jaxviz.models import LayerTable, Model, ReceptiveField
from jaxviz.models._layer_table import Layer as TableLayer
from jaxviz.objectives import Objective, parse
from jaxviz.objectives._basic import Channel, Logit


@dataclass(frozen=True)
class Wanted:
    """A layer that was asked for: its name, its folder's name, its row of the layer table, and which of its units."""

    name: str
    slug: str
    row: TableLayer
    units: np.ndarray
    objective: Objective
    classes: tuple[str, ...]  # names of all units where they are the network's classes

    @property
    def has_all(self) -> bool:
        return len(self.units) == self.row.channels


def read_layers(text: str | Sequence[str]) -> list[str]:
    """Return the layers of `"layer3:0-31,40,layer4"` one by one: what begins with a digit goes with the layer before it."""
    parts = [part.strip() for part in (text.split(",") if isinstance(text, str) else text)]
    found: list[str] = []
    for part in parts:
        if isinstance(text, str) and found and re.fullmatch(r"\d+(-\d+)?", part):
            found[-1] += f",{part}"
        elif part:
            found.append(part)
    return found


def plan(model: Model, layers: str | Sequence[str], size: tuple[int, int], table: LayerTable) -> list[Wanted]:
    """Return what is wanted in the order of computation.

    Raises:
        ArgumentError: no layer, one that is asked for twice, or what is no channels of a layer.
        LayerError, UnitError: a layer that the network, or a unit that the layer, does not have.
    """
    asked = read_layers(layers)
    if not asked:
        raise ArgumentError("Expected at least one layer, such as 'layer3' or 'layer4:0-31'; got none.")
    last = table.names[-1]
    found: dict[str, tuple[str, np.ndarray, Objective]] = {}
    for text in asked:
        objective = parse(text).bind(model, size)
        if not isinstance(objective, Channel | Logit):
            raise ArgumentError(f"A gallery shows the channels of layers, such as 'layer3' or 'layer4:0-31'; got {text!r}.")
        (layer,), name = objective.layers(), text.partition(":")[0]
        node = table[layer].name
        units = np.unique(np.atleast_1d(np.asarray(objective.index)))
        if node in found:
            raise ArgumentError(f"'{name}' and '{found[node][0]}' are the same layer: give its units together.")
        name = node if isinstance(objective, Logit) else name
        found[node] = (name, units, Channel(name, units.astype(np.int32)))
    order = sorted(found, key=table.names.index)
    names = slugs([found[node][0] for node in order])
    classes = {last: tuple(model.class_names)}
    return [
        Wanted(found[node][0], slug, table[node], *found[node][1:], classes.get(node, ()))
        for node, slug in zip(order, names, strict=True)
    ]


def way_past(table: LayerTable, wanted: Sequence[Wanted]) -> list[Wanted | Passed]:
    """Return the network from its image on: what is wanted, and in a few words what is passed between.

    What is passed is named by the largest modules that hold nothing that is shown.
    """
    shown = {one.row.name: one for one in wanted}
    whole = [f"{one.name}." for one in wanted if one.name != one.row.name]  # a module's last node stands for the module
    holds: Callable[[str], bool] = lambda path: any(node == path or node.startswith(f"{path}.") for node in shown)  # noqa: E731
    way: list[Wanted | Passed] = []
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
        free = next((path for path in paths if not holds(path)), layer.name)
        if free not in names and not any(layer.name.startswith(module) for module in whole):
            names.append(free)
    return [*way, Passed(tuple(names))] if names else way


def field_in_words(field: ReceptiveField | None, size: tuple[int, int]) -> tuple[str, tuple[float, float] | None]:
    """Return what a unit sees, in words, and in shares of the image's height and width; "" and None where that is not known."""
    if field is None:
        return "", None
    height, width = (min(1.0, a / b) for a, b in zip(field.size, size, strict=True))
    if field.whole or (height == 1 and width == 1):
        return "the whole image", (1.0, 1.0)
    if field.size == (1, 1):
        return "one pixel", (height, width)
    return f"{field.size[0]} \N{MULTIPLICATION SIGN} {field.size[1]} pixels", (height, width)
