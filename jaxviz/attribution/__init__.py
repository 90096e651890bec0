"""Which pixels made the network say it: gradients, class activation maps, perturbations and relevance.

Every method is a function `method(model, images, target=None, ...)` that returns an `Attribution`; `attribute` takes its name.
"""

from jaxviz.attribution._attribute import METHODS as METHODS
from jaxviz.attribution._attribute import attribute as attribute
from jaxviz.attribution._attribution import Attribution as Attribution
from jaxviz.attribution._deep_lift import deep_lift as deep_lift
from jaxviz.attribution._gradient import deconvnet as deconvnet
from jaxviz.attribution._gradient import guided_backprop as guided_backprop
from jaxviz.attribution._gradient import input_x_gradient as input_x_gradient
from jaxviz.attribution._gradient import saliency as saliency
from jaxviz.attribution._lrp import lrp as lrp
from jaxviz.attribution._target import log_probability as log_probability
from jaxviz.attribution._target import margin as margin
from jaxviz.attribution._target import probability as probability
