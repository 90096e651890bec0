"""Objectives to maximize: a channel, a neuron, a layer, a class, any function of the activations, and sums of these.

An objective is a frozen pytree. The layer's name is static; units, positions and weights are array leaves, so another unit does
not recompile. A leading axis on a leaf means many units: `channel("layer3", range(256))` is 256 units of work.

Called, an objective scores the S sample images of one unit: `objective(activations, images) -> float32 (S,)`, larger is better.
`activations` maps layer names to (S, h, w, C), or (S, C) for layers without positions; `images` is float32 (S, H, W, C) in
[0, 1].
"""

from jaxviz.objectives._algebra import Objective as Objective
from jaxviz.objectives._basic import channel as channel
from jaxviz.objectives._basic import from_function as from_function
from jaxviz.objectives._basic import layer as layer
from jaxviz.objectives._basic import logit as logit
from jaxviz.objectives._basic import neuron as neuron
from jaxviz.objectives._directions import direction as direction
from jaxviz.objectives._directions import direction_neuron as direction_neuron
from jaxviz.objectives._directions import tensor_direction as tensor_direction
from jaxviz.objectives._match import match as match
from jaxviz.objectives._match import match_image as match_image
from jaxviz.objectives._match import near as near
from jaxviz.objectives._parse import ObjectiveLike as ObjectiveLike
from jaxviz.objectives._parse import parse as parse
from jaxviz.objectives._product import product as product
from jaxviz.objectives._samples import alignment as alignment
from jaxviz.objectives._samples import diverse as diverse
from jaxviz.objectives._samples import diversity as diversity
from jaxviz.objectives._samples import interpolate as interpolate
from jaxviz.objectives._style import gram as gram
from jaxviz.objectives._style import style as style
from jaxviz.objectives._whitening import whiten as whiten
