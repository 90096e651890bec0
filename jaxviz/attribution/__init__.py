"""Which pixels made the network say it: gradients, class activation maps, perturbations and relevance.

Every method is a function `method(model, images, target=None, ...)` that returns an `Attribution`; `attribute` takes its name.
"""

from jaxviz.attribution._attribute import METHODS as METHODS
from jaxviz.attribution._attribute import MethodOptions as MethodOptions
from jaxviz.attribution._attribute import attribute as attribute
from jaxviz.attribution._attribution import Attribution as Attribution
from jaxviz.attribution._attribution import load_attribution as load_attribution
from jaxviz.attribution._cam.ablation_cam import ablation_cam as ablation_cam
from jaxviz.attribution._cam.grad_cam import cam as cam
from jaxviz.attribution._cam.grad_cam import eigen_cam as eigen_cam
from jaxviz.attribution._cam.grad_cam import eigen_grad_cam as eigen_grad_cam
from jaxviz.attribution._cam.grad_cam import grad_cam as grad_cam
from jaxviz.attribution._cam.grad_cam import grad_cam_elementwise as grad_cam_elementwise
from jaxviz.attribution._cam.grad_cam import grad_cam_plus_plus as grad_cam_plus_plus
from jaxviz.attribution._cam.grad_cam import hires_cam as hires_cam
from jaxviz.attribution._cam.grad_cam import layer_cam as layer_cam
from jaxviz.attribution._cam.grad_cam import xgrad_cam as xgrad_cam
from jaxviz.attribution._cam.gradient_cams import gradient_cams as gradient_cams
from jaxviz.attribution._cam.gradient_cams import traced_cam as traced_cam
from jaxviz.attribution._cam.layers import default_layer as default_layer
from jaxviz.attribution._cam.score_cam import score_cam as score_cam
from jaxviz.attribution._comparison import compare as compare
from jaxviz.attribution._iter_attribute import AttributedImage as AttributedImage
from jaxviz.attribution._iter_attribute import AttributionRun as AttributionRun
from jaxviz.attribution._iter_attribute import iter_attribute as iter_attribute
from jaxviz.attribution._methods.deep_lift import deep_lift as deep_lift
from jaxviz.attribution._methods.full_grad import full_grad as full_grad
from jaxviz.attribution._methods.gradient import deconvnet as deconvnet
from jaxviz.attribution._methods.gradient import guided_backprop as guided_backprop
from jaxviz.attribution._methods.gradient import input_x_gradient as input_x_gradient
from jaxviz.attribution._methods.gradient import saliency as saliency
from jaxviz.attribution._methods.gradient_shap import gradient_shap as gradient_shap
from jaxviz.attribution._methods.guided_grad_cam import guided_grad_cam as guided_grad_cam
from jaxviz.attribution._methods.integrated_gradients import integrated_gradients as integrated_gradients
from jaxviz.attribution._methods.lrp import lrp as lrp
from jaxviz.attribution._methods.occlusion import feature_ablation as feature_ablation
from jaxviz.attribution._methods.occlusion import occlusion as occlusion
from jaxviz.attribution._methods.rise import rise as rise
from jaxviz.attribution._methods.smoothgrad import smoothgrad as smoothgrad
from jaxviz.attribution._methods.smoothgrad import smoothgrad_squared as smoothgrad_squared
from jaxviz.attribution._methods.smoothgrad import vargrad as vargrad
from jaxviz.attribution._pictures import Look as Look
from jaxviz.attribution._target import log_probability as log_probability
from jaxviz.attribution._target import margin as margin
from jaxviz.attribution._target import probability as probability
