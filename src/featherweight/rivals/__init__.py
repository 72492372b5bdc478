"""The other packages behind one small interface, for ``featherweight bench`` and ``benchmarks/``.

A `Rival` is a value: a name, the settings it runs with, and two functions. Nothing is imported before it is used, and
`measure` runs several of them interleaved, on the same array, with every decode verified.

>>> import numpy as np
>>> row, = measure(np.zeros(4096, np.float32), [COPY], repetitions=2)
>>> row.ratio, len(row.encode)
(1.0, 2)
"""

from featherweight.rivals.measuring import Quartiles, Rival, Row, Speed, measure, paired, speed
from featherweight.rivals.own import ours, ours_as_file
from featherweight.rivals.packages import COPY, RIVALS, installed, openzl

__all__ = [
    "COPY",
    "RIVALS",
    "Quartiles",
    "Rival",
    "Row",
    "Speed",
    "installed",
    "measure",
    "openzl",
    "ours",
    "ours_as_file",
    "paired",
    "speed",
]
