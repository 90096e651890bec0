"""The operations that networks are built from, and rules that replace one of them."""

from __future__ import annotations

from jaxviz.ops._lrp import ImageRule as ImageRule
from jaxviz.ops._lrp import PeerAlpha1Beta0 as PeerAlpha1Beta0
from jaxviz.ops._lrp import PeerGamma as PeerGamma
from jaxviz.ops._lrp import Rule as Rule
from jaxviz.ops._lrp import alpha_beta_rule as alpha_beta_rule
from jaxviz.ops._lrp import epsilon_rule as epsilon_rule
from jaxviz.ops._lrp import flat_rule as flat_rule
from jaxviz.ops._lrp import gamma_rule as gamma_rule
from jaxviz.ops._lrp import z_box_rule as z_box_rule
from jaxviz.ops._lrp import z_plus_rule as z_plus_rule
from jaxviz.ops._parts import Axis as Axis
from jaxviz.ops._parts import Part as Part
from jaxviz.ops._parts import UnknownMap as UnknownMap
from jaxviz.ops._parts import is_large as is_large
from jaxviz.ops._parts import on_parts as on_parts
from jaxviz.ops._parts import sliced as sliced
from jaxviz.ops._parts import whole as whole
from jaxviz.ops._pool import adaptive_windows as adaptive_windows
from jaxviz.ops._pool import avg_pool as avg_pool
from jaxviz.ops._pool import max_pool as max_pool
from jaxviz.ops._prepared import PreparedKernel as PreparedKernel
from jaxviz.ops._prepared import plain as plain
from jaxviz.ops._prepared import prepare_kernel as prepare_kernel
from jaxviz.ops._relevance import Bias as Bias
from jaxviz.ops._relevance import Composite as Composite
from jaxviz.ops._relevance import Propagation as Propagation
from jaxviz.ops._relevance import Residual as Residual
from jaxviz.ops._rescale import Record as Record
from jaxviz.ops._rescale import Rescale as Rescale
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
