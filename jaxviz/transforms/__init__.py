"""Random transforms of an image, `(key, image (H, W, C)) -> image`, which make optimized images robust to small changes.

- motion: `pad`, `jitter`, `scale`, `rotate`, `crop`; boxes: `random_resized_crop`; rearrangement: `flip`, `roll`
- less detail, or noise: `blur`, `noise`
- color: `color_jitter`, `color_shift`; opacity on a random background: `composite`
- sequences: `compose`; published lists: `standard`, `all_stops`, `caricature`

Any function of the same form is a transform too. Each image has its own draw (the engine calls them under `vmap`). Amounts are
traced and shapes static, so another amount does not recompile.

Padding, jitter, scaling and rotation move an image on an endless canvas of one fill color, seen through a window of fixed
size. In `compose`, neighbors among them with the same fill color become one motion: the image is interpolated once,
bilinearly, or not at all if it only moves by whole pixels.

Positions are (row, column) with pixel (0, 0) at the top left; the center of an image is ((H - 1) / 2, (W - 1) / 2).
"""

from __future__ import annotations

from jaxviz.transforms._base import Transform as Transform
from jaxviz.transforms._color import color_jitter as color_jitter
from jaxviz.transforms._color import color_shift as color_shift
from jaxviz.transforms._compose import compose as compose
from jaxviz.transforms._compose import identity as identity
from jaxviz.transforms._composite import composite as composite
from jaxviz.transforms._crop import crop as crop
from jaxviz.transforms._crop import random_resized_crop as random_resized_crop
from jaxviz.transforms._filter import blur as blur
from jaxviz.transforms._filter import noise as noise
from jaxviz.transforms._flip import flip as flip
from jaxviz.transforms._flip import roll as roll
from jaxviz.transforms._geometry import jitter as jitter
from jaxviz.transforms._geometry import pad as pad
from jaxviz.transforms._geometry import rotate as rotate
from jaxviz.transforms._geometry import scale as scale
from jaxviz.transforms._presets import all_stops as all_stops
from jaxviz.transforms._presets import caricature as caricature
from jaxviz.transforms._presets import standard as standard
