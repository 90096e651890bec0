"""The operations that networks are built from, and rules that replace one of them."""

from __future__ import annotations

from jaxviz.ops._pool import adaptive_windows as adaptive_windows
from jaxviz.ops._pool import avg_pool as avg_pool
from jaxviz.ops._pool import max_pool as max_pool
from jaxviz.ops._rules import DECONVNET as DECONVNET
from jaxviz.ops._rules import GUIDED as GUIDED
from jaxviz.ops._rules import REDIRECTED as REDIRECTED
from jaxviz.ops._rules import RELAXED as RELAXED
from jaxviz.ops._rules import deconv_relu as deconv_relu
from jaxviz.ops._rules import guided_relu as guided_relu
from jaxviz.ops._rules import redirected_relu as redirected_relu
from jaxviz.ops._rules import relaxed_max_pool as relaxed_max_pool
from jaxviz.ops._table import EXACT as EXACT
from jaxviz.ops._table import Ops as Ops
from jaxviz.ops._table import add as add
from jaxviz.ops._table import batch_norm as batch_norm
from jaxviz.ops._table import conv as conv
from jaxviz.ops._table import linear as linear
from jaxviz.ops._table import relu as relu
