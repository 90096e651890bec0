"""Attributions as pictures, side by side, in notebooks, and in a folder."""

from __future__ import annotations

import base64
import inspect
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jaxviz as jv
from jaxviz import plot
from jaxviz.attribution import METHODS, Attribution, compare, input_x_gradient, load_attribution, saliency
from tests.tiny import random_images, tiny_model

IMAGES = random_images(3, 16, 16, 3)
REASON = "negative everywhere, cut off by ReLU"


def made(maps: np.ndarray, *, spatial: bool = True, many: bool = False, method: str = "grad_cam", **fields) -> Attribution:
    lead = maps.shape[: 2 if many else 1]
    names = np.broadcast_to(np.array(["church", "golf ball"][: lead[-1]] if many else "church"), lead)
    return Attribution(maps, np.ones(lead, np.float32), names, None, method, spatial, **fields)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_drawn_and_saved(method: str, tmp_path: Path) -> None:
    small = {"samples": 2, "steps": 2, "mask": np.arange(256).reshape(16, 16) // 64}
    options = {name: small[name] for name in small.keys() & inspect.signature(METHODS[method]).parameters.keys()}
    found = jv.attribute(tiny_model(), IMAGES, method, [["church", "golf ball"]], **options)
    assert found.overlay(IMAGES).shape == (3, 2, 16, 16, 3) and found.overlay(IMAGES).dtype == np.uint8
    for page in (found.picture(), found.picture(IMAGES), compare([found, found], IMAGES)):
        assert page.dtype == np.uint8 and page.ndim == 3 and page.shape[-1] == 3
    again = load_attribution(found.save(tmp_path / "out", IMAGES))
    np.testing.assert_array_equal(again.maps, found.maps)


def test_views() -> None:
    positive = made(np.abs(random_images(3, 4, 4)) + 1)
    signed = made(random_images(3, 4, 4) - 0.5)
    colors = made(random_images(3, 16, 16, 3) - 0.5, spatial=False, method="saliency")
    parts = made(colors.maps, spatial=False, method="input_x_gradient", settings={"baseline": "mean"})
    resized = plot.fitted(positive.maps.astype(float), (16, 16))

    def shown(attribution: Attribution, images: np.ndarray | None = None, **look) -> np.ndarray:
        return jv.attribution._pictures.draw(attribution, images, **look)

    np.testing.assert_array_equal(shown(positive), plot.draw_maps(positive.maps))
    np.testing.assert_array_equal(shown(positive, IMAGES, view="heat"), plot.draw_maps(resized))
    np.testing.assert_array_equal(shown(positive, IMAGES), plot.overlay(IMAGES, positive.maps))
    np.testing.assert_array_equal(shown(signed), plot.draw_maps(signed.maps, "signed"))
    np.testing.assert_array_equal(shown(signed, IMAGES), plot.overlay(IMAGES, signed.maps, signed=True))
    np.testing.assert_array_equal(shown(colors, IMAGES), plot.draw_maps(np.abs(colors.maps).max(-1), "gray"))
    np.testing.assert_array_equal(shown(parts), plot.draw_maps(parts.maps.sum(-1), "signed"))
    np.testing.assert_array_equal(shown(colors, view="color"), plot.draw_maps(colors.maps, "color"))
    limits = {"percentile": 80, "shared": [0]}
    np.testing.assert_array_equal(
        shown(colors, percentile=80, share="all"), plot.draw_maps(np.abs(colors.maps).max(-1), "gray", **limits)
    )


def test_targets_of_an_image_share_their_limit_where_asked() -> None:
    maps = np.stack([np.tile(np.eye(8), (3, 1, 1)), np.tile(0.5 * np.eye(8), (3, 1, 1))], 1)
    both = made(maps, many=True)
    draw = jv.attribution._pictures.draw
    alone, shared = draw(both, view="gray"), draw(both, view="gray", share="image")
    assert alone[:, 1].max() == 255 and shared[:, 1].max() == 128 and shared[:, 0].max() == 255


def test_blank_and_nan_maps_are_shown_with_their_reason() -> None:
    maps = np.abs(random_images(3, 16, 16))
    maps[0], maps[1] = 0, np.nan
    broken = made(maps, diagnosis=np.array([REASON, "not finite", "ok"]))
    words = jv.attribution._pictures.captions(broken)
    assert words == [[f"church 1: {REASON}"], ["church 1: not finite"], ["church 1"]]
    parts = jv.attribution._comparison.layout([broken], IMAGES, "auto", percentile=99, share="map")
    assert parts["captions"] == [["church 1", REASON], ["church 1", "not finite"], ["church 1", ""]]
    stripes = plot.draw_maps(np.zeros((16, 16)))
    shown = jv.attribution._pictures.draw(broken, view="heat")
    assert np.array_equal(shown[0], stripes) and np.array_equal(shown[1], stripes) and not np.array_equal(shown[2], stripes)
    assert broken.picture(IMAGES).size and broken._repr_jpeg_()


def test_comparison_says_everything_once() -> None:
    model = tiny_model()
    one, two = saliency(model, IMAGES), input_x_gradient(model, IMAGES)
    layout = jv.attribution._comparison.layout
    parts = layout([one, two], IMAGES, "auto", percentile=99, share="map")
    assert parts["columns"] == ["", "saliency", "input_x_gradient"] and parts["groups"] == []
    assert [line[0].rsplit(" ", 1)[0] for line in parts["captions"]] == one.targets.tolist()
    assert [bar.name for bar in parts["bars"]] == ["absolute", "signed"]
    np.testing.assert_array_equal(parts["pictures"][1][0], plot._maps.to_uint8(IMAGES[1]))
    pair = [fn(model, IMAGES, [["church", "golf ball"]]) for fn in (saliency, input_x_gradient)]
    many = layout(pair, IMAGES, "auto", percentile=99, share="image")
    assert many["columns"] == ["", "church", "golf ball", "church", "golf ball"]
    assert many["groups"] == [("", 1), ("saliency", 2), ("input_x_gradient", 2)] and many["captions"] == ()
    own = [saliency(model, IMAGES, np.array([[0, 1], [2, 1], [0, 1]]))]
    assert layout(own, IMAGES, "auto", percentile=99, share="map")["columns"] == ["", "target 1", "golf ball"]
    wide, wrapped = compare([one, two, one], IMAGES), compare([one, two, one], IMAGES, across=2)
    assert wrapped.shape[0] > 1.5 * wide.shape[0] and wrapped.shape[1] < wide.shape[1]


@pytest.mark.parametrize(
    "call",
    [
        lambda a: a.picture(IMAGES[:2]),
        lambda a: a.overlay(IMAGES[0]),
        lambda a: a.picture(view="jet"),
        lambda a: a.picture(view="overlay"),
        lambda a: a.picture(share="row"),
        lambda a: a.picture(percentile=0),
        lambda a: a.reduce().picture(view="color"),
        lambda a: compare([]),
        lambda a: compare([a, a[:2]], IMAGES),
        lambda a: compare([a, a.resize(8)]),
        lambda a: compare([a, a], view=["gray"]),
        lambda a: compare([a], across=0),
    ],
)
def test_what_does_not_fit_is_refused(call) -> None:
    with pytest.raises(jv.ArgumentError):
        call(saliency(tiny_model(), IMAGES))


def test_figure() -> None:
    pytest.importorskip("matplotlib")
    found = saliency(tiny_model(), IMAGES, [["church", "golf ball"]])
    figure = found.figure(IMAGES, share="image")
    assert len(figure.axes) == 3 * 3 + 1 and figure.axes[1].get_title() == "saliency\nchurch"
    shown = jv.attribution._pictures.draw(found, share="image")
    np.testing.assert_array_equal(figure.axes[5].get_images()[0].get_array(), shown[1, 1])


def test_notebooks_show_it_and_names_are_text() -> None:
    found = saliency(tiny_model(), IMAGES)
    assert Image.open(io.BytesIO(found._repr_jpeg_() or b"")).format == "JPEG"
    names = np.array(['<script>alert("1")</script>'] * 3)
    page = Attribution(found.maps, found.scores, names, None, "<b>", False)._repr_html_()
    assert "<script" not in page and "<b>" not in page and "&lt;script&gt;alert(&quot;" in page
    assert base64.b64decode(page.split("base64,")[1].split('"')[0])[:2] == b"\xff\xd8"
    many = Attribution(np.ones((30, 4, 4)), np.ones(30), np.full(30, "x"), None, "rise", True)
    assert "The first 24 of 30 images are shown" in many._repr_html_()
    many = Attribution(np.ones((30, 5, 4, 4)), np.ones((30, 5)), np.full((30, 5), "x"), None, "rise", True)
    assert "The first 4 of 30 images are shown" in many._repr_html_()
    assert found[:0]._repr_jpeg_() is None and "Attribution" in found[:0]._repr_html_()


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    maps = random_images(3, 2, 5, 6, 3) - 0.5
    maps[1, 1] = np.nan
    extra = {"windows": random_images(3, 2, 2)}
    settings = {"method": "path", "steps": 8, "layer": None}
    classes = np.arange(6, dtype=np.int32).reshape(3, 2)
    found = made(maps, spatial=False, many=True, method="path", settings=settings, extra=extra, delta=random_images(3, 2))
    found = Attribution(**{**vars(found), "classes": classes, "layer": "conv2"})
    folder = found.save(tmp_path / "out")
    again = load_attribution(folder)
    for name in ("maps", "scores", "targets", "classes", "delta", "diagnosis"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
        assert getattr(again, name).dtype == getattr(found, name).dtype
    np.testing.assert_array_equal(again.extra["windows"], extra["windows"])
    assert (again.method, again.layer, again.spatial, again.settings) == ("path", "conv2", False, settings)
    pictures = {f"path-{i:04d}-{k}.png" for i in range(3) for k in range(2)}
    assert {p.name for p in folder.iterdir()} == pictures | {"attribution.npz", "attribution.json", "contact_sheet.png"}
    shown = jv.attribution._pictures.draw(found)
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "path-0002-1.png")), shown[2, 1])
    record = json.loads((folder / "attribution.json").read_text())
    assert record["units"][1]["targets"] == ["church", "golf ball"] and record["units"][1]["diagnosis"] == ["ok", "not finite"]
    assert record["settings"] == settings and record["versions"]["jaxviz"]


