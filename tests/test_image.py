"""Files to arrays and back, and the array functions on NumPy, JAX and traced arrays."""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxviz import image
from jaxviz._errors import ArgumentError, ImageError
from tests.tiny import random_images

RGB = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3


def test_png_round_trip_is_exact(tmp_path: Path) -> None:
    path = image.save(tmp_path / "new" / "folder" / "a.png", RGB)
    loaded = image.load(path)
    assert loaded.dtype == np.float32 and loaded.shape == (4, 6, 3)
    np.testing.assert_array_equal(loaded, RGB / np.float32(255))
    again = image.load(image.save(tmp_path / "b.png", loaded))
    np.testing.assert_array_equal(again, loaded)
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == ["a.png"], "a temporary file is left"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # stored turned so that the viewer must turn it by 270 degrees
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = Image.fromarray(RGB)
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo.png", exif=exif)
    np.testing.assert_array_equal(image.load(tmp_path / "photo.png"), RGB / np.float32(255))


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("L", 51, (51, 51, 51)),
        ("1", 1, (255, 255, 255)),
        ("P", 7, None),
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (0, 100, 200, 255), (0, 100, 200)),
        ("LA", (0, 51), (204, 204, 204)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
    ],
)
def test_every_color_mode_becomes_rgb(tmp_path: Path, mode: str, color, expected) -> None:
    picture = Image.new(mode, (3, 2), color)
    if mode == "P":
        picture.putpalette([v for i in range(256) for v in (i, 2 * i % 256, 255 - i)])
        expected = (7, 14, 248)
    path = tmp_path / ("picture.tif" if mode == "CMYK" else "picture.png")
    picture.save(path)
    np.testing.assert_allclose(image.load(path), np.broadcast_to(np.array(expected) / 255, (2, 3, 3)), atol=1e-6)


