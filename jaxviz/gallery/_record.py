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
# Other sites use these names too, so `overwrite` replaces galleries only.
KIND = RunKind("gallery", 1, dict.fromkeys(("assets", "layers", "photos", WORK), ".*"), replaces_unknown=False)


@contextmanager
def gallery_folder(
    folder: Path, settings: Mapping[str, Any], layers: Mapping[str, Sequence[int]], *, overwrite: bool
) -> Generator[bool, None, None]:
    """Open a folder for a gallery of these settings; yield whether there is work to do.

    Pages are always written again, except for a finished gallery on a read-only disk.

    Args:
        folder: created if it does not exist.
        settings: everything that determines what the site shows of a layer.
        layers: units by folder name of the layer. Layers may be added to a gallery, but not left out.
        overwrite: replace a gallery in the folder.

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
