"""Build one layer of the site: render and measure its units, compare them, write pictures and photos."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

from jaxviz._fingerprint import digest
from jaxviz._types import StrPath
from jaxviz._visualize.options import VisualizeOptions
from jaxviz._visualize.visualize import visualize
from jaxviz.engine import Progress, RunOptions
from jaxviz.gallery._photos import as_paths, classes_of, copy_photos, examples_of, histogram_of
from jaxviz.gallery._pictures import write_pictures
from jaxviz.gallery._plan import PlannedLayer, describe_field
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
from jaxviz.inspection._examples.result import TopExamples
from jaxviz.inspection._examples.top_examples import top_examples
from jaxviz.models import Model
from jaxviz.objectives import Objective
from jaxviz.result import Result

Report: TypeAlias = Callable[[str, Progress], None]


@dataclass(frozen=True)
class Photos:
    """The top-activating photos of all layers.

    Attributes:
        tops: examples by node of the layer; empty without photos.
        folders: the given folders.
        files: paths of the photos.
        classes: class of each photo.
        skipped: number of files that are no images.
    """

    tops: Mapping[str, TopExamples]
    folders: Sequence[Path] = ()
    files: Sequence[str] = ()
    classes: Sequence[str] = ()
    skipped: int = 0


class BuiltLayer(NamedTuple):
    """A layer of the site and the run that rendered it."""

    layer: Layer
    result: Result


@dataclass(frozen=True)
class LayerBuilder:
    """Builds the layers of a site from common settings.

    Attributes:
        options: of `visualize`.
        run: of the engine.
    """

    model: Model
    out: Path
    size: tuple[int, int]
    k: int
    similar: int
    negative: bool
    options: VisualizeOptions
    run: RunOptions
    progress: Report | None

    def photos(
        self,
        paths: StrPath | Sequence[StrPath] | None,
        layers: Sequence[PlannedLayer],
        folder_names: Mapping[str, str] | None,
    ) -> Photos:
        """Find the top-activating photos of all layers in one pass."""
        if paths is None:
            return Photos({})
        nodes = sorted(layer.row.name for layer in layers)
        run: RunOptions = {**self.run, "progress": self._report("photos")}
        tops = top_examples(
            self.model,
            paths,
            nodes,
            k=max(self.k, PROFILE),
            size=self.size,
            out=self.out / WORK / f"photos-{digest(nodes)[:12]}",  # other layers need another pass
            **run,
        )
        first, folders = tops[nodes[0]], as_paths(paths)
        classes = classes_of(first.files, folders, self.model.class_names, folder_names)
        return Photos(tops, folders, first.files, classes, len(first.skipped))

    def build(self, planned: PlannedLayer, photos: Photos) -> BuiltLayer:
        """Render a layer and write its pictures and photos."""
        result = self._render(planned, planned.objective, planned.slug)
        layer = self._describe(planned, result, photos)
        folder = self.out / "layers" / planned.slug
        write_pictures(result, layer, folder)
        if self.negative:
            opposite = self._render(planned, -planned.objective, f"{planned.slug}-negative")
            write_pictures(opposite, layer, folder, negative=True)
        numbers = {example.photo for unit in layer.units for example in unit.examples}
        copy_photos(numbers, photos.files, self.size, self.out / "photos")
        return BuiltLayer(layer, result)

    def _render(self, planned: PlannedLayer, objective: Objective, folder: str) -> Result:
        options: VisualizeOptions = {**self.options, "progress": self._report(planned.name), "out": self.out / WORK / folder}
        return visualize(self.model, objective, **options)

    def _describe(self, planned: PlannedLayer, result: Result, photos: Photos) -> Layer:
        peaks = responses(self.model, planned.row.name, result, planned.units, self.run)
        top = photos.tops.get(planned.row.name)
        likeness = likeness_of_responses(peaks) if top is None else likeness_of_examples(top, planned.units)
        neighbors, places = most_similar(likeness, self.similar), side_by_side(likeness)
        units = tuple(
            Unit(
                number=number,
                name=planned.classes[number] if planned.classes else "",
                scores=tuple(map(float, result.scores[row])),
                peaks=tuple(map(float, peaks[row, :, row])),
                diagnosis=tuple(map(str, result.diagnosis[row])),
                examples=() if top is None else examples_of(top, number, self.k, photos.classes, photos.folders),
                histogram=None if top is None else histogram_of(top, number),
                similar=tuple((int(planned.units[i]), float(likeness[row, i])) for i in neighbors[row] if likeness[row, i] > 0),
                place=int(places[row]),
            )
            for row, number in enumerate(map(int, planned.units))
        )
        field, extent = describe_field(planned.row.receptive_field, self.size)
        row = planned.row
        return Layer(planned.name, planned.slug, row.kind, row.shape, field, extent, units, row.channels)

    def _report(self, what: str) -> Callable[[Progress], None] | None:
        return partial(self.progress, what) if self.progress else None
