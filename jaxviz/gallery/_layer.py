"""A layer of the site: its units rendered, measured and compared, its pictures and photos written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jaxviz import engine
from jaxviz._fingerprint import digest
from jaxviz._types import StrPath
from jaxviz._visualize.visualize import visualize
from jaxviz.gallery._photos import copy_photos, examples_of, histogram_of, kinds_of, roots
from jaxviz.gallery._pictures import write_pictures
from jaxviz.gallery._plan import Wanted, field_in_words
from jaxviz.gallery._record import WORK
from jaxviz.gallery._similarity import (
    PROFILE,
    likeness_of_examples,
    likeness_of_responses,
    most_similar,
    responses,
    side_by_side,
)
from jaxviz.gallery._site import Layer, Unit
from jaxviz.inspection import TopExamples, top_examples
from jaxviz.models import Model
from jaxviz.result import Result

Report = Callable[[str, engine.Progress], None]


@dataclass(frozen=True)
class Photos:
    """What the examples tell.

    Attributes:
        tops: of each layer, by its node; empty without examples.
        folders: that were given.
        files: that were read, and what class each is of.
        kinds: as long as `files`.
        skipped: how many files were no images.
    """

    tops: Mapping[str, TopExamples]
    folders: Sequence[Path] = ()
    files: Sequence[str] = ()
    kinds: Sequence[str] = ()
    skipped: int = 0


@dataclass(frozen=True)
class Work:
    """What all layers of a site are made with."""

    model: Model
    out: Path
    size: tuple[int, int]
    k: int
    similar: int
    negative: bool
    options: Mapping[str, Any]  # of visualize
    run: Mapping[str, Any]  # of the engine
    progress: Report | None

    def photos(
        self, paths: StrPath | Sequence[StrPath] | None, wanted: Sequence[Wanted], names: Mapping[str, str] | None
    ) -> Photos:
        """Look at all examples once, for all layers."""
        if paths is None:
            return Photos({})
        nodes = sorted(one.row.name for one in wanted)
        folder = self.out / WORK / f"photos-{digest(nodes)[:12]}"  # with other layers they are looked at anew
        tops = top_examples(
            self.model,
            paths,
            nodes,
            k=max(self.k, PROFILE),
            size=self.size,
            out=folder,
            progress=self._tell("photos"),
            **self.run,
        )
        first, folders = tops[nodes[0]], roots(paths)
        kinds = kinds_of(first.files, folders, self.model.class_names, names)
        return Photos(tops, folders, first.files, kinds, len(first.skipped))

    def layer(self, one: Wanted, photos: Photos) -> tuple[Layer, Result]:
        """Return a layer of the site, with all of its pictures in their places."""
        render = partial(visualize, self.model, progress=self._tell(one.name), **self.options)
        result = render(one.objective, out=self.out / WORK / one.slug)
        layer = self._measured(one, result, photos)
        folder = self.out / "layers" / one.slug
        write_pictures(result, layer, folder)
        if self.negative:
            opposite = render(-one.objective, out=self.out / WORK / f"{one.slug}-negative")
            write_pictures(opposite, layer, folder, negative=True)
        numbers = {example.photo for unit in layer.units for example in unit.examples}
        copy_photos(numbers, photos.files, self.size, self.out / "photos")
        return layer, result

    def _measured(self, one: Wanted, result: Result, photos: Photos) -> Layer:
        peaks = responses(self.model, one.row.name, result, one.units, **self.run)
        top = photos.tops.get(one.row.name)
        likeness = likeness_of_responses(peaks) if top is None else likeness_of_examples(top, one.units)
        near, places = most_similar(likeness, self.similar), side_by_side(likeness)
        units = tuple(
            Unit(
                number=number,
                name=one.classes[number] if one.classes else "",
                scores=tuple(map(float, result.scores[row])),
                peaks=tuple(map(float, peaks[row, :, row])),
                diagnosis=tuple(map(str, result.diagnosis[row])),
                examples=() if top is None else examples_of(top, number, self.k, photos.kinds, photos.folders),
                histogram=None if top is None else histogram_of(top, number),
                similar=tuple((int(one.units[i]), float(likeness[row, i])) for i in near[row] if likeness[row, i] > 0),
                place=int(places[row]),
            )
            for row, number in enumerate(map(int, one.units))
        )
        words, extent = field_in_words(one.row.receptive_field, self.size)
        return Layer(one.name, one.slug, one.row.kind, one.row.shape, words, extent, units, one.row.channels)

    def _tell(self, what: str) -> Callable[[engine.Progress], None] | None:
        return partial(self.progress, what) if self.progress else None
