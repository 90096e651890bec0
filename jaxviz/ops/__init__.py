"""The operations that networks are built from, and rules that replace the gradient of one of them."""

from __future__ import annotations

from jaxviz.ops._pooling import avg_pool as avg_pool
from jaxviz.ops._pooling import max_pool as max_pool
from jaxviz.ops._rules.lrp_propagation import Composite as Composite
from jaxviz.ops._rules.lrp_rules import ImageRule as ImageRule
from jaxviz.ops._rules.lrp_rules import Rule as Rule
from jaxviz.ops._rules.lrp_rules import alpha_beta_rule as alpha_beta_rule
from jaxviz.ops._rules.lrp_rules import epsilon_rule as epsilon_rule
from jaxviz.ops._rules.lrp_rules import flat_rule as flat_rule
from jaxviz.ops._rules.lrp_rules import gamma_rule as gamma_rule
from jaxviz.ops._rules.lrp_rules import z_box_rule as z_box_rule
from jaxviz.ops._rules.lrp_rules import z_plus_rule as z_plus_rule
from jaxviz.ops._rules.relu import DECONVNET as DECONVNET
from jaxviz.ops._rules.relu import GUIDED as GUIDED
from jaxviz.ops._rules.relu import REDIRECTED as REDIRECTED
from jaxviz.ops._rules.relu import RELAXED as RELAXED
from jaxviz.ops._rules.relu import deconv_relu as deconv_relu
from jaxviz.ops._rules.relu import guided_relu as guided_relu
from jaxviz.ops._rules.relu import redirected_relu as redirected_relu
from jaxviz.ops._rules.relu import relaxed_max_pool as relaxed_max_pool
from jaxviz.ops._table import EXACT as EXACT
from jaxviz.ops._table import Ops as Ops
from jaxviz.ops._table import add as add
from jaxviz.ops._table import batch_norm as batch_norm
from jaxviz.ops._table import conv as conv
from jaxviz.ops._table import linear as linear
from jaxviz.ops._table import relu as relu
