"""The content of a gallery as plain data: site, layers, units, examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from jaxviz._file_names import FileNames

NO_CLASS = ""  # label of a photo outside of class folders

Place: TypeAlias = tuple[float, float]
Box: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True)
class Example:
    """A photo that excites a unit.

    Attributes:
        photo: number of the photo, which names the site's copy.
        file: path in the folder of examples.
        label: name of its class, or `NO_CLASS`.
        score: maximum of the unit's map in the photo.
        place: center (y, x) of the receptive field, as shares of the photo's height and width.
        box: top, left, bottom and right of the receptive field, as shares, clipped to the photo; None if it covers most of it.
    """

    photo: int
    file: str
    label: str
    score: float
    place: Place | None = None
    box: Box | None = None


@dataclass(frozen=True)
class Histogram:
    """Photos by the activation of a unit: counts of B equal bins from `low` to `high`."""

    counts: tuple[int, ...]
    low: float
    high: float


@dataclass(frozen=True)
class Unit:
    """One unit.

    Attributes:
        number: its number in the layer.
        name: class name, for logits.
        scores: objective of each finished picture.
        peaks: maximum of the unit's map in each picture, comparable with the scores of the examples.
        diagnosis: status of each picture, "ok" or why it failed.
        examples: top-activating photos, strongest first.
        histogram: of all photos.
        similar: (number, likeness) of the most similar units, most similar first.
        place: position in an order that puts similar units side by side.
    """

    number: int
    name: str
    scores: tuple[float, ...]
    peaks: tuple[float, ...]
    diagnosis: tuple[str, ...]
    examples: tuple[Example, ...] = ()
    histogram: Histogram | None = None
    similar: tuple[tuple[int, float], ...] = ()
    place: int = 0

    @property
    def score(self) -> float:
        """The mean score of the pictures."""
        return sum(self.scores) / len(self.scores)

    @property
    def ratio(self) -> float | None:
        """The maximum in the first picture, in multiples of that in the strongest photo."""
        best = self.examples[0].score if self.examples else 0
        return self.peaks[0] / best if best > 0 else None

    @property
    def labels(self) -> tuple[tuple[str, int], ...]:
        """Classes of the examples with their counts, most frequent first."""
        names = [example.label for example in self.examples if example.label]
        return tuple(sorted(((name, names.count(name)) for name in dict.fromkeys(names)), key=lambda entry: -entry[1]))


@dataclass(frozen=True)
class Layer:
    """One layer of the site.

    Attributes:
        name: as given to `build`.
        slug: name of its folder.
        kind, shape: from the layer table; (H, W, C) or (C,).
        field: receptive field in words; "" if unknown.
        extent: receptive field as shares of the image's height and width, at most 1; None if unknown.
        units: the units shown, by number.
        channels: number of channels of the layer.
    """

    name: str
    slug: str
    kind: str
    shape: tuple[int, ...]
    field: str
    extent: tuple[float, float] | None
    units: tuple[Unit, ...]
    channels: int

    def stem(self, number: int) -> str:
        """Return the stem of a unit's file names; stems sort like numbers."""
        return f"{number:0{max(4, len(str(self.channels - 1)))}d}"


@dataclass(frozen=True)
class Passed:
    """Modules between two layers of the site."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Site:
    """The whole gallery.

    Attributes:
        title: name of the network.
        about: (name, value) of the settings.
        command: the command that made the site.
        way: layers of the site and what lies between them, from the image to the logits.
        samples: number of pictures per unit.
        negative: whether the opposite direction is shown too.
        size: (H, W) of the pictures.
        photos: number of photos.
        likeness: what similar units have in common, in words.
        waiting: layers that are not rendered yet.
    """

    title: str
    about: tuple[tuple[str, str], ...]
    command: str
    way: tuple[Layer | Passed, ...]
    samples: int
    negative: bool
    size: tuple[int, int]
    photos: int = 0
    likeness: str = ""
    waiting: tuple[str, ...] = field(default=())

    @property
    def layers(self) -> list[Layer]:
        """The layers of the site, in the network's order."""
        return [part for part in self.way if isinstance(part, Layer)]


def slugs(names: Sequence[str]) -> list[str]:
    """Return a folder's name for every layer, see `FileNames`."""
    unique = FileNames()
    return [unique(name, "layer") for name in names]
