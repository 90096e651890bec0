"""Run a program on the images that a store lacks, a chunk at a time, and store the outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxviz import engine
from jaxviz._image_files import Skipped
from jaxviz.engine import RunOptions
from jaxviz.engine._progress import Clock
from jaxviz.inspection._embeddings.store import Memory, Parts
from jaxviz.inspection._image_source import ImagePart, ImageSource, reading_chunk


def stream(
    source: ImageSource,
    store: Memory | Parts,
    program: Callable[[Any], dict[str, Any]],
    items: Callable[[ImagePart, np.ndarray], Any],
    run: RunOptions,
) -> list[Skipped]:
    """Compute and store what an open store lacks; return the files that could not be read.

    Args:
        source: the images.
        store: receives the outputs of the program.
        program: maps items to a dict of vectors (n, D).
        items: called with a part and row numbers in it; returns the program's input for these rows.
        run: see `RunOptions`; `chunk` images are read and computed at a time, 64 by default. Progress counts all images,
            including those in the store.

    Raises:
        ArgumentError: a chunk below 1.
        ImageError: no image could be read, in this run or an earlier one.
        SaveError: the store cannot be written.
    """
    run = run.copy()
    chunk = reading_chunk(run.get("chunk"))
    skipped = list(source.skipped)
    missing = [row for row, key in enumerate(source.keys) if not store.has(key, source.stamp(row))]
    clock = Clock(len(source.keys), 1, 1, run.pop("progress", None))
    if missing:
        store.require_writable()  # fail before computing, not at the first write
    done, is_compiled = len(source.keys) - len(missing), False
    for part in source.read(missing, chunk):
        skipped += part.skipped
        count = len(part.rows)
        if count:
            # Repeat an image to fill the last chunk: a smaller one would compile another program.
            rows = np.minimum(np.arange(chunk if is_compiled else count), count - 1)
            outputs = engine.map_images(program, items(part, rows), **run)
            keys, stamps = [source.keys[row] for row in part.rows], [source.stamp(row) for row in part.rows]
            store.add(keys, stamps, {name: vectors[:count] for name, vectors in outputs.items()})
            is_compiled = True
        read = count + len(part.skipped)
        clock.tick(done, read, len(source.keys) - done - read, 1)
        done += read
    if not len(store):
        raise source.no_image_error(skipped)
    return skipped
