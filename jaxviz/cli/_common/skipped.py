"""Messages about files that could not be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from jaxviz._image_files import Skipped

LISTED = 20  # files at most that are listed in the terminal


def line(file: Skipped) -> str:
    """Return the name and the reason on one line."""
    return printable(f"'{file.path}': {file.reason}")


def printable(text: str) -> str:
    """Return a text with escapes for bytes that are not UTF-8 and for control characters."""
    decoded = text.encode(errors="backslashreplace").decode()
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in decoded)


def tell(skipped: Sequence[Skipped], record: Path | None = None) -> None:
    """List the first skipped files, and the record that has all of them."""
    for file in skipped[:LISTED]:
        typer.echo(f"jaxviz: skipped {line(file)}", err=True)
    if len(skipped) > LISTED:
        listed = "" if record is None else f", listed in {record}"
        typer.echo(f"jaxviz: skipped {len(skipped) - LISTED} more{listed}", err=True)
