"""How an image is parameterized: what the optimizer changes, and how an image is decoded from it."""

from __future__ import annotations

from jaxviz.param._alpha import Alpha as Alpha
from jaxviz.param._alpha import alpha as alpha
from jaxviz.param._ball import Ball as Ball
from jaxviz.param._ball import ball as ball
from jaxviz.param._base import Param as Param
from jaxviz.param._base import decode_group as decode_group
from jaxviz.param._base import enlarge as enlarge
from jaxviz.param._base import project_group as project_group
from jaxviz.param._color import correlate as correlate
from jaxviz.param._color import decorrelate as decorrelate
from jaxviz.param._cppn import Cppn as Cppn
from jaxviz.param._cppn import cppn as cppn
from jaxviz.param._fourier import Fourier as Fourier
from jaxviz.param._fourier import fourier as fourier
from jaxviz.param._grayscale import Grayscale as Grayscale
from jaxviz.param._grayscale import grayscale as grayscale
from jaxviz.param._laplacian import Laplacian as Laplacian
from jaxviz.param._laplacian import laplacian as laplacian
from jaxviz.param._low_resolution import LowResolution as LowResolution
from jaxviz.param._low_resolution import low_resolution as low_resolution
from jaxviz.param._maco import Maco as Maco
from jaxviz.param._maco import maco as maco
from jaxviz.param._maco import spectrum as spectrum
from jaxviz.param._pixel import Pixel as Pixel
from jaxviz.param._pixel import pixel as pixel
from jaxviz.param._shared import Shared as Shared
from jaxviz.param._shared import shared as shared
