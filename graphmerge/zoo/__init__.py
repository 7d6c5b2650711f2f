"""A zoo: a folder of models that are checked against what was measured of them before."""

from graphmerge.zoo.baseline import read_baseline, write_baseline
from graphmerge.zoo.config import Entry, ZooFolder, read_zoo
from graphmerge.zoo.judge import Check, judge
from graphmerge.zoo.measure import Measured, measure
from graphmerge.zoo.run import run, select

__all__ = [
    "Check",
    "Entry",
    "Measured",
    "ZooFolder",
    "judge",
    "measure",
    "read_baseline",
    "read_zoo",
    "run",
    "select",
    "write_baseline",
]
