"""The public names of `cs.probe`, imported when the first of them is used, since most of them load torch."""

# ruff: noqa: PLC0414  # the names are passed on

from convscope.probe.attribution import Attributed as Attributed
from convscope.probe.attribution import Attribution as Attribution
from convscope.probe.attribution import attribution as attribution
from convscope.probe.compare import Compare as Compare
from convscope.probe.compare import Compared as Compared
from convscope.probe.compare import Disagreement as Disagreement
from convscope.probe.compare import Pair as Pair
from convscope.probe.compare import compare as compare
from convscope.probe.dead import Dead as Dead
from convscope.probe.dead import Duplicate as Duplicate
from convscope.probe.dead import StepUnits as StepUnits
from convscope.probe.dead import dead as dead
from convscope.probe.gradients import Gradients as Gradients
from convscope.probe.gradients import gradients as gradients
from convscope.probe.lint import lint as lint
from convscope.probe.linting.findings import Finding as Finding
from convscope.probe.linting.findings import Lint as Lint
from convscope.probe.patches import Patch as Patch
from convscope.probe.patches import Patches as Patches
from convscope.probe.patches import patches as patches
from convscope.probe.receptive_field import ReceptiveField as ReceptiveField
from convscope.probe.receptive_field import receptive_field as receptive_field
from convscope.probe.receptive_field import receptive_fields as receptive_fields
from convscope.probe.shift import shift as shift
from convscope.probe.shortcut import Shortcut as Shortcut
from convscope.probe.shortcut import shortcut as shortcut
from convscope.probe.support.gradient_norms import GradientPoint as GradientPoint
from convscope.probe.support.gradient_norms import LayerGradients as LayerGradients
from convscope.probe.support.report import ProbeReport as ProbeReport
from convscope.probe.support.report import Proportion as Proportion
from convscope.probe.support.report import Table as Table
from convscope.probe.support.robustness import Shift as Shift
from convscope.probe.support.transforms import Motion as Motion
