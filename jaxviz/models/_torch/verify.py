"""verify(): downloaded weights, loaded here and by torchvision, give the same logits."""

from __future__ import annotations

import dataclasses
import importlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxviz._errors import JaxvizError, UnsupportedError
from jaxviz._types import StrPath
from jaxviz.models._files import download as _download
from jaxviz.models._files.load import Bar, Progress, load
from jaxviz.models._model import Model
from jaxviz.models._zoo import registry as _registry
from jaxviz.models._zoo.registry import Weights


@dataclasses.dataclass(frozen=True)
class Verification:
    """What `verify` found out about one set of weights.

    Attributes:
        name, weights: the arguments of `load`.
        ok: whether everything agrees with torchvision.
        error: greatest difference of the logits (of the last features where there is no classifier), relative to the
            greatest of them; None where it did not get that far.
        seconds: time taken, download included.
        message: what went wrong, or empty.
    """

    name: str
    weights: str
    ok: bool
    error: float | None
    seconds: float
    message: str = ""

    def __str__(self) -> str:
        detail = self.message or f"relative error {self.error:.1e}"
        return f"{'ok  ' if self.ok else 'FAIL'} {self.name} {self.weights}: {detail} ({self.seconds:.1f} s)"


def verify(
    *names: str, cache: StrPath | None = None, progress: Progress = None, tolerance: float = 1e-4
) -> Iterator[Verification]:
    """Download, load and compare weights with torchvision on random images; yields one record for each.

    Args:
        names: networks; all of torchvision's where none is given.
        cache, progress: as of `load`.
        tolerance: greatest relative difference that counts as equal.

    Raises:
        ArgumentError: an unknown network.
        UnsupportedError: torch or torchvision is not installed.
    """
    entries = [_registry.architecture(name) for name in names] or list(_registry.ARCHITECTURES.values())
    try:
        for name in ("torch", "torchvision"):
            importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        raise UnsupportedError(f"Verifying needs torch and torchvision, which cannot be imported: {error}") from error
    return (_verify_one(weights, cache, progress, tolerance) for entry in entries for weights in entry.weights)


def _verify_one(weights: Weights, cache: StrPath | None, progress: Progress, tolerance: float) -> Verification:
    started = time.monotonic()
    error, message = None, ""
    try:
        with Bar(weights.file, progress) as callback:
            tensors, _ = _download.fetch(weights, cache=cache, progress=callback)
        model = load(weights.architecture, weights=weights.name, cache=cache)
        error = compare(model, tensors, features=weights.classes is None)
        if not error <= tolerance:
            message = f"differs from torchvision: relative error {error:.1e}, more than {tolerance:.0e}"
    except JaxvizError as failure:
        message = str(failure)
    return Verification(weights.architecture, weights.name, not message, error, time.monotonic() - started, message)


def compare(model: Model, tensors: Mapping[str, np.ndarray], *, features: bool = False) -> float:
    """Return the greatest difference to torchvision's network with these tensors, relative to the greatest value."""
    import torch
    import torchvision

    network: Any = torchvision.models.get_model(model.name, num_classes=model.num_classes).eval()
    network.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in tensors.items()}, strict=not features)
    images = np.random.default_rng(0).random((2, *model.input_size, 3), np.float32)
    inputs = torch.from_numpy(((images - np.asarray(model.mean)) / np.asarray(model.std)).transpose(0, 3, 1, 2))
    with torch.inference_mode():
        if features:
            theirs = network.features(inputs).numpy().transpose(0, 2, 3, 1)
            ours = np.asarray(model.activations(images, "features")["features"])
        else:
            theirs, ours = network(inputs).numpy(), np.asarray(model(images))
    return float(np.abs(theirs - ours).max() / np.abs(theirs).max())
