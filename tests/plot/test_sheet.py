"""Contact sheets: layout, spacing, sections, limits."""

from __future__ import annotations

import numpy as np
import pytest

from jaxviz._errors import ArgumentError
from jaxviz.plot import Section, contact_sheet


def section(units: int, samples: int = 1, size: tuple[int, ...] = (128, 128, 3), heading: str = "layer", **more) -> Section:
    return Section(heading, np.full((units, samples, *size), 0.2, np.float32), [str(i) for i in range(units)], **more)


def runs(line: np.ndarray) -> list[int]:
    """Return the lengths of the runs of gray 51 in a line of pixels."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (line == 51).all(-1), [0]])))
    return list(edges[1::2] - edges[::2])


def starts(line: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.diff(np.concatenate([[0], (line == 51).all(-1).astype(int)])) == 1)


def test_tiles_are_whole_and_evenly_spaced() -> None:
    sheet = contact_sheet([section(10, heading="logit"), section(16, heading="layer4")])
    tiles_across, tiles_down = sheet[100], sheet[:, 40]
    assert set(runs(tiles_across)) == {128} and set(runs(tiles_down)) == {128}
    assert len(set(np.diff(starts(tiles_across)))) == 1
    everywhere = (sheet == 51).all(-1).sum() / 128**2
    assert 26 <= everywhere < 26.2  # 26 images, and some text in that gray


def test_samples_are_close_and_units_apart() -> None:
    sheet = contact_sheet([section(4, samples=3)], columns=2)
    gaps = np.diff(starts(sheet[100])) - 128
    assert len(gaps) == 5 and gaps[2] > 4 * max(gaps[0], gaps[1], gaps[3], gaps[4])


def test_no_heading_no_room_for_it() -> None:
    assert contact_sheet([section(4, heading="")]).shape[0] < contact_sheet([section(4)]).shape[0]
    assert contact_sheet([section(4)], title="All").shape[0] > contact_sheet([section(4)]).shape[0]


def test_notes_and_captions_change_the_picture_and_not_its_size() -> None:
    plain = contact_sheet([section(4)])
    noted = contact_sheet([section(4, notes=["1.5"] * 4)])
    long = contact_sheet([Section("layer", np.full((4, 1, 128, 128, 3), 0.2), ["a very long name" * 9] * 4, ["1.5"] * 4)])
    assert plain.shape == noted.shape == long.shape
    assert (plain != noted).any() and (noted != long).any()


@pytest.mark.parametrize(("size", "tile"), [((32, 32, 3), 112), ((64, 48, 1), 112), ((150, 150, 3), 150), ((299, 299, 3), 224)])
def test_small_images_grow_and_large_ones_shrink(size: tuple[int, ...], tile: int) -> None:
    sheet = contact_sheet([section(3, size=size)], columns=3)
    assert set(runs(sheet[100])) == {round(tile * size[1] / size[0])}


def test_thousands_of_units_stay_a_picture_that_opens() -> None:
    sheet = contact_sheet([section(2500, size=(32, 32, 3))])
    assert 10e6 < sheet.shape[0] * sheet.shape[1] < 60e6
    assert 0.7 < sheet.shape[1] / sheet.shape[0] < 2


def test_one_unit_and_one_column() -> None:
    assert contact_sheet([section(1)]).shape[1] == 128 + 48
    assert contact_sheet([section(5)], columns=1, tile=16).shape[1] == 16 + 48
    assert contact_sheet([section(2)], columns=9).shape == contact_sheet([section(2)], columns=2).shape


@pytest.mark.parametrize(
    "sections",
    [
        [],
        [section(0)],
        [section(2), section(2, samples=2)],
        [Section("a", np.zeros((2, 1, 8, 8, 3)), ["one"])],
        [Section("a", np.zeros((2, 8, 8, 3)), ["one", "two"])],
        [Section("a", np.zeros((1, 1, 8, 8, 3)), ["one"], ["two", "notes"])],
        [section(2, size=(8, 8, 5))],
    ],
)
def test_wrong_sections(sections: list[Section]) -> None:
    with pytest.raises(ArgumentError):
        contact_sheet(sections)


def test_wrong_numbers() -> None:
    for arguments in ({"columns": 0}, {"tile": 0}):
        with pytest.raises(ArgumentError, match="columns >= 1 and tile >= 1"):
            contact_sheet([section(1)], **arguments)