def test_palette_with_a_transparent_entry_is_put_on_white(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "a.gif", transparency=0)
    np.testing.assert_allclose(image.load(tmp_path / "a.gif")[0] * 255, [[255, 255, 255], [40, 50, 60]], atol=1e-3)


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    values = np.array([[0, 1, 257], [30000, 65534, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    loaded = image.load(tmp_path / "deep.png")
    np.testing.assert_allclose(loaded, np.repeat(values[..., None] / 65535, 3, -1), rtol=1e-6)


def test_float_tiffs_must_be_in_range(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 0.25, np.float32)).save(tmp_path / "good.tif")
    assert image.load(tmp_path / "good.tif").max() == 0.25
    Image.fromarray(np.full((2, 2), 3.0, np.float32)).save(tmp_path / "bad.tif")
    with pytest.raises(ImageError, match=r"bad\.tif.*\[0, 1\]"):
        image.load(tmp_path / "bad.tif")


def test_size_covers_and_crops_without_stretching(tmp_path: Path) -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 255  # the middle square is white
    path = image.save(tmp_path / "wide.png", wide)
    square = image.load(path, 10)
    assert square.shape == (10, 10, 3) and square[:, 1:-1].min() == 1  # the outer columns mix with their black neighbours
    assert image.load(path, (8, 30)).shape == (8, 30, 3)


def damaged(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((random_images(64, 64, 3) * 255).astype(np.uint8)).save(buffer, "JPEG" if kind == "jpeg" else "PNG")
    data = buffer.getvalue()
    return {"empty": b"", "text": b"not an image", "jpeg": data[: len(data) // 2], "png": data[:100] + data[200:]}[kind]


@pytest.mark.parametrize("kind", ["empty", "text", "jpeg", "png"])
def test_damaged_files_are_named_in_one_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"{kind}.png"
    path.write_bytes(damaged(kind))
    with pytest.raises(ImageError, match=f"{kind}.png"):
        image.load(path)


def test_flipped_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "PNG", exif=Image.Exif())
    rng, path = np.random.default_rng(0), tmp_path / "fuzz.png"
    for _ in range(200):
        data = bytearray(buffer.getvalue())
        data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data[: rng.integers(len(data) // 2, len(data) + 1)])
        try:
            assert image.load(path).shape[-1] == 3
        except ImageError as error:
            assert "fuzz.png" in str(error)


def test_decompression_bombs_are_refused(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")  # 50 KB that would become 1.2 GB
    with pytest.raises(ImageError, match=r"bomb\.png.*decompression bomb"):
        image.load(tmp_path / "bomb.png")


@pytest.mark.parametrize("limit", [None, 10**12, 10**6])
def test_the_limit_on_pixels_is_ours_in_every_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # as many programs do that read large images
    (tmp_path / "bomb.ppm").write_bytes(b"P6 20000 20000 255\n")
    (tmp_path / "large.ppm").write_bytes(b"P6 11585 11586 255\n")  # the least above the limit
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(image.load, tmp_path / name, 8) for name in ("bomb.ppm", "large.ppm")]:
            with pytest.raises(ImageError, match=r"ppm.*decompression bomb"):
                done.result()
    assert Image.MAX_IMAGE_PIXELS == limit and image.MAX_PIXELS < 11585 * 11586


@pytest.mark.parametrize("limit", [None, 10**12, Image.MAX_IMAGE_PIXELS])
def test_bombs_inside_of_icons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    header = b"IHDR" + struct.pack(">IIBBBBB", 20000, 20000, 1, 0, 0, 0, 0)
    inside = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    inside += struct.pack(">I4sI", 0, b"IDAT", zlib.crc32(b"IDAT"))
    entry = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inside), 22)
    (tmp_path / "bomb.ico").write_bytes(entry + inside)
    with pytest.raises(ImageError, match=r"bomb\.ico.*(cannot identify|decompression bomb)"):
        image.load(tmp_path / "bomb.ico")


def test_programs_are_not_run(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(ImageError, match=r"a\.png.*EPS"):
        image.load(tmp_path / "a.png")


def test_one_pixel_and_lines_of_pixels(tmp_path: Path) -> None:
    for shape in ((1, 1), (1, 4000), (4000, 1)):
        path = image.save(tmp_path / "thin.png", np.full((*shape, 3), 0.2))
        np.testing.assert_allclose(image.load(path, (7, 9)), np.full((7, 9, 3), 0.2), atol=1e-6)
        assert image.load(path).shape == (*shape, 3)


def test_missing_and_unwritable_files(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        image.load(tmp_path / "none.png")
    with pytest.raises(ImageError, match="tmp"):
        image.load(tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ImageError, match="file"):
        image.save(tmp_path / "file" / "a.png", RGB)
    with pytest.raises(ImageError, match=r"\.xyz"):
        image.save(tmp_path / "a.xyz", RGB)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 3)])
def test_save_takes_gray_and_color(tmp_path: Path, shape: tuple[int, ...]) -> None:
    assert image.load(image.save(tmp_path / "a.png", np.full(shape, 0.2))).shape == (4, 6, 3)


@pytest.mark.parametrize("shape", [(4,), (4, 6, 2), (1, 4, 6, 3), (0, 6, 3)])
def test_save_refuses_other_shapes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ArgumentError, match="Expected an image of shape"):
        image.save(tmp_path / "a.png", np.zeros(shape, np.float32))


def test_to_uint8() -> None:
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(image.to_uint8(levels / np.float32(255)), levels)
    np.testing.assert_array_equal(image.to_uint8(np.array([np.nan, np.inf, -np.inf, -1, 2])), [0, 255, 0, 0, 255])
    np.testing.assert_array_equal(image.to_uint8(jnp.array([0.0, 1.0], jnp.bfloat16)), [0, 255])
    assert image.to_uint8(levels) is levels
    with pytest.raises(ArgumentError, match="int32"):
        image.to_uint8(np.arange(3, dtype=np.int32))


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
@pytest.mark.parametrize("shape", [(5, 7, 3), (2, 5, 7, 3), (2, 3, 5, 7, 3)])
def test_normalise_and_its_inverse(convert, shape: tuple[int, ...]) -> None:
    images, mean, std = random_images(*shape), (0.4, 0.5, 0.6), np.array([0.1, 0.2, 0.3])
    with jax.numpy_rank_promotion("raise"):
        out = image.normalize(convert(images), mean, std)
        traced = jax.jit(image.normalize)(images, jnp.array(mean), jnp.array(std))
        back = image.denormalize(out, mean, std)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, (images - np.array(mean, np.float32)) / std.astype(np.float32), atol=1e-6)
    np.testing.assert_allclose(traced, out, atol=1e-6)
    np.testing.assert_allclose(back, images, atol=1e-6)


def test_normalise_refuses_what_cannot_be_meant() -> None:
    with pytest.raises(ArgumentError, match="one value per channel"):
        image.normalize(random_images(4, 4, 3), [0.5, 0.5], 1.0)
    with pytest.raises(ArgumentError, match="uint8"):
        image.normalize(RGB, [0.5] * 3, [0.2] * 3)


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_resize(method: image.Method) -> None:
    images = random_images(2, 16, 12, 3)
    out = image.resize(images, (8, 24), method)
    assert out.shape == (2, 8, 24, 3)
    np.testing.assert_allclose(jax.jit(partial(image.resize, size=(8, 24), method=method))(images), out, atol=1e-6)
    np.testing.assert_allclose(image.resize(np.full((9, 9, 1), 0.3, np.float32), 5, method), 0.3, atol=1e-6)


def test_bilinear_downsizing_agrees_with_pillow() -> None:
    gray = random_images(32, 40)
    pillow = np.asarray(Image.fromarray(gray).resize((20, 16), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(image.resize(gray[..., None], (16, 20))[..., 0], pillow, atol=1e-5)


def test_crop_takes_the_center() -> None:
    images = np.arange(6 * 8).reshape(1, 6, 8, 1)
    np.testing.assert_array_equal(image.crop(images, (2, 4))[0, :, :, 0], images[0, 2:4, 2:6, 0])
    assert jax.jit(lambda x: image.crop(x, 4))(images).shape == (1, 4, 4, 1)
    with pytest.raises(ArgumentError, match="7x4 pixels from images of 6x8"):
        image.crop(images, (7, 4))


@pytest.mark.parametrize("size", [0, -1, (2, 0), (1, 2, 3), 2.5, "8"])
def test_wrong_sizes_are_refused(size) -> None:
    with pytest.raises(ArgumentError, match="Expected a size"):
        image.resize(random_images(4, 4, 3), size)


def test_images_without_three_axes_are_refused() -> None:
    for function in (image.resize, image.crop):
        with pytest.raises(ArgumentError, match=r"\(\.\.\., H, W, C\), got \(4, 4\)"):
            function(np.zeros((4, 4), np.float32), 2)
    with pytest.raises(ArgumentError, match="Unknown method 'cubic'"):
        image.resize(np.zeros((4, 4, 1), np.float32), 2, "cubic")  # type: ignore[arg-type]


def test_an_animation_has_every_image(tmp_path):
    images = np.stack([np.full((6, 5, 3), value, np.float32) for value in (0.0, 0.5, 1.0)])
    with Image.open(image.save_animation(tmp_path / "way.gif", images, seconds=0.2)) as file:
        assert file.n_frames == 3 and file.info["duration"] == 200 and file.info["loop"] == 0
        for number, wanted in enumerate((0, 128, 255)):
            file.seek(number)
            np.testing.assert_allclose(np.asarray(file.convert("RGB")), wanted, atol=2)
    for wrong in (images[0], images[:0]):
        with pytest.raises(ArgumentError, match="T, H, W, C"):
            image.save_animation(tmp_path / "way.gif", wrong)
    with pytest.raises(ImageError, match="gif"):
        image.save_animation(tmp_path / "way.mp4", images)
