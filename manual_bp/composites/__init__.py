"""Composites beside `Sequential`, one file each: layers made of layers, for networks that are no chains."""

from .parallel import Parallel as Parallel
from .residual import Residual as Residual
from .rowwise import Rowwise as Rowwise
