"""Build a static site of a network's units."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from jaxviz._errors import ArgumentError, ImageError
from jaxviz._fingerprint import describe, digest, model_digests
from jaxviz._image_files import find_files
from jaxviz._result_files import failures, versions
from jaxviz._run_folder import HINT
from jaxviz._types import StrPath
from jaxviz._visualize.options import RenderOptions, VisualizeOptions, show_options
from jaxviz.engine import RunOptions
from jaxviz.gallery._layer import LayerBuilder, Photos, Report
from jaxviz.gallery._pages import write_layer, write_map, write_units
from jaxviz.gallery._photos import as_paths, shown_name
from jaxviz.gallery._plan import PlannedLayer, layers_and_gaps, plan
from jaxviz.gallery._record import gallery_folder
from jaxviz.gallery._similarity import PROFILE
from jaxviz.gallery._site import Layer, Passed, Site
from jaxviz.image import as_pair
from jaxviz.models import Model
from jaxviz.result import Result

BY_PHOTOS = f"Similar units are excited by the same photos: cosine of their activations in the {PROFILE} strongest of each."
BY_PICTURES = "Similar units are excited by the same images: cosine of their activations in all pictures of the layer."
_LITERALS = (bool, int, float, str, tuple)  # types whose repr is Python code
_RUN = ("mesh", "chunk")  # options that do not change the result


@show_options(RenderOptions)
def build(
    model: Model,
    layers: str | Sequence[str],
    *,
    out: StrPath,
    examples: StrPath | Sequence[StrPath] | None = None,
    k: int = 9,
    samples: int = 1,
    negative: bool = False,
    similar: int = 9,
    steps: int = 256,
    size: int | tuple[int, int] | None = None,
    seed: int = 0,
    folder_names: Mapping[str, str] | None = None,
    command: str | None = None,
    overwrite: bool = False,
    progress: Report | None = None,
    **options: Unpack[RenderOptions],
) -> Path:
    """Write a static site that shows every unit of some layers; it opens from disk without server or network.

    A map of the network leads to its layers, and a layer to its units. A unit's page shows images that excite it, the photos
    that excite it most with its receptive field in them, a histogram over all photos, and the most similar units. The folder
    `work` in the site holds the exact arrays; the pages do not need it.

    Args:
        model: a network for images of 1 or 3 channels.
        layers: `"layer3,layer4:0-31"`, or a list of such; `"logit"` shows the classes.
        out: folder of the site. An interrupted or killed call continues there; later calls may add layers.
        examples: folders or files of photos; the name of a photo's folder is its class. No photos by default.
        k: number of photos for each unit.
        samples: number of pictures of each unit.
        negative: show pictures of the opposite direction too.
        similar: number of similar units shown for each unit. Similarity is the cosine of activation profiles over the 100
            strongest photos of each unit, or over all pictures of the layer if there are no photos.
        steps, size, seed: see `jaxviz.visualize`.
        folder_names: class names of the folders, such as `{"n02979186": "cassette player"}`. Folders with WordNet names, as
            many as the network has classes, need none.
        command: how the site was made, for its first page; this call by default.
        overwrite: replace any gallery in `out`.
        progress: called with the name of the current layer, or "photos", and a `Progress`.
        **options: see `jaxviz.visualize`.

    Returns:
        The path of the first page, `out/index.html`.

    Raises:
        ArgumentError: an unsuitable argument.
        SaveError: `out` cannot be written, or holds a gallery of other settings or other files.
        ImageError: no photos in `examples`.
        Interrupted, KeyboardInterrupt: Ctrl-C; the same call continues.

    Example:
        >>> page = jaxviz.gallery.build(model, "layer4:0-3", examples="photos", size=32, out="site")
    """
    out = Path(out).absolute()
    pixels = model.input_size if size is None else as_pair(size)
    image_settings: dict[str, Any] = {"samples": samples, "steps": steps, "size": pixels, "seed": seed}
    page_settings: dict[str, Any] = {"k": k, "similar": similar, "negative": negative}
    _check(model, {**image_settings, **page_settings}, options)
    table = model.layers(pixels)
    planned = plan(model, layers, pixels, table)
    recipe: dict[str, Any] = {name: value for name, value in options.items() if name not in _RUN}
    settings = {
        **model_digests(model),
        **image_settings,
        **page_settings,
        "options": describe(recipe),
        "examples": _describe_examples(examples, out),
        "folder_names": dict(folder_names or {}),
    }
    run: RunOptions = {"mesh": options.get("mesh"), "chunk": options.get("chunk")}
    image_options: VisualizeOptions = {**options, "samples": samples, "steps": steps, "size": pixels, "seed": seed}
    builder = LayerBuilder(model, out, pixels, k, similar, negative, image_options, run, progress)
    page = out / "index.html"
    units = {layer.slug: layer.units.tolist() for layer in planned}
    with gallery_folder(out, settings, units, overwrite=overwrite) as has_work, failures(out, HINT):
        if not has_work:
            return page
        photos = builder.photos(examples, planned, folder_names)
        finished: dict[str, Layer] = {}
        for planned_layer in planned:
            layer, result = builder.build(planned_layer, photos)
            finished[planned_layer.slug] = layer
            site = Site(
                title=model.name or "Network",
                about=_about(model, result, photos, recipe),
                command=command or _call(model, layers, examples, {**image_settings, **page_settings, **recipe}),
                way=_way(layers_and_gaps(table, planned), finished),
                samples=samples,
                negative=negative,
                size=pixels,
                photos=len(photos.files),
                likeness=(BY_PHOTOS if photos.tops else BY_PICTURES) if similar else "",
                waiting=tuple(layer.name for layer in planned if layer.slug not in finished),
            )
            write_units(site, layer, out)
            write_layer(site, layer, out)
            page = write_map(site, out)  # after every layer, so that the finished ones can be viewed
    return page


def _check(model: Model, numbers: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    if model.in_channels not in (1, 3):
        raise ArgumentError(f"A gallery shows images of 1 or 3 channels; this network's have {model.in_channels}.")
    unsuitable = [name for name in ("transparency", "snapshots", "start") if options.get(name)]
    if unsuitable:
        raise ArgumentError(f"A gallery cannot be made with {', '.join(unsuitable)}.")
    for name, least in (("k", 1), ("samples", 1), ("similar", 0)):
        if numbers[name] != int(numbers[name]) or numbers[name] < least:
            raise ArgumentError(f"{name} must be a whole number of at least {least}; got {numbers[name]!r}.")


def _describe_examples(examples: StrPath | Sequence[StrPath] | None, out: Path) -> str | None:
    """Return the number of photos and a digest of their names.

    Raises:
        ImageError: there are none; raised before anything is written.
    """
    if examples is None:
        return None
    folders = as_paths(examples)
    for path in folders:
        if not path.exists():
            raise ImageError(f"There is no file or folder '{path}'.")
    files, _ = find_files(folders, out)
    if not files:
        raise ImageError(f"There are no files in '{folders[0] if folders else ''}'.")
    names = [shown_name(file, folders) for file in files]
    return f"{len(files)} files, {digest([name.encode(errors='surrogateescape').hex() for name in names])}"


def _way(parts: Sequence[PlannedLayer | Passed], finished: Mapping[str, Layer]) -> tuple[Layer | Passed, ...]:
    """Return the map of the network: finished layers, and the names of what lies between them."""
    way: list[Layer | Passed] = []
    for part in parts:
        shown = finished.get(part.slug, Passed((part.name,))) if isinstance(part, PlannedLayer) else part
        if isinstance(shown, Passed) and way and isinstance(way[-1], Passed):
            way[-1] = Passed((*way[-1].names, *shown.names))
        else:
            way.append(shown)
    return tuple(way)


def _about(model: Model, result: Result, photos: Photos, recipe: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return names and values of the settings, for the first page."""
    settings = result.settings
    rows = {
        "network": model.name or "unnamed",
        "classes": str(len(model.class_names)) if model.class_names else "",
        "photos": f"{len(photos.files)}" if photos.files else "",
        "files that were no photos": str(photos.skipped) if photos.skipped else "",
        "images of each unit": str(settings.get("samples")),
        "steps": str(settings.get("steps")),
        "size": " \N{MULTIPLICATION SIGN} ".join(map(str, settings.get("size", ()))) + " pixels",
        "seed": str(settings.get("seed")),
        "learning rate": str(settings.get("learning_rate")),
        **{name.replace("_", " "): _short(value) for name, value in recipe.items() if name != "learning_rate"},
        **versions(),
    }
    return tuple((name, value) for name, value in rows.items() if value)


def _short(value: Any) -> str:
    """Return a setting in a few words; functions and classes by name."""
    if isinstance(value, list | tuple):
        return ", ".join(map(_short, value)) or "none"
    text = getattr(value, "__name__", None) or (type(value).__name__ if dataclasses.is_dataclass(value) else repr(value))
    return text if len(text) <= 120 else f"{text[:117]}..."


def _call(
    model: Model,
    layers: str | Sequence[str],
    examples: StrPath | Sequence[StrPath] | None,
    settings: Mapping[str, Any],
) -> str:
    """Return the Python call that makes this site, as far as its arguments have a short form."""
    names = layers if isinstance(layers, str) else list(layers)
    keywords = [] if examples is None else [f"examples={examples!r}"]
    keywords += [
        f"{name}={value!r}" if isinstance(value, _LITERALS) else f"{name}={_short(value)}" for name, value in settings.items()
    ]
    return f"jaxviz.gallery.build(jaxviz.load({model.name!r}), {names!r}, {', '.join(keywords)})"
