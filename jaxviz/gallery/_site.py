"""What a gallery shows, as plain data: a site of layers, a layer of units, a unit with its pictures' numbers and examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxviz._file_names import FileNames

NO_CLASS = ""  # of an example that lies in no folder of its class


@dataclass(frozen=True)
class Example:
    """A photo that excites a unit.

    Attributes:
        photo: its number, by which the site's copy of it is called.
        file: its name in the folder of examples.
        kind: the name of its class, or `NO_CLASS`.
        score: the unit's largest activation anywhere in it.
        place: (y, x) of the centre of what the unit saw there, as shares of the photo's height and width.
        box: (top, left, bottom, right) of what it saw, as shares, cut at the photo's edges; None where that is most of it.
    """

    photo: int
    file: str
    kind: str
    score: float
    place: tuple[float, float] | None = None
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Histogram:
    """How many photos excite a unit how much: counts of B equal bins from `low` to `high`."""

    counts: tuple[int, ...]
    low: float
    high: float


@dataclass(frozen=True)
class Unit:
    """One unit.

    Attributes:
        number: in its layer.
        name: of the class, where the layer's units are classes.
        scores: of its pictures, the objective on the finished image.
        peaks: the unit's largest activation anywhere in each picture, to be compared with the examples' scores.
        diagnosis: of its pictures, "ok" or why one came to nothing.
        examples: the photos that excite it most, the strongest first.
        histogram: of all photos.
        similar: (number, likeness) of the units most like it, the most similar first.
        place: in an order of the layer in which units that are alike stand side by side.
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
        """The mean over the pictures."""
        return sum(self.scores) / len(self.scores)

    @property
    def ratio(self) -> float | None:
        """The first picture's largest activation, in multiples of that of the strongest photo."""
        best = self.examples[0].score if self.examples else 0
        return self.peaks[0] / best if best > 0 else None

    @property
    def kinds(self) -> tuple[tuple[str, int], ...]:
        """The classes of its examples with their numbers, the most frequent first."""
        names = [example.kind for example in self.examples if example.kind]
        return tuple(sorted(((name, names.count(name)) for name in dict.fromkeys(names)), key=lambda one: -one[1]))


@dataclass(frozen=True)
class Layer:
    """One layer of the site.

    Attributes:
        name: as it was asked for.
        slug: what its folder is called.
        kind, shape: of the layer table, (H, W, C) or (C,).
        field: the pixels that a unit sees, in words; "" where that is not known.
        extent: of what a unit sees, in shares of the image's height and width, at most 1; None where that is not known.
        units: those that are shown, by number.
        channels: how many the layer has.
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
        """Return what the files of a unit are called; they sort as the units do."""
        return f"{number:0{max(4, len(str(self.channels - 1)))}d}"


@dataclass(frozen=True)
class Passed:
    """Layers that lie between those that are shown."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Site:
    """All of a gallery.

    Attributes:
        title: the network's name.
        about: (name, value) of how it was made, for people.
        command: that made it.
        way: the network from the image to the answers: layers that are shown, and what is passed between them.
        samples: pictures a unit.
        negative: whether the opposite direction is shown, too.
        size: (H, W) of the pictures.
        photos: how many examples were looked at.
        likeness: what units that are called similar have in common.
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
    waiting: tuple[str, ...] = field(default=())  # layers that are still to be rendered

    @property
    def layers(self) -> list[Layer]:
        return [part for part in self.way if isinstance(part, Layer)]


def slugs(names: Sequence[str]) -> list[str]:
    """Return a folder's name for every layer, see `FileNames`."""
    unique = FileNames()
    return [unique(name, "layer") for name in names]
