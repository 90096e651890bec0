"""Metrics of maps: per image, seeded, computed in batches on the device.

Maps are an `Attribution` or an array (N, h, w) or (N, h, w, C). By default, the target is that of the `Attribution`. A metric
returns float32 (N,), or (N, K) for K targets, with NaN where it is undefined; the mean over images is `.mean()`. Metrics that
are computed along a curve return an object whose `value` has this shape. The arrays of `model_randomization` have an axis of
layers at the end.
"""

from jaxviz.metrics._average_drop import Confidence as Confidence
from jaxviz.metrics._average_drop import ConfidenceOptions as ConfidenceOptions
from jaxviz.metrics._average_drop import average_drop as average_drop
from jaxviz.metrics._average_drop import average_gain as average_gain
from jaxviz.metrics._average_drop import average_increase as average_increase
from jaxviz.metrics._average_drop import confidence as confidence
from jaxviz.metrics._curves import RISE as RISE
from jaxviz.metrics._curves import Curves as Curves
from jaxviz.metrics._curves import deletion as deletion
from jaxviz.metrics._curves import insertion as insertion
from jaxviz.metrics._fidelity import infidelity as infidelity
from jaxviz.metrics._localization import localization as localization
from jaxviz.metrics._localization import pointing_game as pointing_game
from jaxviz.metrics._localization import rank_accuracy as rank_accuracy
from jaxviz.metrics._model_randomization import Randomization as Randomization
from jaxviz.metrics._model_randomization import SanityCheck as SanityCheck
from jaxviz.metrics._model_randomization import model_randomization as model_randomization
from jaxviz.metrics._model_randomization import sanity_check as sanity_check
from jaxviz.metrics._reinitialize import cascade as cascade
from jaxviz.metrics._reinitialize import initial as initial
from jaxviz.metrics._reinitialize import weight_layers as weight_layers
from jaxviz.metrics._road import Road as Road
from jaxviz.metrics._road import road as road
from jaxviz.metrics._sensitivity import max_sensitivity as max_sensitivity
from jaxviz.metrics._sparseness import complexity as complexity
from jaxviz.metrics._sparseness import sparseness as sparseness
