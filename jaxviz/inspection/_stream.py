"""Run a program on the images that a store does not have yet, a batch at a time, and keep what it gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxviz import engine
from jaxviz._image_files import Skipped
from jaxviz.engine import RunOptions
from jaxviz.engine._progress import Clock
from jaxviz.inspection._embeddings.store import Memory, Parts
from jaxviz.inspection._image_source import ImagePart, ImageSource


def stream(
    source: ImageSource,
    store: Memory | Parts,
    batch: int,
    program: Callable[[Any], dict[str, Any]],
    items: Callable[[ImagePart, np.ndarray], Any],
    run: RunOptions,
) -> list[Skipped]:
    """Add to an open store what the program makes of the images that it lacks, and return the files that could not be read.

    Args:
        source: the images.
        store: where each image's vectors go, by the names that the program gives them.
        batch: images in memory at a time.
        program: of `engine.map_images`.
        items: what it takes, of some rows of a part of the images.
        run: see `jaxviz.engine.RunOptions`; progress counts images, also those that were there.

    Raises:
        ImageError: no image could be read, now or before.
        SaveError: the store cannot be written.
    """
    run = run.copy()
    skipped = list(source.skipped)
    rest = [i for i, key in enumerate(source.keys) if not store.has(key, source.stamp(i))]
    clock = Clock(len(source.keys), 1, 1, run.pop("progress", None))
    if rest:
        store.require_writable()  # now, and not when the first vectors are written
    done, full = len(source.keys) - len(rest), False
    for part in source.read(rest, batch):
        skipped += part.skipped
        count = len(part.rows)
        if count:
            # The last images fill a batch by repeating one, instead of compiling another program.
            rows = np.minimum(np.arange(batch if full else count), count - 1)
            found = engine.map_images(program, items(part, rows), **run)
            keys, stamps = [source.keys[i] for i in part.rows], [source.stamp(i) for i in part.rows]
            store.add(keys, stamps, {name: vectors[:count] for name, vectors in found.items()})
            full = True
        seen = count + len(part.skipped)
        clock.tick(done, seen, len(source.keys) - done - seen, 1)
        done += seen
    if not len(store):
        raise source.no_image_error(skipped)
    return skipped
