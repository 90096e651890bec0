"""Objectives from strings: `"layer3:0-31"`, `"logit:golf ball,church"`."""

from __future__ import annotations

import re
from typing import Any

from jaxviz._errors import ArgumentError
from jaxviz.objectives._algebra import Objective
from jaxviz.objectives._units import channel, function, logit


def parse(text: str) -> Objective:
    """Read `"layer3:0-31"`, `"layer4:3,9,20-31"`, `"layer4"` (all channels), `"logit:golf ball,church"` or `"logit"`."""
    name, _, units = (part.strip() for part in text.partition(":"))
    if not name or (":" in text and not units):
        raise ArgumentError(f"Expected LAYER, LAYER:UNITS or logit:CLASSES, such as 'layer4:3,9,20-31'; got {text!r}.")
    if name in ("logit", "logits") and units and not re.fullmatch(r"[\d\s,-]+", units):
        return logit([part.strip() for part in units.split(",")])
    index: list[int] | None = [] if units else None
    for part in units.split(",") if units else ():
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise ArgumentError(f"Expected units such as '3', '3,9' or '20-31' after {name!r}; got {part!r} in {text!r}.")
        index.extend(range(first, last + 1))  # type: ignore[union-attr]
    return logit(index) if name in ("logit", "logits") else channel(name, index)


def as_objective(value: Any) -> Objective:
    """Return an objective as it is, a string parsed, a function wrapped."""
    if isinstance(value, Objective):
        return value
    if isinstance(value, str):
        return parse(value)
    if callable(value):
        return function(value)  # type: ignore[arg-type]
    raise ArgumentError(f"Expected an objective, a string such as 'layer3:0-31', or a function; got {value!r}.")