def test_a_saved_attribution_is_replaced_only_when_asked(tmp_path: Path) -> None:
    first, second = made(random_images(3, 4, 4)), made(random_images(2, 4, 4), method="rise")
    first.save(tmp_path)
    (tmp_path / "mine.png").write_bytes(b"")
    with pytest.raises(jv.SaveError, match=r"attribution\.npz.*overwrite=True"):
        second.save(tmp_path)
    np.testing.assert_array_equal(load_attribution(tmp_path).maps, first.maps)
    second.save(tmp_path, overwrite=True)
    assert sorted(p.name for p in tmp_path.glob("*.png")) == [
        "contact_sheet.png",
        "mine.png",
        "rise-0000-0.png",
        "rise-0001-0.png",
    ]
    with pytest.raises(jv.ArgumentError):
        first.save(tmp_path, IMAGES[:2], overwrite=True)
    np.testing.assert_array_equal(load_attribution(tmp_path).maps, second.maps)


def test_folders_that_hold_none(tmp_path: Path) -> None:
    with pytest.raises(jv.SaveError, match="missing"):
        load_attribution(tmp_path)
    whole = (made(random_images(3, 4, 4)).save(tmp_path / "out") / "attribution.npz").read_bytes()
    (tmp_path / "attribution.npz").write_bytes(whole[:-40])
    with pytest.raises(jv.SaveError, match="Cannot read"):
        load_attribution(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(jv.SaveError, match="Cannot save"):
        made(random_images(3, 4, 4)).save(tmp_path / "file")
