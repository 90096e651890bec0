"""From a network to a site that can be looked at without anything else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxviz import engine
from jaxviz._errors import ArgumentError, ImageError
from jaxviz._fingerprint import model_digests
from jaxviz._image_files import find_files
from jaxviz._result_files import failures, versions
from jaxviz._run_folder import HINT
from jaxviz._types import StrPath
from jaxviz.gallery._layer import Photos, Report, Work
from jaxviz.gallery._pages import write_layer, write_map, write_units
from jaxviz.gallery._photos import roots, shown_name
from jaxviz.gallery._plan import Wanted, plan, way_past
from jaxviz.gallery._record import gallery_folder
from jaxviz.gallery._similarity import PROFILE
from jaxviz.gallery._site import Layer, Passed, Site
from jaxviz.image import as_pair
from jaxviz.models import Model
from jaxviz.result import Result

BY_PHOTOS = f"Similar units are excited by the same photos: cosine of their activations in the {PROFILE} strongest of each."
BY_PICTURES = "Similar units are excited by the same images: cosine of their activations in all pictures of the layer."
PLAIN = (bool, int, float, str, tuple)
_RUN = ("mesh", "chunk")  # how a run is carried out, without any influence on what comes out


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
    **options: Any,
) -> Path:
    """Write a site that shows every unit of some layers, to be opened from the disk with no server and no network.

    From a map of the network to its layers to their units: images made to excite each, the photos that excite it most with
    what it sees of them, a histogram over all photos, and the units most like it. All of it is static HTML. The folder
    `work` in it holds the exact arrays, and is not needed to look at the site.

    Args:
        model: from `load`, `from_torch` or `from_module`; of three colours or one.
        layers: `"layer3,layer4:0-31"`, or a list of such. `"logit"` shows the classes.
        out: the site's folder. Stopped in any way, also killed, the same call continues; more layers may be added later.
        examples: folders or files of photos. Those in folders are of the class that the folder is named by. None: no photos.
        k: photos shown of each unit.
        samples: pictures of each unit.
        negative: show pictures of the opposite direction, too.
        similar: units shown as similar to each. They are similar where their profiles of activations are, by cosine: over the
            100 strongest photos of each, and without photos over the layer's own pictures.
        steps, size, seed: as of `jaxviz.visualize`.
        folder_names: what the examples' folders mean, such as `{"n02979186": "cassette player"}`. Folders that are named by
            WordNet, as many as the network has classes, need none.
        command: how the site was made, for its first page; this call unless given.
        overwrite: start anew, whatever gallery the folder holds.
        progress: called with what is done now (a layer's name, or "photos") and a `Progress`.
        **options: as of `jaxviz.visualize`: `learning_rate`, `param`, `transforms`, `mesh`, `chunk`, ...

    Returns:
        The first page, `out/index.html`.

    Raises:
        ArgumentError: an argument is wrong; the message says what was expected.
        SaveError: the folder cannot be written, or holds a gallery with other settings, or files of someone else.
        ImageError: there are no photos in what was given.
        Interrupted, KeyboardInterrupt: Ctrl-C; what is finished stays, and the same call continues.

    Example:
        >>> page = jaxviz.gallery.build(model, "layer4:0-3", examples="photos", size=32, out="site")
    """
    out = Path(out).absolute()
    pixels = model.input_size if size is None else as_pair(size)
    asked = {"samples": samples, "steps": steps, "size": pixels, "seed": seed}
    shown = {"k": k, "similar": similar, "negative": negative}
    _check(model, {**asked, **shown}, options)
    table = model.layers(pixels)
    wanted = plan(model, layers, pixels, table)
    recipe = {name: value for name, value in options.items() if name not in _RUN}
    settings = {
        **model_digests(model),
        **asked,
        **shown,
        "options": engine.describe(recipe),
        "examples": _described(examples, out),
        "folder_names": dict(folder_names or {}),
    }
    run = {name: options[name] for name in _RUN if options.get(name) is not None}
    work = Work(model, out, pixels, k, similar, negative, {**options, **asked}, run, progress)
    page = out / "index.html"
    units = {layer.slug: layer.units.tolist() for layer in wanted}
    with gallery_folder(out, settings, units, overwrite=overwrite) as has_work, failures(out, HINT):
        if not has_work:
            return page
        photos = work.photos(examples, wanted, folder_names)
        done: dict[str, Layer] = {}
        for one in wanted:
            layer, result = work.layer(one, photos)
            done[one.slug] = layer
            site = Site(
                title=model.name or "Network",
                about=_about(model, result, photos, recipe),
                command=command or _call(model, layers, examples, {**asked, **shown, **recipe}),
                way=_way(way_past(table, wanted), done),
                samples=samples,
                negative=negative,
                size=pixels,
                photos=len(photos.files),
                likeness=(BY_PHOTOS if photos.tops else BY_PICTURES) if similar else "",
                waiting=tuple(each.name for each in wanted if each.slug not in done),
            )
            write_units(site, layer, out)
            write_layer(site, layer, out)
            page = write_map(site, out)  # so that what is finished can be looked at
    return page


def _check(model: Model, numbers: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    if model.in_channels not in (1, 3):
        raise ArgumentError(f"A gallery shows images of 1 or 3 channels; this network's have {model.in_channels}.")
    unfit = [name for name in ("transparency", "snapshots", "start") if options.get(name)]
    if unfit:
        raise ArgumentError(f"A gallery cannot be made with {', '.join(unfit)}.")
    for name, least in (("k", 1), ("samples", 1), ("similar", 0)):
        if numbers[name] != int(numbers[name]) or numbers[name] < least:
            raise ArgumentError(f"{name} must be a whole number of at least {least}; got {numbers[name]!r}.")


def _described(examples: StrPath | Sequence[StrPath] | None, out: Path) -> Any:
    """Return which photos are looked at: how many, and a digest of their names.

    Raises:
        ImageError: there are none; before anything is written, so that the call can be put right.
    """
    if examples is None:
        return None
    folders = roots(examples)
    for path in folders:
        if not path.exists():
            raise ImageError(f"There is no file or folder '{path}'.")
    files, _ = find_files(folders, out)
    if not files:
        raise ImageError(f"There are no files in '{folders[0] if folders else ''}'.")
    names = [shown_name(file, folders) for file in files]
    return f"{len(files)} files, {engine.digest([name.encode(errors='surrogateescape').hex() for name in names])}"


def _way(parts: Sequence[Wanted | Passed], done: Mapping[str, Layer]) -> tuple[Layer | Passed, ...]:
    """Return the network's way with the layers that are finished; those that are not are passed."""
    found: list[Layer | Passed] = []
    for part in parts:
        part = done.get(part.slug, Passed((part.name,))) if isinstance(part, Wanted) else part
        if isinstance(part, Passed) and found and isinstance(found[-1], Passed):
            found[-1] = Passed((*found[-1].names, *part.names))
        else:
            found.append(part)
    return tuple(found)


def _about(model: Model, result: Result, photos: Photos, recipe: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return how the site was made, for people."""
    made = result.settings
    rows = {
        "network": model.name or "unnamed",
        "classes": str(len(model.class_names)) if model.class_names else "",
        "photos": f"{len(photos.files)}" if photos.files else "",
        "files that were no photos": str(photos.skipped) if photos.skipped else "",
        "images of each unit": str(made.get("samples")),
        "steps": str(made.get("steps")),
        "size": " \N{MULTIPLICATION SIGN} ".join(map(str, made.get("size", ()))) + " pixels",
        "seed": str(made.get("seed")),
        "learning rate": str(made.get("learning_rate")),
        **{name.replace("_", " "): _short(value) for name, value in recipe.items() if name != "learning_rate"},
        **versions(),
    }
    return tuple((name, value) for name, value in rows.items() if value)


def _short(value: Any) -> str:
    """Return a setting in a few words: functions and classes by name."""
    if isinstance(value, list | tuple):
        return ", ".join(map(_short, value)) or "none"
    text = getattr(value, "__name__", None) or (type(value).__name__ if dataclasses.is_dataclass(value) else repr(value))
    return text if len(text) <= 120 else f"{text[:117]}..."


def _call(model: Model, layers: str | Sequence[str], examples: Any, given: Mapping[str, Any]) -> str:
    """Return the Python call that makes this site, as far as its arguments can be written."""
    asked = layers if isinstance(layers, str) else list(layers)
    named = [] if examples is None else [f"examples={examples!r}"]
    named += [f"{name}={value!r}" if isinstance(value, PLAIN) else f"{name}={_short(value)}" for name, value in given.items()]
    return f"jaxviz.gallery.build(jaxviz.load({model.name!r}), {asked!r}, {', '.join(named)})"
