"""What a command says of the files that it could not read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from jaxviz._image_files import Skipped

LISTED = 20  # files at most that are named in the end; a file in the folder names all


def line(one: Skipped) -> str:
    """Return the name and the reason on one line."""
    return printable(f"'{one.path}': {one.reason}")


def printable(text: str) -> str:
    """Return a text in which what is not UTF-8, or would steer the terminal, is written as its code."""
    decoded = text.encode(errors="backslashreplace").decode()
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in decoded)


def tell(skipped: Sequence[Skipped], where: Path) -> None:
    """Name the first files that were skipped, and where all of them are listed."""
    for one in skipped[:LISTED]:
        typer.echo(f"jaxviz: skipped {line(one)}", err=True)
    if len(skipped) > LISTED:
        typer.echo(f"jaxviz: skipped {len(skipped) - LISTED} more, listed in {where}", err=True)
