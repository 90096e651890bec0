"""The operations that networks are built from, and rules that replace one of them."""

from __future__ import annotations

from ._pool import adaptive_windows as adaptive_windows
from ._pool import avg_pool as avg_pool
from ._pool import max_pool as max_pool
from ._rules import DECONVNET as DECONVNET
from ._rules import GUIDED as GUIDED
from ._rules import deconv_relu as deconv_relu
from ._rules import guided_relu as guided_relu
from ._table import EXACT as EXACT
from ._table import Ops as Ops
from ._table import add as add
from ._table import batch_norm as batch_norm
from ._table import conv as conv
from ._table import linear as linear
from ._table import relu as relu
