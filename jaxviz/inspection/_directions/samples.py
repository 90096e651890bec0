"""One activation vector of each of many images, from a random place: what an activation atlas is made of."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._fingerprint import model_digests
from jaxviz._image_files import Skipped
from jaxviz._pytree import pytree
from jaxviz._types import Array, StrPath
from jaxviz.engine import RunOptions
from jaxviz.image import Size
from jaxviz.inspection._embeddings.store import Memory, Parts
from jaxviz.inspection._image_source import ImageInput, ImagePart, image_source
from jaxviz.inspection._stream import stream
from jaxviz.models import Model, activations

OUTPUT = "output"  # under which the logits are kept


@dataclasses.dataclass(frozen=True, eq=False)
class ActivationSamples:
    """An activation vector of each of N images, at one place that was drawn for it, and what the network said of the image.

    Attributes:
        layer: its name.
        vectors: float32 (N, C); a memory map where they were kept in a folder.
        logits: float32 (N, classes).
        files: N names of files, or numbers of images that were given as an array.
        size: (height, width) of the images.
        skipped: files that could not be read, and why.
    """

    layer: str
    vectors: np.ndarray
    logits: np.ndarray
    files: tuple[str, ...]
    size: tuple[int, int]
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.vectors)


@pytree
@dataclasses.dataclass(frozen=True)
class _Sample:
    """The vectors at one place of each image, and the logits: a program of the engine."""

    model: Model
    seed: Array  # int32 ()
    layer: str = dataclasses.field(metadata=dict(static=True))

    def __call__(self, items: dict[str, Array]) -> dict[str, Array]:
        found = activations(self.model, items["images"], (self.layer, OUTPUT))
        act = found[self.layer]

        def place(number: Array) -> tuple[Array, Array]:
            keys = jax.random.split(jax.random.fold_in(jax.random.key(self.seed), number))
            # The outermost positions see padding more than the image, so they are left out where there are others.
            edges = [int(length > 2) for length in act.shape[1:3]]
            y, x = (
                jax.random.randint(key, (), edge, length - edge)
                for key, edge, length in zip(keys, edges, act.shape[1:3], strict=True)
            )
            return y, x

        ys, xs = jax.vmap(place)(items["number"])
        logits = found[OUTPUT]
        return {self.layer: act[jnp.arange(len(act)), ys, xs], OUTPUT: logits.reshape(len(logits), -1)}


def sample_activations(
    model: Model,
    images: ImageInput,
    layer: str,
    *,
    size: Size | None = None,
    batch: int = 64,
    seed: int = 0,
    out: StrPath | None = None,
    overwrite: bool = False,
    **run: Unpack[RunOptions],
) -> ActivationSamples:
    """Draw one position of a layer for each of many images, and return the activations there.

    A batch of images at a time is in memory. The position comes from the seed and the image's file name (its number, of an
    array), so neither other images nor the batch change it; positions at the border are left out (Carter et al., 2019).

    Args:
        model: a network with positions in the layer.
        images: folders, with all that is in them, and files; or an array, float (N, H, W, C) in [0, 1].
        layer: a node or module.
        size: (H, W) or one int to which files are scaled and cut; the network's own unless given.
        batch: images in memory at a time.
        seed: another one draws other positions.
        out: a folder that keeps what is finished: stopped in any way, the same call goes on, also with more images.
        overwrite: remove a run of other settings from `out`.
        **run: devices, chunk, precision, progress, see `jaxviz.engine.RunOptions`.

    Raises:
        ArgumentError: wrong images, or a layer without positions.
        LayerError: a layer that is not there.
        ImageError: there are no files, or none that can be read.
        SaveError: `out` holds a run of other settings, or something else, or cannot be written.

    >>> sample_activations(model, images, "layer4").vectors.shape
    (2, 512)
    """
    if batch != int(batch) or batch < 1:
        raise ArgumentError(f"batch must be a whole number of at least 1; got {batch!r}.")
    source = image_source(model, images, size, out=out)
    shape = model.layers(source.size)[layer].shape
    if len(shape) != 3 or model.resolve(layer) == model.resolve(OUTPUT):
        raise ArgumentError(f"Layer {layer!r} has no positions (shape {shape}): take one in front of the pooling.")
    names = (layer, OUTPUT)
    precision = run.setdefault("precision", "highest")
    store: Memory | Parts = Memory(names)
    if out is not None:
        identity = {
            **model_digests(model),
            "layers": list(names),
            "one position, seed": seed,
            "size": list(source.size),
            "precision": precision,
        }
        store = Parts(out, "sample activations", identity, names, overwrite=overwrite)
    numbers = _numbers(source.keys, source.array is None)
    program = _Sample(model.bare(), jnp.asarray(seed, jnp.int32), layer)

    def items(part: ImagePart, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"images": part.images[rows], "number": numbers[np.asarray(part.rows)[rows]]}

    with store:
        skipped = stream(source, store, batch, program, items, run)
        made = store.finish(source.keys, source.labels, {"model": model.name, "size": list(source.size)}, skipped)
    files = made[layer].files
    return ActivationSamples(layer, made[layer].vectors, made[OUTPUT].vectors, files, source.size, tuple(skipped))


def _numbers(keys: Sequence[str], are_files: bool) -> np.ndarray:
    """Return what each image's position is drawn by, uint32 (N,): a checksum of the file's name, or the image's number."""
    words = [Path(key).name if are_files else key for key in keys]
    return np.array([zlib.crc32(word.encode(errors="surrogateescape")) for word in words], np.uint32)
