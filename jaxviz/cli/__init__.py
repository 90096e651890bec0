"""The command line: `jaxviz --help` lists the commands.

Exit status: 0 success, 1 an error with a message of one line, 2 wrong usage, 130 Ctrl-C.
"""

from __future__ import annotations

from jaxviz.cli import _attribute as _attribute
from jaxviz.cli import _gallery as _gallery
from jaxviz.cli import _models as _models
from jaxviz.cli import _photos as _photos
from jaxviz.cli import _visualize as _visualize
from jaxviz.cli._app import app as app
from jaxviz.cli._app import main as main
from jaxviz.cli._bench import bench as bench
from jaxviz.cli._inspect import directions as directions
from jaxviz.cli._inspect import embeddings as embeddings
from jaxviz.cli._inspect import examples as examples
from jaxviz.cli._inspect import features as features
