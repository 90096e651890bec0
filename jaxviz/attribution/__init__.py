"""Which pixels made the network say it: gradients, class activation maps, perturbations and relevance.

Every method is a function `method(model, images, target=None, ...)` that returns an `Attribution`; `attribute` takes its name.
"""

from jaxviz.attribution._attribute import METHODS as METHODS
from jaxviz.attribution._attribute import attribute as attribute
from jaxviz.attribution._attribution import Attribution as Attribution
from jaxviz.attribution._gradient import deconvnet as deconvnet
from jaxviz.attribution._gradient import guided_backprop as guided_backprop
from jaxviz.attribution._gradient import input_x_gradient as input_x_gradient
from jaxviz.attribution._gradient import saliency as saliency
from jaxviz.attribution._noise import smoothgrad as smoothgrad
from jaxviz.attribution._noise import smoothgrad_squared as smoothgrad_squared
from jaxviz.attribution._noise import vargrad as vargrad
from jaxviz.attribution._occlusion import feature_ablation as feature_ablation
from jaxviz.attribution._occlusion import occlusion as occlusion
from jaxviz.attribution._path import integrated_gradients as integrated_gradients
from jaxviz.attribution._rise import rise as rise
from jaxviz.attribution._shap import gradient_shap as gradient_shap
from jaxviz.attribution._target import log_probability as log_probability
from jaxviz.attribution._target import margin as margin
from jaxviz.attribution._target import probability as probability
