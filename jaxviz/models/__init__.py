"""Networks, their weights, and taps that look at any value inside them."""

from __future__ import annotations

from ._list import ModelInfo as ModelInfo
from ._list import ModelTable as ModelTable
from ._list import list_models as list_models
from ._load import load as load
from ._model import Model as Model
from ._model import from_function as from_function
from ._model import from_module as from_module
from ._resnet import ResNet as ResNet
from ._table import Layer as Layer
from ._table import LayerTable as LayerTable
from ._table import ReceptiveField as ReceptiveField
from ._taps import Tap as Tap
from ._taps import activations as activations
from ._taps import forward as forward
from ._taps import no_tap as no_tap
from ._taps import perturbed as perturbed
from ._taps import scope as scope
from ._torch import from_torch as from_torch
from ._verify import Verification as Verification
from ._verify import verify as verify
from ._vgg import VGG as VGG
