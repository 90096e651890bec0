"""load(): a network by name, with its own or other weights."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
from flax import nnx

from jaxviz._errors import ArgumentError, CheckpointError
from jaxviz._types import StrPath
from jaxviz.models._files import checkpoint as _checkpoint
from jaxviz.models._files import download as _download
from jaxviz.models._from_module import preprocessing
from jaxviz.models._model import Model
from jaxviz.models._network import Network
from jaxviz.models._zoo import registry as _registry
from jaxviz.models._zoo.registry import BUNDLED, Weights
from jaxviz.models._zoo.resnet import ResNet
from jaxviz.models._zoo.vgg import VGG

_FAMILIES: dict[str, tuple[Callable[..., nnx.Module], str, str]] = {  # with the first and the last layer with weights
    "vgg": (VGG, "features.0", "classifier.6"),
    "resnet": (ResNet, "conv1", "fc"),
}
_ABSENT = "classifier."  # what weights without a classifier lack; only VGG-16 has such
_SUFFIXES = (".pth", ".pt", ".safetensors")

Progress = bool | _download.Progress | None


class _Preparation(TypedDict):
    """What a user may say of a network's classes and images, in place of what its file says."""

    class_names: Sequence[str] | None
    mean: Sequence[float] | None
    std: Sequence[float] | None


def load(
    name: str = BUNDLED,
    *,
    weights: StrPath | None = None,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    cache: StrPath | None = None,
    progress: Progress = None,
) -> Model:
    """Load a network and its weights.

    >>> import jaxviz as jv
    >>> model = jv.load()  # the bundled network: no download
    >>> model.num_classes
    10

    `load("resnet50")` downloads torchvision's default weights once, `load("resnet50", weights="IMAGENET1K_V1")` others;
    `load("resnet50", weights="my_finetune.pth")` reads a file, and the number of classes and of input channels with it.
    No torch is needed, and no code in a file is run. `load("vgg16", weights="IMAGENET1K_FEATURES")` has no classifier:
    as in torchvision its weights are NaN, and so are the logits; the layers below are fine.

    Args:
        name: the bundled network `"resnet18-imagenette"`; any network of `list_models()`; or the path of a `.pth`, `.pt`
            or `.safetensors` file, which is then recognized by its names and shapes.
        weights: torchvision's name of the weights (`"IMAGENET1K_V2"`, `"DEFAULT"`), or a file's path. None: the default.
        class_names: one for each class. None: those the file or torchvision names, else none.
        mean, std: one number per channel, of images in [0, 1]. None: those of the weights, else ImageNet's.
        cache: folder of the downloads; the user's cache folder unless given.
        progress: True for a progress bar on stderr, or a function of the bytes received and their total (or None).

    Raises:
        ArgumentError: an unknown network or weights (with near matches), or a wrong number of class names or channels.
        CheckpointError: a file that is damaged, unsafe or does not fit the network.
        DownloadError: weights that cannot be downloaded.
    """
    if not isinstance(name, str):
        raise ArgumentError(f"Expected the name of a network or a file's path as a string; got {type(name).__name__}.")
    options: _Preparation = {"class_names": class_names, "mean": mean, "std": std}
    if name == BUNDLED and weights is None:
        return from_file(bundled_file(), **options, name=BUNDLED)
    if _is_path(name):
        if weights is not None:
            raise ArgumentError(f"{name!r} is a file; give the network's name first: load('resnet50', weights={name!r}).")
        return from_file(name, **options)
    architecture = "resnet18" if name == BUNDLED else _registry.architecture(name).name
    if weights is not None and (not isinstance(weights, str) or _is_path(weights)):
        return from_file(weights, architecture=architecture, **options)
    return _from_registry(_registry.weights(architecture, weights), cache, progress, **options)


def untrained(name: str, *, num_classes: int = 1000, seed: int = 0) -> Model:
    """Return a network of torchvision's architecture with random weights: for measuring speed, and as a control.

    Nothing is downloaded. It normalizes as torchvision's trained ones do.

    Raises:
        ArgumentError: an unknown network, with near matches.

    >>> untrained("resnet18").layers()["layer4"].channels
    512
    """
    entry = _registry.architecture("resnet18" if name == BUNDLED else name)
    make = _FAMILIES[entry.family][0]
    graphdef, state = nnx.split(make(**entry.arguments, num_classes=num_classes, in_channels=3, rngs=nnx.Rngs(seed)))
    values = preprocessing(_registry.IMAGENET_MEAN, _registry.IMAGENET_STD)
    return Model(Network(state, *values, graphdef), entry.name)


def _is_path(text: str) -> bool:
    return text.endswith(_SUFFIXES) or "/" in text or "\\" in text


