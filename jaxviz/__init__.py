"""Visualize and explain pretrained CNNs at scale: feature visualization, inversion and attribution in JAX.

>>> import jaxviz as jv
>>> result = jv.visualize(jv.load(), "layer4:0-1", samples=2, steps=1, size=32)
>>> result.images.shape
(2, 2, 32, 32, 3)
"""

from jaxviz import attribution as attribution
from jaxviz import gallery as gallery
from jaxviz import image as image
from jaxviz import inspection as inspection
from jaxviz import metrics as metrics
from jaxviz import models as models
from jaxviz import objectives as objectives
from jaxviz import ops as ops
from jaxviz import param as param
from jaxviz import plot as plot
from jaxviz import regularizers as regularizers
from jaxviz import transforms as transforms
from jaxviz._errors import ArgumentError as ArgumentError
from jaxviz._errors import CheckpointError as CheckpointError
from jaxviz._errors import DownloadError as DownloadError
from jaxviz._errors import ImageError as ImageError
from jaxviz._errors import JaxvizError as JaxvizError
from jaxviz._errors import LayerError as LayerError
from jaxviz._errors import MemoryLimitError as MemoryLimitError
from jaxviz._errors import SaveError as SaveError
from jaxviz._errors import UnitError as UnitError
from jaxviz._errors import UnsupportedError as UnsupportedError
from jaxviz._result_files import version_of as _version_of
from jaxviz._visualize.dream import deepdream as deepdream
from jaxviz._visualize.inversion import Inversion as Inversion
from jaxviz._visualize.inversion import accentuate as accentuate
from jaxviz._visualize.inversion import caricature as caricature
from jaxviz._visualize.inversion import invert as invert
from jaxviz._visualize.options import VisualizeOptions as VisualizeOptions
from jaxviz._visualize.visualize import Interrupted as Interrupted
from jaxviz._visualize.visualize import iter_visualize as iter_visualize
from jaxviz._visualize.visualize import visualize as visualize
from jaxviz.attribution import Attribution as Attribution
from jaxviz.attribution import attribute as attribute
from jaxviz.attribution import load_attribution as load_attribution
from jaxviz.engine import Progress as Progress
from jaxviz.engine import RunOptions as RunOptions
from jaxviz.engine import make_mesh as make_mesh
from jaxviz.models import Model as Model
from jaxviz.models import from_function as from_function
from jaxviz.models import from_module as from_module
from jaxviz.models import from_torch as from_torch
from jaxviz.models import list_models as list_models
from jaxviz.models import load as load
from jaxviz.objectives import Objective as Objective
from jaxviz.objectives import alignment as alignment
from jaxviz.objectives import channel as channel
from jaxviz.objectives import direction as direction
from jaxviz.objectives import direction_neuron as direction_neuron
from jaxviz.objectives import diverse as diverse
from jaxviz.objectives import diversity as diversity
from jaxviz.objectives import gram as gram
from jaxviz.objectives import interpolate as interpolate
from jaxviz.objectives import layer as layer
from jaxviz.objectives import logit as logit
from jaxviz.objectives import match as match
from jaxviz.objectives import match_image as match_image
from jaxviz.objectives import near as near
from jaxviz.objectives import neuron as neuron
from jaxviz.objectives import parse as parse
from jaxviz.objectives import product as product
from jaxviz.objectives import style as style
from jaxviz.objectives import tensor_direction as tensor_direction
from jaxviz.result import Result as Result
from jaxviz.result import load_result as load_result

__version__ = _version_of("jaxviz")
