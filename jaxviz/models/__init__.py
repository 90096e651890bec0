"""Networks, their weights, and taps that look at any value inside them."""

from __future__ import annotations

from jaxviz.models._fast import hoist_kernels as hoist_kernels
from jaxviz.models._fast import prepare_kernels as prepare_kernels
from jaxviz.models._files.load import load as load
from jaxviz.models._files.load import untrained as untrained
from jaxviz.models._from_module import from_function as from_function
from jaxviz.models._from_module import from_module as from_module
from jaxviz.models._layer_table import Layer as Layer
from jaxviz.models._layer_table import LayerTable as LayerTable
from jaxviz.models._layer_table import ReceptiveField as ReceptiveField
from jaxviz.models._model import Model as Model
from jaxviz.models._network import Network as Network
from jaxviz.models._network import Structure as Structure
from jaxviz.models._patches import changed_activations as changed_activations
from jaxviz.models._patches import maps_around_patches as maps_around_patches
from jaxviz.models._taps import Tap as Tap
from jaxviz.models._taps import activations as activations
from jaxviz.models._taps import calls_through_ops as calls_through_ops
from jaxviz.models._taps import capture as capture
from jaxviz.models._taps import forward as forward
from jaxviz.models._taps import has_batch_norm as has_batch_norm
from jaxviz.models._taps import intervene as intervene
from jaxviz.models._taps import layer_shape as layer_shape
from jaxviz.models._taps import no_tap as no_tap
from jaxviz.models._taps import normalize as normalize
from jaxviz.models._taps import scope as scope
from jaxviz.models._torch.from_torch import from_torch as from_torch
from jaxviz.models._torch.verify import Verification as Verification
from jaxviz.models._torch.verify import verify as verify
from jaxviz.models._zoo.model_list import ModelInfo as ModelInfo
from jaxviz.models._zoo.model_list import ModelTable as ModelTable
from jaxviz.models._zoo.model_list import list_models as list_models
from jaxviz.models._zoo.resnet import ResNet as ResNet
from jaxviz.models._zoo.vgg import VGG as VGG
