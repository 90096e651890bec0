"""list_models(): what load() can load."""

from __future__ import annotations

from typing import NamedTuple

from jaxviz.models._zoo.registry import ARCHITECTURES, BUNDLED


class ModelInfo(NamedTuple):
    """One network with one set of weights: what `load(name, weights=weights)` loads.

    Attributes:
        name, weights: the arguments of `load`; `weights` is empty for the bundled network.
        default: whether `load(name)` loads these weights.
        classes: the number of classes, or None where the weights have no classifier.
        top1: accuracy in percent on the validation set (ImageNet's, torchvision's figure), or None.
        url: where the weights come from; empty for the bundled network.
        bundled: whether the weights come with the library.
    """

    name: str
    weights: str
    default: bool
    classes: int | None
    top1: float | None
    url: str
    bundled: bool


class ModelTable(tuple[ModelInfo, ...]):
    """A tuple of `ModelInfo` that shows itself as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        rows = [("name", "weights", "classes", "top-1", "source")]
        for m in self:
            rows.append(
                (
                    m.name,
                    m.weights + (" (default)" if m.default and not m.bundled else ""),
                    str(m.classes or "none"),
                    "" if m.top1 is None else f"{m.top1:.1f} %",
                    "comes with jaxviz" if m.bundled else m.url.rpartition("/")[2],
                )
            )
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)

    __str__ = __repr__


def list_models() -> ModelTable:
    """Return a table of every network and every set of weights that `load` knows.

    >>> import jaxviz as jv
    >>> len({model.name for model in jv.list_models()})  # the bundled one and torchvision's
    19
    """
    rows = [ModelInfo(BUNDLED, "", True, 10, None, "", True)]
    for entry in ARCHITECTURES.values():
        for i, w in enumerate(entry.weights):
            rows.append(ModelInfo(entry.name, w.name, i == 0, w.classes, w.top1, w.url, False))
    return ModelTable(rows)
