"""How an image is parameterised: what the optimiser moves, and how an image is made of it."""

from __future__ import annotations

from jaxviz.param._base import Param as Param
from jaxviz.param._base import enlarge as enlarge
from jaxviz.param._color import correlate as correlate
from jaxviz.param._color import decorrelate as decorrelate
from jaxviz.param._fourier import Fourier as Fourier
from jaxviz.param._fourier import fourier as fourier
from jaxviz.param._pixel import Pixel as Pixel
from jaxviz.param._pixel import pixel as pixel
