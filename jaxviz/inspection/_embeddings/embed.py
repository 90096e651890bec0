"""Embeddings of many images: stream them through a network and keep one vector of each."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias, Unpack, get_args, overload

from jaxviz._errors import ArgumentError
from jaxviz._fingerprint import model_digests
from jaxviz._pytree import pytree
from jaxviz._types import Array, StrPath
from jaxviz.engine import RunOptions
from jaxviz.engine._options import FULL_PRECISION
from jaxviz.image import Size
from jaxviz.inspection._embeddings.embeddings import Embeddings
from jaxviz.inspection._embeddings.store import Memory, Parts
from jaxviz.inspection._image_source import ImageInput, Labels, image_source, reading_chunk
from jaxviz.inspection._stream import stream
from jaxviz.models import Model
from jaxviz.models._network import Network
from jaxviz.models._taps import activations, nodes

Pool: TypeAlias = Literal["mean", "max", "flatten", "center"]


@overload
def embed(
    model: Model,
    images: ImageInput,
    layer: str,
    *,
    pool: Pool = "mean",
    size: Size | None = None,
    labels: Labels = None,
    out: StrPath | None = None,
    overwrite: bool = False,
    **run: Unpack[RunOptions],
) -> Embeddings: ...
@overload
def embed(
    model: Model,
    images: ImageInput,
    layer: list[str] | tuple[str, ...],
    *,
    pool: Pool = "mean",
    size: Size | None = None,
    labels: Labels = None,
    out: StrPath | None = None,
    overwrite: bool = False,
    **run: Unpack[RunOptions],
) -> dict[str, Embeddings]: ...


def embed(
    model: Model,
    images: ImageInput,
    layer: str | list[str] | tuple[str, ...],
    *,
    pool: Pool = "mean",
    size: Size | None = None,
    labels: Labels = None,
    out: StrPath | None = None,
    overwrite: bool = False,
    **run: Unpack[RunOptions],
) -> Embeddings | dict[str, Embeddings]:
    """Return one vector per image: the pooled activations of a layer.

    Memory does not grow with the number of images. Files that cannot be read are listed in `skipped`.

    Args:
        model: the network.
        images: folders with everything in them, files, or an array, float32 (N, H, W, C) in [0, 1].
        layer: one layer, or several, for which the images are read only once.
        pool: how positions become one vector: their "mean" or "max", the "center" position, or "flatten" to keep all.
        size: (H, W) or one int to which files are scaled and cropped; the network's input size by default.
        labels: for files, the class of each folder name, such as `{"n01440764": "tench"}`, the folder name by default; for an
            array, the class of each image.
        out: a folder for the vectors, which are then memory maps. An interrupted or killed run continues there, also with more
            images. Holds one `.npz` file per layer, which `load_embeddings` reads.
        overwrite: replace any run in `out`.
        **run: see `RunOptions`; `chunk` is the number of images read and computed at a time, 64 by default.

    Returns:
        `Embeddings`, or a dict of them by layer for several layers.

    Raises:
        ArgumentError: unsuitable images, an unknown pooling, no layer, or another number of labels than images.
        LayerError: an unknown layer.
        ImageError: no files, or none that can be read.
        SaveError: `out` holds another run or other files, or cannot be written.

    >>> from jaxviz.models import from_function
    >>> embed(from_function(lambda images: images.mean((1, 2))), np.ones((2, 8, 8, 3), np.float32), "output").vectors.shape
    (2, 3)
    """
    layers = (layer,) if isinstance(layer, str) else tuple(dict.fromkeys(layer))
    if pool not in get_args(Pool) or not layers:
        raise ArgumentError(f"Expected a layer and a pooling of {', '.join(get_args(Pool))}; got {layers} and {pool!r}.")
    reading_chunk(run.get("chunk"))
    for name in layers:
        model.resolve(name)
    source = image_source(model, images, size, labels=labels, out=out)
    program = _Embed(model.network, layers, pool)
    _check_shapes(model, layers, source.size)
    settings = {"model": model.name, "layer": "", "pool": pool, "size": list(source.size)}
    precision = run.setdefault("precision", FULL_PRECISION)
    if out is None:
        store: Memory | Parts = Memory(layers)
    else:
        identity = {
            **model_digests(model),
            "layers": list(layers),
            **{key: settings[key] for key in ("pool", "size")},
            "precision": precision,
        }
        store = Parts(out, "embed", identity, layers, overwrite=overwrite)
    with store:
        skipped = stream(source, store, program, lambda part, rows: part.images[rows], run)
        embeddings = store.finish(source.keys, source.labels, settings, skipped)
    return embeddings[layer] if isinstance(layer, str) else embeddings


@pytree
@dataclasses.dataclass(frozen=True)
class _Embed:
    """Program: images (n, H, W, C) to the vectors of some layers, float32 (n, D) each."""

    network: Network
    layers: tuple[str, ...] = dataclasses.field(metadata=dict(static=True))
    pool: Pool = dataclasses.field(metadata=dict(static=True))

    def __call__(self, images: Array) -> dict[str, Array]:
        return {name: pooled(value, self.pool) for name, value in activations(self.network, images, self.layers).items()}


def pooled(value: Array, pool: Pool) -> Array:
    """Return activations (n, h, w, C) or (n, C) as vectors (n, D)."""
    if value.ndim == 2:
        return value
    if pool == "flatten":
        return value.reshape(len(value), -1)
    if pool == "center":
        return value[:, value.shape[1] // 2, value.shape[2] // 2]
    return value.mean((1, 2)) if pool == "mean" else value.max((1, 2))


def _check_shapes(model: Model, layers: tuple[str, ...], size: tuple[int, int]) -> None:
    shapes = {node.name: node.shape for node in nodes(model.network, size)}
    for name in layers:
        shape = shapes[model.resolve(name)]
        if len(shape) not in (1, 3):
            raise ArgumentError(f"Expected a layer of shape (h, w, C) or (C,); {name!r} has {shape}.")
