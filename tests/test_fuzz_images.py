"""Seeded fuzz of damaged image files: a picture or a typed error with the file's name; never a crash, a hang or a bomb.

Raw formats have no checksums, so that a changed byte is another valid picture: what is promised is that its array is well
formed.
"""

from __future__ import annotations

import io
import random
import struct
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from jaxviz import image
from jaxviz._errors import ImageError
from tests.damage import damage
from tests.tiny import random_images

pytestmark = pytest.mark.once

FRAGMENTS = [
    struct.pack(">I", 0),
    struct.pack(">I", 1),
    struct.pack(">I", 65535),
    struct.pack("<I", 65535),
    struct.pack(">I", 2**31 - 1),
    struct.pack("<I", 2**32 - 1),
    b"\xff\xd8\xff\xe1\x00\x10Exif\x00\x00",
    b"\xff\xc4\x00\x02",
    b"\xff\xda",
    b"\xff\xd9",
    b"\x00\x00\x00\x0dIHDR\x00\x00\xff\xff\x00\x00\xff\xff",
    b"\x00\x00\x00\x00IEND\xaeB`\x82",
    b"\x12\x01\x03\x00\x01\x00\x00\x00\x09\x00\x00\x00",
    b"II*\x00\x08\x00\x00\x00",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    b"P6 40000 40000 255\n",
    b"GIF89a",
    b"\x2c\x00\x00\x00\x00\xff\xff\xff\xff\x00",
    b"RIFF\xff\xff\xff\xffWEBP",
]


def photo() -> Image.Image:
    smooth = np.kron(random_images(6, 5, 3), np.ones((4, 4, 1), np.float32))
    return Image.fromarray((smooth * 255).astype(np.uint8))  # 24 x 20


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a photo"
    return exif


def files() -> dict[str, bytes]:
    """Return a small file of each kind of image that people have."""
    gray = np.arange(480, dtype=np.uint16).reshape(24, 20) * 136
    kinds = {
        "png": (photo(), {"format": "PNG", "exif": turned()}),
        "png palette": (photo().quantize(32), {"format": "PNG", "transparency": 3}),
        "png 16 bit": (Image.fromarray(gray), {"format": "PNG"}),
        "png opacity": (photo().convert("RGBA"), {"format": "PNG"}),
        "png 1 bit": (photo().convert("1"), {"format": "PNG"}),
        "jpeg": (photo(), {"format": "JPEG", "exif": turned()}),
        "jpeg progressive": (photo(), {"format": "JPEG", "progressive": True, "icc_profile": b"profile" * 9}),
        "jpeg cmyk": (photo().convert("CMYK"), {"format": "JPEG"}),
        "gif": (photo().quantize(16), {"format": "GIF", "save_all": True, "append_images": [photo().quantize(8)]}),
        "bmp": (photo(), {"format": "BMP"}),
        "bmp palette": (photo().quantize(16), {"format": "BMP"}),
        "tiff": (photo(), {"format": "TIFF", "exif": turned()}),
        "tiff cmyk": (photo().convert("CMYK"), {"format": "TIFF"}),
        "tiff float": (Image.fromarray(gray.astype(np.float32) / 65535), {"format": "TIFF"}),
        "tiff 16 bit": (Image.fromarray(gray), {"format": "TIFF"}),
        "ppm": (photo(), {"format": "PPM"}),
        "tga": (photo(), {"format": "TGA", "compression": "tga_rle"}),
        "pcx": (photo(), {"format": "PCX"}),
        "ico": (photo(), {"format": "ICO"}),
        "dds": (photo(), {"format": "DDS"}),
        "sgi": (photo(), {"format": "SGI"}),
        "mpo": (photo(), {"format": "MPO", "save_all": True, "append_images": [photo()]}),
    }
    if features.check("webp"):
        kinds["webp"] = (photo(), {"format": "WEBP", "exif": turned()})
        kinds["webp lossless"] = (photo().convert("RGBA"), {"format": "WEBP", "lossless": True})
    if features.check("jpg_2000"):
        kinds["jpeg 2000"] = (photo(), {"format": "JPEG2000"})
    if features.check("libtiff"):
        kinds["tiff lzw"] = (photo(), {"format": "TIFF", "compression": "tiff_lzw"})
        kinds["tiff deflate"] = (photo(), {"format": "TIFF", "compression": "tiff_adobe_deflate"})
        kinds["tiff jpeg"] = (photo(), {"format": "TIFF", "compression": "jpeg"})
    if features.check("avif"):
        kinds["avif"] = (photo(), {"format": "AVIF"})
    found = {}
    for name, (picture, options) in kinds.items():
        buffer = io.BytesIO()
        picture.save(buffer, **options)
        found[name] = buffer.getvalue()
    return found


@pytest.mark.parametrize("cases", [200, pytest.param(10_000, marks=pytest.mark.full)])
def test_damaged_images(tmp_path: Path, cases: int) -> None:
    path, whole = tmp_path / "damaged", files()
    outcomes: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about what it reads all the same
        for kind, content in whole.items():
            path.write_bytes(content)
            assert image.load(path).shape[-1] == 3, kind
        for case in range(cases):
            kind = list(whole)[case % len(whole)]
            rng = random.Random(f"{kind} {case}")
            path.write_bytes(damage(whole[kind], rng, FRAGMENTS))
            size = rng.choice([None, 16, (9, 30)])
            began = time.process_time()
            try:
                found = image.load(path, size)
            except ImageError as error:
                assert str(path) in str(error), f"case {case}"
                outcomes["error"] += 1
            except BaseException as error:
                raise AssertionError(f"case {case}, {kind}: {type(error).__name__}: {error}") from error
            else:
                assert found.dtype == np.float32 and found.ndim == 3 and found.shape[-1] == 3 and found.size, f"case {case}"
                assert found.min() >= 0 and found.max() <= 1, f"case {case}, {kind}"  # a NaN fails, too
                assert size is None or found.shape[:2] == ((16, 16) if size == 16 else size), f"case {case}"
                outcomes["picture"] += 1
            assert time.process_time() - began < 10, f"case {case}, {kind} took too long"
    assert outcomes["error"] > 40 and outcomes["picture"] > 20, "damages that damage nothing, or all"