def bundled_file() -> Path:
    """Return the path of the bundled network's weights: in a checkout (or editable install), or inside the package."""
    package = Path(str(importlib.resources.files("jaxviz")))
    candidates = [package.parent / "weights" / f"{BUNDLED}.safetensors", package / "_data" / f"{BUNDLED}.safetensors"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise CheckpointError(
        f"The weights of the bundled network {BUNDLED!r} are missing from this installation; they belong at "
        f"{' or '.join(map(str, candidates))}. Install jaxviz again."
    )


def from_file(
    path: StrPath,
    *,
    architecture: str | None = None,
    name: str | None = None,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Model:
    """Load a network from a weight file; see `load`. What is not given comes from the file's metadata or its shapes."""
    path = Path(path).expanduser()
    tensors, metadata = _checkpoint.read(path)
    stored = _stored(path, metadata)
    given = architecture or metadata.get("architecture") or _checkpoint.guess(tensors)
    if given is None:
        raise CheckpointError(
            f"{path}: no VGG or ResNet of torchvision has weights of these names and shapes. For another network write "
            "an nnx module and use jaxviz.from_module, or jaxviz.from_torch for one in PyTorch."
        )
    if given not in _registry.ARCHITECTURES:
        raise CheckpointError(f"{path}: the metadata names an unknown network {given!r}.")
    known = _official(path)
    if known is not None and known.architecture == given:
        stored = {**_of_weights(known), **stored}
        if known.classes is None:
            tensors = _features(tensors)
    try:
        return _build(given, tensors, name or given, class_names=class_names, mean=mean, std=std, stored=stored, known=known)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _from_registry(weights: Weights, cache: StrPath | None, progress: Progress, **options: Unpack[_Preparation]) -> Model:
    with Bar(weights.file, progress) as callback:
        tensors, _ = _download.fetch(weights, cache=cache, progress=callback)
    if weights.classes is None:
        tensors = _features(tensors)
    return _build(weights.architecture, tensors, weights.architecture, **options, stored=_of_weights(weights), known=weights)


def _of_weights(weights: Weights) -> dict[str, Any]:
    names = _registry.imagenet_classes() if weights.classes == 1000 else ()
    return {
        "class_names": names,
        "mean": weights.mean,
        "std": weights.std,
        "size": (weights.crop, weights.crop),
    }


def _features(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array for name, array in tensors.items() if not name.startswith(_ABSENT)}


def _official(path: Path) -> Weights | None:
    """Return the entry of torchvision's weights that was downloaded by hand: known by its name and its hash."""
    known = _registry.weights_of_file(path.name)
    if known is None:
        return None
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(known.hash_prefix):
        raise CheckpointError(
            f"{path}: the file is named like torchvision's, but its SHA-256 begins with {digest[:8]}, not "
            f"{known.hash_prefix}: it is damaged or was changed. Download it again, or give it another name."
        )
    return known


def _stored(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return class names, mean, std and size out of a file's metadata, checked."""
    checks: dict[str, Callable[[Any], bool]] = {
        "class_names": lambda v: all(isinstance(x, str) for x in v),
        "mean": lambda v: all(isinstance(x, (int, float)) for x in v),
        "std": lambda v: all(isinstance(x, (int, float)) and x > 0 for x in v),
        "size": lambda v: len(v) == 2 and all(isinstance(x, int) and x > 0 for x in v),
    }
    found = {}
    for key, valid in checks.items():
        if key in metadata:
            try:
                value = json.loads(metadata[key])
            except (ValueError, RecursionError):
                value = None
            if not isinstance(value, list) or not valid(value):
                raise CheckpointError(f"{path}: the metadata {key!r} is not a proper JSON list: {metadata[key][:80]!r}")
            found[key] = tuple(value)
    return found


def _build(
    architecture: str,
    tensors: Mapping[str, np.ndarray],
    name: str,
    *,
    class_names: Sequence[str] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    stored: Mapping[str, Any],
    known: Weights | None = None,
) -> Model:
    entry = _registry.architecture(architecture)
    make, first, last = _FAMILIES[entry.family]
    # The two ends may differ from torchvision's; their sizes are read from the file, and everything else must fit.
    head, stem = np.shape(tensors.get(f"{last}.weight", 0)), np.shape(tensors.get(f"{first}.weight", 0))
    classes = head[0] if len(head) == 2 else 1000
    channels = stem[1] if len(stem) == 4 else 3
    absent = _ABSENT if known is not None and known.classes is None else None
    graphdef, state = _checkpoint.to_state(
        lambda: make(**entry.arguments, num_classes=classes, in_channels=channels),
        tensors,
        absent=absent,
    )
    class_names = tuple(stored.get("class_names", ()) if class_names is None else class_names)
    if class_names and len(class_names) != classes:
        raise ArgumentError(f"Expected {classes} class names, one for each class of the weights; got {len(class_names)}.")
    if not all(isinstance(c, str) for c in class_names):
        raise ArgumentError("Expected class names as strings.")
    if channels == 3:
        defaults = {"mean": _registry.IMAGENET_MEAN, "std": _registry.IMAGENET_STD}
    else:
        defaults = {"mean": (0.0,) * channels, "std": (1.0,) * channels}
    values = {**defaults, **stored}
    m, s = preprocessing(values["mean"] if mean is None else mean, values["std"] if std is None else std)
    if m.shape != (channels,):
        raise ArgumentError(f"Expected mean and std of {channels} channels, as the weights have; got {m.shape[0]}.")
    network = Network(state, m, s, graphdef, tuple(values.get("size", (224, 224))))
    return Model(network, name, class_names)


class Bar:
    """What to call with the bytes received: nothing, the user's function, or a progress bar on stderr."""

    def __init__(self, title: str, progress: Progress):
        self._title, self._progress = title, progress
        self._bar: Any = None

    def __enter__(self) -> _download.Progress | None:
        if self._progress is True:
            return self._update
        return self._progress if callable(self._progress) else None

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _update(self, done: int, total: int | None) -> None:
        if self._bar is None:  # only now: nothing is shown for weights that are in the cache
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(file=sys.stderr))
            self._task = self._bar.add_task(self._title)
            self._bar.start()
        self._bar.update(self._task, completed=done, total=total)
