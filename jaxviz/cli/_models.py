"""jaxviz models, jaxviz layers."""

from __future__ import annotations

from typing import Annotated

import typer

import jaxviz
from jaxviz.cli._app import app
from jaxviz.cli._common.options import MODEL_HELP, WEIGHTS_HELP, read_size
from jaxviz.models import verify as verify_models


@app.command()
def models(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="With --verify: only these networks.")] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Download all weights, load them and compare with torchvision. "
            "Needs a network connection, torch and torchvision.",
        ),
    ] = False,
) -> None:
    """List networks and their weights, or verify them."""
    if verify:
        failed = 0
        for record in verify_models(*(names or ()), progress=True):
            typer.echo(str(record))
            failed += not record.ok
        raise typer.Exit(1 if failed else 0)
    if names:
        raise typer.BadParameter("names need --verify; `jaxviz layers NAME` shows one network.")
    typer.echo(str(jaxviz.list_models()))


@app.command()
def layers(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    weights: Annotated[str | None, typer.Option(metavar="FILE|NAME", help=WEIGHTS_HELP)] = None,
    size: Annotated[
        str | None, typer.Option(metavar="N|HxW", help="Image size of the shapes; default: the network's own.")
    ] = None,
) -> None:
    """List the layers of a network.

    Shows name, kind, shape, channels and receptive field / stride of every value that can be visualized.
    """
    typer.echo(str(jaxviz.load(model, weights=weights, progress=True).layers(read_size(size))))
