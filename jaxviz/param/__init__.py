"""How an image is parameterized: what the optimizer changes, and how an image is decoded from it."""

from __future__ import annotations

from jaxviz.param._alpha import alpha as alpha
from jaxviz.param._ball import ball as ball
from jaxviz.param._base import Param as Param
from jaxviz.param._cppn import cppn as cppn
from jaxviz.param._fourier import fourier as fourier
from jaxviz.param._grayscale import grayscale as grayscale
from jaxviz.param._laplacian import laplacian as laplacian
from jaxviz.param._low_resolution import low_resolution as low_resolution
from jaxviz.param._maco import maco as maco
from jaxviz.param._maco import spectrum as spectrum
from jaxviz.param._pixel import pixel as pixel
from jaxviz.param._shared import shared as shared
