"""Random transforms of an image, `(key, image (H, W, C)) -> image`, so that what is optimised survives being moved about.

Padding, jitter, scaling and rotation move an image on an endless canvas of one fill colour, seen through a window of
fixed size (static shapes: nothing is compiled again when an amount changes). In `compose`, neighbours among them with
the same fill colour are multiplied into one motion, so that the image is interpolated once, bilinearly, or not at all
where it only moves by whole pixels.

Positions are (row, column) with pixel (0, 0) at the top left; the centre of an image is ((H - 1) / 2, (W - 1) / 2).
"""

from __future__ import annotations

from jaxviz.transforms._base import Transform as Transform
from jaxviz.transforms._compose import Compose as Compose
from jaxviz.transforms._compose import compose as compose
from jaxviz.transforms._compose import identity as identity
from jaxviz.transforms._geometry import jitter as jitter
from jaxviz.transforms._geometry import pad as pad
from jaxviz.transforms._geometry import rotate as rotate
from jaxviz.transforms._geometry import scale as scale
from jaxviz.transforms._presets import standard as standard
