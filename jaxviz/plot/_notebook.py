"""Pictures of results in notebooks, compressed because a notebook stores them."""

from __future__ import annotations

import base64
import html
import io

from PIL import Image

QUALITY = 88  # of JPEG: a tenth of the PNG's size, with clear small letters


def jpeg(picture: Image.Image) -> bytes:
    """Return a picture as JPEG without chroma subsampling."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return buffer.getvalue()


def figure_html(data: bytes | None, alt: str, *lines: str) -> str:
    """Return HTML of a JPEG, if there is one, with lines of text below it; the texts are escaped."""
    text = "<br>".join(html.escape(line) for line in lines)
    if data is None:
        return f"<p>{text}</p>"
    source = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    style = "max-width:100%;height:auto"
    alt = html.escape(alt, quote=True)
    return f'<figure><img src="{source}" alt="{alt}" style="{style}"><figcaption>{text}</figcaption></figure>'
