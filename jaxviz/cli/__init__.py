"""The command line: `jaxviz --help` lists the commands.

Exit status: 0 done, 1 an error that one line explains, 2 a wrong use of the command line, 130 Ctrl-C.
"""

from __future__ import annotations

from jaxviz.cli import _attribute as _attribute
from jaxviz.cli import _bench as _bench
from jaxviz.cli import _gallery as _gallery
from jaxviz.cli import _inspect as _inspect
from jaxviz.cli import _inspect_atlas as _inspect_atlas
from jaxviz.cli import _inspect_embed as _inspect_embed
from jaxviz.cli import _inspect_examples as _inspect_examples
from jaxviz.cli import _inspect_views as _inspect_views
from jaxviz.cli import _models as _models
from jaxviz.cli import _photos as _photos
from jaxviz.cli import _visualize as _visualize
from jaxviz.cli._app import app as app
from jaxviz.cli._app import main as main
