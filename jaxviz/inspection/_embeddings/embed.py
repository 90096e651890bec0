"""Embed a folder of images: stream it through a network and keep a vector of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, TypeAlias, Unpack, get_args, overload

from jaxviz._errors import ArgumentError
from jaxviz._fingerprint import model_digests
from jaxviz._pytree import pytree
from jaxviz._types import Array, StrPath
from jaxviz.engine import RunOptions
from jaxviz.image import Size
from jaxviz.inspection._embeddings.embeddings import Embeddings
from jaxviz.inspection._embeddings.store import Memory, Parts
from jaxviz.inspection._image_source import ImageInput, Labels, image_source
from jaxviz.inspection._stream import stream
from jaxviz.models import Model
from jaxviz.models._taps import activations, nodes

Pool: TypeAlias = Literal["mean", "max", "flatten", "centre"]


@overload
def embed(
    model: Model,
    images: ImageInput,
    layer: str,
    *,
    pool: Pool = "mean",
    size: Size | None = None,
    batch: int = 64,
    labels: Labels = None,
    out: StrPath | None = None,
    overwrite: bool = False,
    **run: Unpack[RunOptions],
) -> Embeddings: ...
@overload
def embed(
    model: Model,
    images: ImageInput,
    layer: Sequence[str],
    *,
    pool: Pool = "mean",
    size: Size | None = None,
    batch: int = 64,
    labels: Labels = None,
    out: StrPath | None = None,
    overwrite: bool = False,
    **run: Unpack[RunOptions],
) -> dict[str, Embeddings]: ...


def embed(
    model: Model,
    images: ImageInput,
    layer: str | Sequence[str],
    *,
    pool: Pool = "mean",
    size: Size | None = None,
    batch: int = 64,
    labels: Labels = None,
    out: StrPath | None = None,
    overwrite: bool = False,
    **run: Unpack[RunOptions],
) -> Embeddings | dict[str, Embeddings]:
    """Return what a layer makes of many images, a vector each.

    A batch of images at a time is in memory, whatever their number; files that cannot be read are listed in `skipped`.

    Args:
        model: the network.
        images: folders, with all that is in them, and files; or an array, float (N, H, W, C) in [0, 1].
        layer: a layer, or several, for which the folder is read only once.
        pool: what becomes of positions: their "mean" or "max", the one in the "centre", or "flatten" keeps all of them.
        size: (H, W) or one int to which files are scaled and cut; the network's own unless given.
        batch: images in memory at a time.
        labels: instead of the name of each file's folder, a class for each such name, `{"n01440764": "tench"}`; of an array,
            one for each image.
        out: a folder for the vectors, which are then memory maps: a run that was stopped in any way, even killed, goes on
            where it was, also with more images. One `.npz` for each layer, which `Embeddings.load` reads.
        overwrite: start anew, whatever run `out` holds.
        run: devices, chunk, precision, progress, see `RunOptions`.

    Returns:
        `Embeddings`, or a dict of one for each layer if several were asked for.

    Raises:
        ArgumentError: wrong images, an unknown pooling, or another number of labels than images.
        LayerError: the network has no such layer.
        ImageError: there are no files, or none that can be read.
        SaveError: `out` holds a run of other settings, or something else, or cannot be written.

    >>> from jaxviz.models import from_function
    >>> embed(from_function(lambda images: images.mean((1, 2))), np.ones((2, 8, 8, 3), np.float32), "output").vectors.shape
    (2, 3)
    """
    names = (layer,) if isinstance(layer, str) else tuple(dict.fromkeys(layer))
    if pool not in get_args(Pool) or not names:
        raise ArgumentError(f"Expected a layer and a pooling of {', '.join(get_args(Pool))}; got {names} and {pool!r}.")
    if batch != int(batch) or batch < 1:
        raise ArgumentError(f"batch must be a whole number of at least 1; got {batch!r}.")
    for name in names:
        model.resolve(name)
    source = image_source(model, images, size, labels=labels, out=out)
    program = _Embed(model.bare(), names, pool)
    _check_shapes(model, names, source.size)
    settings = {"model": model.name, "layer": "", "pool": pool, "size": list(source.size)}
    precision = run.setdefault("precision", "highest")
    if out is None:
        store: Memory | Parts = Memory(names)
    else:
        identity = {
            **model_digests(model),
            "layers": list(names),
            **{key: settings[key] for key in ("pool", "size")},
            "precision": precision,
        }
        store = Parts(out, "embed", identity, names, overwrite=overwrite)
    with store:
        skipped = stream(source, store, batch, program, lambda part, rows: part.images[rows], run)
        made = store.finish(source.keys, source.labels, settings, skipped)
    return made[layer] if isinstance(layer, str) else made


@pytree
@dataclasses.dataclass(frozen=True)
class _Embed:
    """The vectors of images (n, H, W, C) at some layers, float32 (n, D) each."""

    model: Model
    layers: tuple[str, ...] = dataclasses.field(metadata=dict(static=True))
    pool: Pool = dataclasses.field(metadata=dict(static=True))

    def __call__(self, images: Array) -> dict[str, Array]:
        return {name: pooled(value, self.pool) for name, value in activations(self.model, images, self.layers).items()}


def pooled(value: Array, pool: Pool) -> Array:
    """Return activations (n, h, w, C), or (n, C), as vectors (n, D)."""
    if value.ndim == 2:
        return value
    if pool == "flatten":
        return value.reshape(len(value), -1)
    if pool == "centre":
        return value[:, value.shape[1] // 2, value.shape[2] // 2]
    return value.mean((1, 2)) if pool == "mean" else value.max((1, 2))


def _check_shapes(model: Model, names: Sequence[str], size: tuple[int, int]) -> None:
    shapes = {node.name: node.shape for node in nodes(model, size)}
    for name in names:
        shape = shapes[model.resolve(name)]
        if len(shape) not in (1, 3):
            raise ArgumentError(f"Expected a layer of shape (h, w, C) or (C,); {name!r} has {shape}.")
