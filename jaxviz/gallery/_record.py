"""The folder of a gallery: whose it is, what it may hold, and whether a call may go on with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxviz import engine
from jaxviz._atomic import names_in, write_atomically
from jaxviz._errors import SaveError
from jaxviz._result_files import ADVICE, failures, read_json, versions

FORMAT = 1
RECORD, WORK = "gallery.json", "work"
OURS = ("index.html", "search.js", "assets", "layers", "photos", WORK, RECORD)  # the record is removed last


def open_folder(folder: Path, identity: Mapping[str, Any], units: Mapping[str, Sequence[int]], *, overwrite: bool) -> None:
    """Make a folder ready for a gallery of these settings, or refuse it.

    Args:
        folder: made where it is missing.
        identity: all that decides what the site shows of a layer, as JSON.
        units: of each layer, by its folder's name. A gallery may get more layers; those that it has must be named, too.
        overwrite: remove the gallery that is there.

    Raises:
        SaveError: the folder cannot be written, or holds a gallery of other settings, or files that are none.
    """
    record = json.loads(json.dumps({"format": FORMAT, "identity": identity, "units": units}))
    with failures(folder):
        found = read_json(folder / RECORD)
        found = found if isinstance(found, dict) else None
        if found is None and (taken := [name for name in OURS if name in names_in(folder)]):
            raise SaveError(f"The folder '{folder}' holds files that are no gallery's ('{taken[0]}'): choose another.")
        if found is not None and overwrite:
            for name in OURS:
                _remove(folder / name)
        elif found is not None:
            _check(folder, found, record)
        record["versions"] = versions()
        write_atomically(folder / RECORD, lambda file: file.write(json.dumps(record, indent=1).encode()), durable=True)


def _check(folder: Path, found: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    named = ("format", "identity")
    different = list(engine.differences({n: found.get(n) for n in named}, {n: record[n] for n in named}))
    if different:
        listed = "; ".join(one.removeprefix("identity.") for one in different[:6]) + ("; ..." if len(different) > 6 else "")
        raise SaveError(f"The folder '{folder}' holds a gallery with other settings ({listed}): {ADVICE}.")
    there, here = found.get("units"), record["units"]
    for layer, units in (there if isinstance(there, dict) else {}).items():
        if layer not in here:
            raise SaveError(f"The gallery in '{folder}' has the layer '{layer}', too: name it as well, or {ADVICE}.")
        if units != here[layer]:
            raise SaveError(f"The gallery in '{folder}' has other units of '{layer}': {ADVICE}.")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
