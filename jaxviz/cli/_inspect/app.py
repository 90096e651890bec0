"""The group of commands `jaxviz inspect`."""

from __future__ import annotations

import typer

from jaxviz.cli._app import Group, app

inspect_app = typer.Typer(
    cls=Group,
    name="inspect",
    help="Inspect filters, feature maps, examples and embeddings.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.add_typer(inspect_app)
