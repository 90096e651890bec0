"""Pictures that notebooks show of results: small, because a notebook keeps them."""

from __future__ import annotations

import base64
import html
import io

from PIL import Image

QUALITY = 88  # of JPEG: a tenth of the PNG's size, and small letters stay clear


def jpeg(picture: Image.Image) -> bytes:
    """Return a picture as JPEG, with all of its colors' detail."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return buffer.getvalue()


def figure_html(data: bytes | None, alt: str, *lines: str) -> str:
    """Return a JPEG with lines of text below it as HTML; without one, the lines alone. Whatever the texts hold is text."""
    text = "<br>".join(html.escape(line) for line in lines)
    if data is None:
        return f"<p>{text}</p>"
    source = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    style = "max-width:100%;height:auto"
    alt = html.escape(alt, quote=True)
    return f'<figure><img src="{source}" alt="{alt}" style="{style}"><figcaption>{text}</figcaption></figure>'
