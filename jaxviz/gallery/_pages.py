"""The pages of a gallery: static HTML from templates; names of files, layers and classes are escaped."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from jaxviz._atomic import write_atomically
from jaxviz.gallery._chart import chart, number
from jaxviz.gallery._site import Layer, Site, Unit

ASSETS = ("site.css", "site.js")
STRIP = 42  # thumbnails per layer on the map


def write_map(site: Site, folder: Path) -> Path:
    """Write the first page and the data of its search; return the page."""
    for name in ASSETS:
        data = (resources.files("jaxviz.gallery") / "templates" / name).read_bytes()
        _write(folder / "assets" / name, data)
    _write(folder / "search.js", f"jaxviz.found({script_json(search_data(site))});\n".encode())
    total = sum(len(layer.units) for layer in site.layers)
    return _render(folder / "index.html", "map.html", site=site, total=total, root="")


def write_layer(site: Site, layer: Layer, folder: Path) -> None:
    """Write a layer's page."""
    _render(folder / "layers" / layer.slug / "index.html", "layer.html", site=site, layer=layer, root="../../")


def write_units(site: Site, layer: Layer, folder: Path) -> None:
    """Write a page for each of a layer's units."""
    own = folder / "layers" / layer.slug
    by_number = {unit.number: unit for unit in layer.units}
    for before, unit, after in zip((None, *layer.units), layer.units, (*layer.units[1:], None), strict=False):
        similar = [(by_number[other], likeness) for other, likeness in unit.similar if other in by_number]
        values = {"unit": unit, "before": before, "after": after, "similar": similar}
        _render(own / f"{layer.stem(unit.number)}.html", "unit.html", site=site, layer=layer, root="../../", **values)


def search_data(site: Site) -> dict[str, Any]:
    """Return the data of the search over all layers: every word once, and a short row for each unit."""
    words: dict[str, int] = {}
    rows: list[list[Any]] = []
    for i, layer in enumerate(site.layers):
        for unit in layer.units:
            labels = [[words.setdefault(label, len(words)), count] for label, count in unit.labels]
            rows.append([i, unit.number, unit.name, number(unit.score), labels])
    layers = [{"name": layer.name, "slug": layer.slug, "digits": len(layer.stem(0))} for layer in site.layers]
    return {"layers": layers, "words": list(words), "units": rows}


def script_json(value: Any) -> str:
    r"""Return JSON that is safe inside an HTML script: ASCII, with `<`, `>` and `&` escaped.

    >>> script_json("</script>\u2028")
    '"\\u003c/script\\u003e\\u2028"'
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxviz.gallery"),
        autoescape=True,  # in every template, whatever its name
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "number": number,
        "chart": chart,
        "percent": _percent,
        "plain": _plain,
        "spread": _spread,
    }
    environment.filters.update(filters)
    return environment


def _render(path: Path, template: str, **values: Any) -> Path:
    text = _environment().get_template(template).render(**values)
    return _write(path, text.encode(errors="backslashreplace"))  # names of files need not be UTF-8


def _write(path: Path, data: bytes) -> Path:
    return write_atomically(path, lambda file: file.write(data))


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def _plain(value: float | None) -> str:
    """Return a number for a script to sort by; None, NaN and infinity come last."""
    return f"{value:.6g}" if value is not None and np.isfinite(value) else "-1e38"


def _spread(units: Sequence[Unit]) -> list[Unit]:
    """Return up to `STRIP` diverse units: evenly spaced in the order that puts similar units side by side."""
    ordered = sorted(units, key=lambda unit: unit.place)
    at = np.unique(np.linspace(0, len(ordered) - 1, STRIP).round().astype(int)) if ordered else []
    return [ordered[i] for i in at]
