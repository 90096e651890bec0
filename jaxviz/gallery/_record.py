"""The folder of a gallery: its settings, its layers, and whether a call may continue it."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxviz._errors import SaveError
from jaxviz._result_files import ADVICE
from jaxviz._run_folder import RunFolder, RunKind

WORK = "work"
FILES = ("index.html", "search.js")
# Their names are those of other sites too, so `overwrite` replaces galleries only.
KIND = RunKind("gallery", 1, dict.fromkeys(("assets", "layers", "photos", WORK), ".*"), replaces_unknown=False)


@contextmanager
def gallery_folder(
    folder: Path, settings: Mapping[str, Any], layers: Mapping[str, Sequence[int]], *, overwrite: bool
) -> Generator[bool, None, None]:
    """Hold a folder for a gallery of these settings; give whether there is anything to do.

    There is always: pages are written again. But a finished gallery on a disk that cannot be written is left as it is.

    Args:
        folder: made where it is missing.
        settings: all that decides what the site shows of a layer.
        layers: the units of each layer, by its folder's name. A gallery may get more layers; those that it has must be
            among them.
        overwrite: remove the gallery that is there.

    Raises:
        SaveError: the folder cannot be written, is in use, or holds a gallery of other settings, or files of others.
    """
    with RunFolder(folder, KIND, settings, FILES, overwrite=overwrite) as run:
        about = {"layers": {name: list(units) for name, units in layers.items()}}
        _check_layers(run, layers)
        if not run.is_writable and run.previous == {**(run.previous or {}), **about, "finished": True}:
            yield False
            return
        run.update({**about, "finished": False})
        yield True
        run.update({**about, "finished": True})


def _check_layers(run: RunFolder, layers: Mapping[str, Sequence[int]]) -> None:
    shown = (run.previous or {}).get("layers")
    for layer, units in (shown if isinstance(shown, dict) else {}).items():
        if layer not in layers:
            raise SaveError(f"The gallery in '{run.path}' has the layer '{layer}', too: name it as well, or {ADVICE}.")
        if units != list(layers[layer]):
            raise SaveError(f"The gallery in '{run.path}' has other units of '{layer}': {ADVICE}.")
