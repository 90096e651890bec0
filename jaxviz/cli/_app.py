"""The application: its errors, its exit statuses, its version."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from jaxviz._errors import JaxvizError
from jaxviz._result_files import versions
from jaxviz.cli._common.skipped import printable


class Group(TyperGroup):
    """Commands: an error of jaxviz is one line and exit status 1; Ctrl-C is exit status 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except JaxvizError as error:
            typer.echo("\n".join(map(printable, f"jaxviz: {error}".splitlines())), err=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            typer.echo("jaxviz: interrupted", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Group,
    name="jaxviz",
    help="Visualize and explain what convolutional networks respond to.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main() -> None:
    """Run the command line of `sys.argv`."""
    try:
        app(prog_name="jaxviz")
    except KeyboardInterrupt:  # outside a command, for example while it is being read
        raise SystemExit(130) from None


def _show_version(show: bool) -> None:
    if show:
        typer.echo(", ".join(f"{name} {number}" for name, number in versions().items() if name in ("jaxviz", "jax")))
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the versions and exit.")
    ] = False,
) -> None:
    pass
