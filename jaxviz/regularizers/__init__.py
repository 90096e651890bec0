"""Penalties on an image: `(image (H, W, C)) -> scalar`, subtracted from what is maximized.

- values: `l1`, `l2`, `p_norm`, `l_infinity`; an image to stay near: `near`
- roughness: `total_variation`, `frequency_penalty`, `blur`; at the border: `boundary_complexity`

Any function of the same form is a regularizer too. All are sums over pixels and channels, so a weight is equally strong for
each pixel at any image size; except `near`, a mean, and `l_infinity`, a maximum.
"""

from __future__ import annotations

from jaxviz.regularizers._base import Regularizer as Regularizer
from jaxviz.regularizers._norms import l1 as l1
from jaxviz.regularizers._norms import l2 as l2
from jaxviz.regularizers._norms import l_infinity as l_infinity
from jaxviz.regularizers._norms import near as near
from jaxviz.regularizers._norms import p_norm as p_norm
from jaxviz.regularizers._smoothness import blur as blur
from jaxviz.regularizers._smoothness import boundary_complexity as boundary_complexity
from jaxviz.regularizers._smoothness import frequency_penalty as frequency_penalty
from jaxviz.regularizers._smoothness import total_variation as total_variation
