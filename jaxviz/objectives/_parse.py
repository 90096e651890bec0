"""Objectives from strings: `"layer3:0-31"`, `"logit:golf ball,church"`, `"layer3:7 - 0.5*layer3:9"`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias, cast

from jaxviz._errors import ArgumentError
from jaxviz._types import Array
from jaxviz.objectives._algebra import Activations, Objective
from jaxviz.objectives._basic import channel, from_function, layer, logit
from jaxviz.objectives._samples import diversity

ObjectiveLike: TypeAlias = Objective | str | Callable[[Activations, Array], Array]

_TERM = re.compile(r"\s*(?:(?P<weight>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*\*)?\s*(?P<what>(?:[^\s*+-][^*]*)?)")


def parse(text: str) -> Objective:
    """Read an objective from a string.

        layer3:7                    a channel; also several, `layer4:3,9,20-31`, and all of a layer, `layer4`
        logit:golf ball,church      classes, by name or number; `logit` for all
        deepdream:layer3            the mean square of a layer, `layer("layer3", "square")`
        diversity:layer3            how alike the samples are, to be subtracted

    and sums of these, `layer3:7 - 0.5*layer3:9 - diversity:layer3`, with spaces around `+` and `-` (so that `20-31` is a range
    and `hen-of-the-woods` a class) and optionally a number and `*` in front of a term. In a sum, a single unit is added to all
    units of the other terms. A `-` in front of the first term negates it.

    Raises:
        ArgumentError: another form; the message says what was expected.

    >>> jv.visualize(model, jv.parse("layer3:7 - 0.5*layer3:9"), steps=1, size=32).labels
    ('layer3:7',)
    """
    first, *rest = re.split(r"\s+([+-])\s+", text.strip())
    signs = ["-" if first.startswith("-") else "+", *rest[::2]]
    terms = [first.removeprefix("-"), *rest[1::2]]
    total: Objective | None = None
    for sign, term in zip(signs, terms, strict=True):
        match = _TERM.fullmatch(term)
        if match is None:
            raise ArgumentError(f"Expected OBJECTIVE or NUMBER*OBJECTIVE, such as '0.5*layer3:9'; got {term!r} in {text!r}.")
        if len(terms) > 1 and re.fullmatch(r"[\d\s,-]+", match["what"]):
            raise ArgumentError(
                f"Expected an objective after ' {sign} ', got {term!r} in {text!r}. A range has no spaces: 20-31."
            )
        objective = _term(match["what"].strip(), text)
        weight = float(match["weight"] or 1) * (-1 if sign == "-" else 1)
        objective = objective if weight == 1 else weight * objective
        total = objective if total is None else total + objective
    assert total is not None  # an empty first term is refused above
    return total


def as_objective(value: object) -> Objective:
    """Return an objective unchanged, a string parsed, a function wrapped."""
    if isinstance(value, Objective):
        return value
    if isinstance(value, str):
        return parse(value)
    if callable(value):
        return from_function(cast(Callable[[Activations, Array], Array], value))
    raise ArgumentError(f"Expected an objective, a string such as 'layer3:0-31', or a function; got {value!r}.")


def _term(what: str, text: str) -> Objective:
    name, _, units = (part.strip() for part in what.partition(":"))
    if not name or (":" in what and not units):
        raise ArgumentError(f"Expected LAYER, LAYER:UNITS or logit:CLASSES, such as 'layer4:3,9,20-31'; got {text!r}.")
    if name in ("diversity", "deepdream") and units:
        return diversity(units) if name == "diversity" else layer(units, "square")
    if name in ("logit", "logits") and units and not re.fullmatch(r"[\d\s,-]+", units):
        return logit([part.strip() for part in units.split(",")])
    index: list[int] = []
    for part in units.split(",") if units else ():
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise ArgumentError(f"Expected units such as '3', '3,9' or '20-31' after {name!r}; got {part!r} in {text!r}.")
        index.extend(range(first, last + 1))
    return logit(index or None) if name in ("logit", "logits") else channel(name, index or None)
