"""The engine: programs written for one unit of work or a batch of images, run in chunks over all devices."""

from jaxviz.engine._ascent import Recipe as Recipe
from jaxviz.engine._ascent import Unit as Unit
from jaxviz.engine._execute import Stage as Stage
from jaxviz.engine._execute import run as run
from jaxviz.engine._fold import Fold as Fold
from jaxviz.engine._options import RunOptions as RunOptions
from jaxviz.engine._processes import share as share
from jaxviz.engine._progress import Progress as Progress
from jaxviz.engine._protocols import Folding as Folding
from jaxviz.engine._protocols import Reduction as Reduction
from jaxviz.engine._protocols import Steps as Steps
from jaxviz.engine._reduce import map_images as map_images
from jaxviz.engine._reduce import map_steps as map_steps
from jaxviz.engine._reduce import reduce_images as reduce_images
from jaxviz.engine._sharding import is_cpu as is_cpu
from jaxviz.engine._sharding import make_mesh as make_mesh
from jaxviz.engine._store import Store as Store
