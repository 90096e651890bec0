"""Arrays to pictures: grids, contact sheets, maps and overlays, as uint8 arrays (..., H, W, 3), RGB, that any viewer shows."""

from jaxviz.plot._categories import category_colours as category_colours
from jaxviz.plot._categories import class_colours as class_colours
from jaxviz.plot._categories import legend as legend
from jaxviz.plot._colours import COLOURS as COLOURS
from jaxviz.plot._colours import Colours as Colours
from jaxviz.plot._colours import colour_table as colour_table
from jaxviz.plot._colours import colourise as colourise
from jaxviz.plot._figure import figure as figure
from jaxviz.plot._grid import grid as grid
from jaxviz.plot._maps import COLOURS_OF as COLOURS_OF
from jaxviz.plot._maps import Style as Style
from jaxviz.plot._maps import clip_limits as clip_limits
from jaxviz.plot._maps import draw_maps as draw_maps
from jaxviz.plot._maps import fitted as fitted
from jaxviz.plot._maps import highlight as highlight
from jaxviz.plot._maps import outline as outline
from jaxviz.plot._maps import overlay as overlay
from jaxviz.plot._sheet import Section as Section
from jaxviz.plot._sheet import contact_sheet as contact_sheet
from jaxviz.plot._table import Bar as Bar
from jaxviz.plot._table import colour_bar as colour_bar
from jaxviz.plot._table import stack as stack
from jaxviz.plot._table import table as table
