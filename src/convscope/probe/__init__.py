"""Probes: questions about a model and its data, answered by measurement.

    found = cs.probe.receptive_field(trace, "conv2", (0, 5, 5))
    print(found)
    cs.plot.receptive_field(found)

A probe is a function that gives a frozen dataclass: printed it is what a person reads, `to_json()` is what a script
reads. It never prints and never draws; `cs.plot` has a picture of the same name.
Knows torch, traces, data and trainings; no pictures, no command line.
"""

from convscope.probe.attribution import Attributed as Attributed
from convscope.probe.attribution import Attribution as Attribution
from convscope.probe.attribution import attribution as attribution
from convscope.probe.borders import Borders as Borders
from convscope.probe.borders import borders as borders
from convscope.probe.borders import trainings as trainings
from convscope.probe.compare import Compare as Compare
from convscope.probe.compare import Compared as Compared
from convscope.probe.compare import Disagreement as Disagreement
from convscope.probe.compare import Pair as Pair
from convscope.probe.compare import compare as compare
from convscope.probe.dead import Dead as Dead
from convscope.probe.dead import Duplicate as Duplicate
from convscope.probe.dead import StepUnits as StepUnits
from convscope.probe.dead import dead as dead
from convscope.probe.linting.findings import Finding as Finding
from convscope.probe.linting.findings import Lint as Lint
from convscope.probe.linting.lint import lint as lint
from convscope.probe.patches import Patch as Patch
from convscope.probe.patches import Patches as Patches
from convscope.probe.patches import patches as patches
from convscope.probe.receptive_field import ReceptiveField as ReceptiveField
from convscope.probe.receptive_field import receptive_field as receptive_field
from convscope.probe.receptive_field import receptive_fields as receptive_fields
from convscope.probe.shift import shift as shift
from convscope.probe.shortcut import Shortcut as Shortcut
from convscope.probe.shortcut import shortcut as shortcut
from convscope.probe.support.equivariance import Motion as Motion
from convscope.probe.support.proportion import Proportion as Proportion
from convscope.probe.support.report import Report as Report
from convscope.probe.support.report import Table as Table
from convscope.probe.support.robustness import Shift as Shift
