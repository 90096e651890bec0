"""Arrays to pictures: grids and contact sheets, as uint8 arrays (H, W, 3) that any viewer shows."""

from jaxviz.plot._grid import grid as grid
from jaxviz.plot._sheet import Section as Section
from jaxviz.plot._sheet import contact_sheet as contact_sheet
