"""Attribution of many photos by several methods, one after the other, kept in a folder so that a run can continue."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
from jax.sharding import Mesh

from jaxviz._errors import ArgumentError, ImageError, near_matches
from jaxviz._fingerprint import describe, model_digests
from jaxviz._image_files import Skipped, find_files, read_batches
from jaxviz._types import StrPath
from jaxviz.attribution._album import Album
from jaxviz.attribution._attribute import METHODS, attribute
from jaxviz.attribution._attribution import Attribution
from jaxviz.attribution._pictures import Look
from jaxviz.attribution._target import AsTarget
from jaxviz.engine._options import FULL_PRECISION
from jaxviz.engine._progress import Progress
from jaxviz.image import Size, as_pair
from jaxviz.models import Model

Methods: TypeAlias = str | Sequence[str] | Mapping[str, Mapping[str, Any]]
Report: TypeAlias = Callable[[str, Progress], None]


@dataclass(frozen=True)
class AttributedImage:
    """One photo of `iter_attribute`.

    Attributes:
        path: of the photo.
        attributions: by method, each of this photo alone (N = 1).
        is_new: whether this run computed it; False where it was in the folder already.
    """

    path: Path
    attributions: Mapping[str, Attribution]
    is_new: bool = True


class AttributionRun(Iterator[AttributedImage]):
    """The iterator that `iter_attribute` returns; `close`, `with` or its end let go of the folder.

    Attributes:
        files: all photos, in order.
        kept: how many of them the folder held already.
        finished: how many are finished by now, with those kept.
        skipped: files that could not be read so far, and why.
    """

    def __init__(
        self,
        evaluate: Callable[[np.ndarray], dict[str, Attribution]],
        files: Sequence[Path],
        skipped: Sequence[Skipped],
        album: Album | None,
        batch: int,
        size: tuple[int, int],
        channels: int,
    ) -> None:
        self.files, self.skipped = list(files), list(skipped)
        self._evaluate, self._album = evaluate, album
        self._batch, self._size, self._channels = batch, size, channels
        if album is not None:
            album.__enter__()
        try:
            self._rest = [path for path in self.files if album is None or not album.has(path)]
            if self._rest and album is not None:
                album.require_writable()
        except BaseException:
            self.close()
            raise
        self.kept = self.finished = len(self.files) - len(self._rest)
        self._images = self._iterate()

    def __next__(self) -> AttributedImage:
        return next(self._images)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._images.close()
        self.close()

    def close(self) -> None:
        """Let go of the folder; what is finished is kept."""
        if self._album is not None:
            self._album.__exit__()

    def _iterate(self) -> Generator[AttributedImage, None, None]:
        """Yield the photos in order, those in the folder too."""
        missing, at = set(self._rest), 0
        try:
            for images in self._compute():
                while images:
                    path, at = self.files[at], at + 1
                    if path in images:
                        yield images.pop(path)
                    elif path not in missing:
                        yield self._stored(path)
            for path in self.files[at:]:
                if path not in missing:
                    yield self._stored(path)
            if not self.finished:
                first = f" '{self.skipped[0].path}': {self.skipped[0].reason}" if self.skipped else ""
                raise ImageError(f"None of {len(self.files)} files could be read as an image.{first}")
            if self._album is not None:
                self._album.finish(self.skipped)
        finally:
            self.close()

    def _compute(self) -> Iterator[dict[Path, AttributedImage]]:
        """Yield the photos that are missing, a batch at a time, once they are on the disk."""
        is_compiled = False  # the program of a full batch
        for part in read_batches(self._rest, self._batch, self._size, self._channels):
            self.skipped += part.skipped
            count = len(part.paths)
            if count:
                # The last photos fill a batch by repeating one, instead of compiling another program.
                rows = np.minimum(np.arange(self._batch if is_compiled else count), count - 1)
                attributions = self._evaluate(part.images[rows])
                is_compiled = True
                images: dict[Path, AttributedImage] = {}
                for i, path in enumerate(map(Path, part.paths)):
                    each = {method: attribution[i : i + 1] for method, attribution in attributions.items()}
                    if self._album is not None:
                        self._album.add(path, part.images[i], each)
                    self.finished += 1
                    images[path] = AttributedImage(path, each)
                yield images

    def _stored(self, path: Path) -> AttributedImage:
        assert self._album is not None
        return AttributedImage(path, _Stored(partial(self._album.load, path)), is_new=False)


class _Stored(Mapping[str, Attribution]):
    """The attributions of a photo on disk, read when they are looked at."""

    def __init__(self, load: Callable[[], dict[str, Attribution]]) -> None:
        self._load = load
        self._attributions: dict[str, Attribution] | None = None

    def _get(self) -> dict[str, Attribution]:
        if self._attributions is None:
            self._attributions = self._load()
        return self._attributions

    def __getitem__(self, method: str) -> Attribution:
        return self._get()[method]

    def __iter__(self) -> Iterator[str]:
        return iter(self._get())

    def __len__(self) -> int:
        return len(self._get())


def iter_attribute(
    model: Model,
    photos: StrPath | Sequence[StrPath],
    methods: Methods = "guided_backprop",
    target: AsTarget = None,
    *,
    out: StrPath | None = None,
    size: Size | None = None,
    batch: int = 16,
    look: Look | None = None,
    overwrite: bool = False,
    mesh: Mesh | None = None,
    chunk: int | None = None,
    precision: str = FULL_PRECISION,
    progress: Report | None = None,
) -> AttributionRun:
    """Explain many photos by several methods, and yield each photo as it is finished.

    A batch of photos is in memory at a time, whatever their number. Files that cannot be read are skipped, and listed in the
    iterator's `skipped`.

    Args:
        model: the network.
        photos: folders with all that is in them, and files.
        methods: a name of `METHODS`, several, or a mapping from names to options: `{"smoothgrad": {"samples": 50}}`.
        target: of all photos alike, as for `attribute`; the top class of each by default.
        out: a folder that keeps each finished photo at once: its maps, pictures of them, in the end an index and a contact
            sheet. Stopped in any way, even killed, the same call continues, also with more photos; those finished before are
            yielded too, in their place.
        size: (H, W) or one int to which photos are scaled and cut; the network's own by default.
        batch: photos in memory at a time.
        look: how the pictures in `out` are drawn.
        overwrite: start again, whatever run `out` holds.
        mesh: the devices to use; all by default.
        chunk: evaluations of the network at a time; chosen for the machine by default.
        precision: of convolutions and products, see `RunOptions`.
        progress: called with a method's name and its `Progress` on the batch.

    Returns:
        An iterator of `AttributedImage` that holds `out` until it ends or is closed.

    Raises:
        ArgumentError: an unknown method or option, or a wrong batch or size.
        ImageError: there are no files, or none that can be read.
        SaveError: `out` cannot be written, is in use, or holds another run.

    >>> _ = jv.image.save("photo.png", images[0])
    >>> for image in jv.attribution.iter_attribute(model, "photo.png", ["saliency", "grad_cam"], out="maps"):
    ...     print(image.path.name, image.attributions["grad_cam"].maps.ndim)
    photo.png 3
    """
    options = _method_options(methods)
    if batch != int(batch) or batch < 1:
        raise ArgumentError(f"batch must be a whole number of at least 1; got {batch!r}.")
    pixels = model.input_size if size is None else as_pair(size)
    paths, skipped = find_files(photos, out)
    if not paths:
        raise ImageError(f"'{skipped[0].path}': {skipped[0].reason}" if skipped else "There are no files in what was given.")
    settings = {
        **model_digests(model),
        "methods": {name: describe(default_options(name) | own) for name, own in options.items()},
        "target": describe(target),
        "size": pixels,
        "precision": precision,
    }
    album = None if out is None else Album(out, settings, look or {}, overwrite=overwrite)

    def evaluate(images: np.ndarray) -> dict[str, Attribution]:
        run: dict[str, Any] = {"mesh": mesh, "chunk": chunk, "precision": precision}
        reports = {name: None if progress is None else partial(progress, name) for name in options}
        return {
            name: attribute(model, images, name, target, **own, **run, progress=reports[name]) for name, own in options.items()
        }

    files = [path.absolute() for path in paths]
    return AttributionRun(evaluate, files, skipped, album, int(batch), pixels, model.in_channels)


def default_options(method: str) -> dict[str, Any]:
    """Return the options of a method with their defaults, `inspect.Parameter.empty` where there is none."""
    parameters = list(inspect.signature(METHODS[method]).parameters.values())[3:]  # after the model, the images, the target
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind in kinds}


def _method_options(methods: Methods) -> dict[str, dict[str, Any]]:
    """Return the options of each method.

    Raises:
        ArgumentError: no method, or an unknown method or option.
    """
    names = [methods] if isinstance(methods, str) else list(methods)
    if not names:
        raise ArgumentError("Expected at least one method; got none.")
    options = {name: dict(methods[name]) if isinstance(methods, Mapping) else {} for name in names}
    for name, own in options.items():
        if name not in METHODS:
            raise ArgumentError(f"There is no method {name!r}.{near_matches(name, METHODS)} Known are {', '.join(METHODS)}.")
        known = default_options(name)
        for option in own:
            if option not in known:
                near = near_matches(option, known)
                raise ArgumentError(f"{name} has no option {option!r}.{near} It takes {', '.join(known) or 'none'}.")
    return options
