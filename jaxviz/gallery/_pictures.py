"""Pictures of a gallery: from the arrays of a finished run to files of the site."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from jaxviz.gallery._photos import write_webp
from jaxviz.gallery._site import Layer
from jaxviz.image import to_pillow
from jaxviz.result import Result

THUMB = 128  # side of a thumbnail in pixels: tiles are at most 9 rem wide


def write_pictures(result: Result, layer: Layer, folder: Path, *, negative: bool = False) -> None:
    """Write each unit's pictures and a thumbnail of the first; existing files stay.

    `0007-0.webp` is sample 0 of unit 7, `0007-n0.webp` is the opposite direction, `0007-t.webp` the thumbnail.
    """
    for unit, images in zip(layer.units, result.images, strict=True):
        stem = layer.stem(unit.number)
        for sample, image in enumerate(images):
            path = folder / f"{stem}-{'n' if negative else ''}{sample}.webp"
            small = folder / f"{stem}-t.webp" if sample == 0 and not negative else None
            if path.exists() and (small is None or small.exists()):
                continue
            picture = to_pillow(image)
            if small is not None:
                write_webp(small, square(picture, THUMB), quality=80)
            write_webp(path, picture, quality=92)


def square(picture: Image.Image, side: int) -> Image.Image:
    """Return the center of the picture as a square of at most `side` pixels."""
    short = min(picture.size)
    left, top = ((n - short) // 2 for n in picture.size)
    side = min(side, short)
    return picture.crop((left, top, left + short, top + short)).resize((side, side), Image.Resampling.LANCZOS)
