"""Messages about files that could not be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from jaxviz._image_files import Skipped

LISTED = 20  # files at most that are named in the end; a file in the folder names all


def line(file: Skipped) -> str:
    """Return the name and the reason on one line."""
    return printable(f"'{file.path}': {file.reason}")


def printable(text: str) -> str:
    """Return a text in which what is not UTF-8, or would steer the terminal, is written as its code."""
    decoded = text.encode(errors="backslashreplace").decode()
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in decoded)


def tell(skipped: Sequence[Skipped], where: Path) -> None:
    """Print the first skipped files, and where all of them are listed."""
    for file in skipped[:LISTED]:
        typer.echo(f"jaxviz: skipped {line(file)}", err=True)
    if len(skipped) > LISTED:
        typer.echo(f"jaxviz: skipped {len(skipped) - LISTED} more, listed in {where}", err=True)
