"""One activation vector per image, from a random position: the data of an activation atlas."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._fingerprint import model_digests
from jaxviz._image_files import Skipped
from jaxviz._pytree import pytree
from jaxviz._types import Array, ArrayLike, StrPath
from jaxviz.engine import RunOptions
from jaxviz.engine._options import FULL_PRECISION
from jaxviz.image import Size
from jaxviz.inspection._embeddings.store import Memory, Parts
from jaxviz.inspection._image_source import ImageInput, ImagePart, image_source, reading_chunk
from jaxviz.inspection._stream import stream
from jaxviz.models import Model
from jaxviz.models._network import Network
from jaxviz.models._taps import activations

OUTPUT = "output"  # the name under which logits are stored


@dataclasses.dataclass(frozen=True, eq=False)
class ActivationSamples:
    """Activation vectors of N images, each at one random position, and the logits of the images.

    Attributes:
        layer: name of the layer.
        vectors: float32 (N, C); a memory map if stored in a folder.
        logits: float32 (N, classes).
        files: N file names, or row numbers for an array.
        size: (height, width) of the images.
        skipped: files that could not be read, with the reason.
    """

    layer: str
    vectors: np.ndarray
    logits: np.ndarray
    files: tuple[str, ...]
    size: tuple[int, int]
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.vectors)


class _Items(TypedDict):
    """Images (n, H, W, C), and the number (n,) from which each image's position is drawn."""

    images: ArrayLike
    number: ArrayLike


@pytree
@dataclasses.dataclass(frozen=True)
class _Sample:
    """Program: vectors at one position of each image, and logits."""

    network: Network
    seed: Array  # int32 ()
    layer: str = dataclasses.field(metadata=dict(static=True))

    def __call__(self, items: _Items) -> dict[str, Array]:
        outputs = activations(self.network, items["images"], (self.layer, OUTPUT))
        values, logits = outputs[self.layer], outputs[OUTPUT]

        def position(number: Array) -> tuple[Array, Array]:
            keys = jax.random.split(jax.random.fold_in(jax.random.key(self.seed), number))
            # Border positions see more padding than image; they are left out if there are others.
            edges = [int(length > 2) for length in values.shape[1:3]]
            y, x = (
                jax.random.randint(key, (), edge, length - edge)
                for key, edge, length in zip(keys, edges, values.shape[1:3], strict=True)
            )
            return y, x

        ys, xs = jax.vmap(position)(jnp.asarray(items["number"]))
        return {self.layer: values[jnp.arange(len(values)), ys, xs], OUTPUT: logits.reshape(len(logits), -1)}


def sample_activations(
    model: Model,
    images: ImageInput,
    layer: str,
    *,
    size: Size | None = None,
    seed: int = 0,
    out: StrPath | None = None,
    overwrite: bool = False,
    **run: Unpack[RunOptions],
) -> ActivationSamples:
    """Return the activations of a layer at one random position of each image.

    The position depends only on the seed and the file name (or the row number in an array). Border positions are left out
    (Carter et al., 2019). Memory does not grow with the number of images.

    Args:
        model: the network.
        images: folders with everything in them, files, or an array, float32 (N, H, W, C) in [0, 1].
        layer: a layer with positions.
        size: (H, W) or one int to which files are scaled and cropped; the network's input size by default.
        seed: of the positions.
        out: a folder for the results. An interrupted or killed run continues there, also with more images.
        overwrite: replace any run in `out`.
        **run: see `RunOptions`; `chunk` is the number of images read and computed at a time, 64 by default.

    Raises:
        ArgumentError: unsuitable images, or a layer without positions.
        LayerError: an unknown layer.
        ImageError: no files, or none that can be read.
        SaveError: `out` holds another run or other files, or cannot be written.

    >>> sample_activations(model, images, "layer4").vectors.shape
    (2, 512)
    """
    reading_chunk(run.get("chunk"))
    source = image_source(model, images, size, out=out)
    shape = model.layers(source.size)[layer].shape
    if len(shape) != 3 or model.resolve(layer) == model.resolve(OUTPUT):
        raise ArgumentError(f"Layer {layer!r} has no positions (shape {shape}): take one in front of the pooling.")
    names = (layer, OUTPUT)
    precision = run.setdefault("precision", FULL_PRECISION)
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
    program = _Sample(model.network, jnp.asarray(seed, jnp.int32), layer)

    def items(part: ImagePart, rows: np.ndarray) -> _Items:
        return {"images": part.images[rows], "number": numbers[np.asarray(part.rows)[rows]]}

    with store:
        skipped = stream(source, store, program, items, run)
        settings = {"model": model.name, "size": list(source.size)}
        embeddings = store.finish(source.keys, source.labels, settings, skipped)
    vectors = embeddings[layer]
    return ActivationSamples(layer, vectors.vectors, embeddings[OUTPUT].vectors, vectors.files, source.size, tuple(skipped))


def _numbers(keys: Sequence[str], are_files: bool) -> np.ndarray:
    """Return the number from which each position is drawn, uint32 (N,): a checksum of the file name, or of the row number."""
    words = [Path(key).name if are_files else key for key in keys]
    return np.array([zlib.crc32(word.encode(errors="surrogateescape")) for word in words], np.uint32)
