"""Pictures: every noun of convscope as a matplotlib Figure. Never shown, never saved: that is the caller's.

    figure = cs.plot.samples(cs.load_dataset("shapes"))
    figure.savefig("samples.svg")

Uses matplotlib's objects (no pyplot, no global settings) and NumPy arrays; no torch, no files.
"""

from convscope.plot.figures.attribution import attribution as attribution
from convscope.plot.figures.attribution import contributions as contributions
from convscope.plot.figures.compare import compare as compare
from convscope.plot.figures.confusion import confusion as confusion
from convscope.plot.figures.connections import connections as connections
from convscope.plot.figures.explanation import explanation as explanation
from convscope.plot.figures.feature_maps import maps as maps
from convscope.plot.figures.feature_maps import maps_by_class as maps_by_class
from convscope.plot.figures.filtered import filtered as filtered
from convscope.plot.figures.health import dead as dead
from convscope.plot.figures.health import gradients as gradients
from convscope.plot.figures.health import lint as lint
from convscope.plot.figures.history import history as history
from convscope.plot.figures.kernels import kernels as kernels
from convscope.plot.figures.network import network as network
from convscope.plot.figures.pixels import pixels as pixels
from convscope.plot.figures.pixels import planes as planes
from convscope.plot.figures.receptive_field import patches as patches
from convscope.plot.figures.receptive_field import receptive_field as receptive_field
from convscope.plot.figures.robustness import shift as shift
from convscope.plot.figures.robustness import shortcut as shortcut
from convscope.plot.figures.samples import samples as samples
from convscope.plot.figures.samples import spread as spread
from convscope.plot.figures.training_step import training_step as training_step


def __dir__() -> list[str]:
    """The figures, without the modules that they are in: what completion offers."""
    return sorted(name for name, value in globals().items() if callable(value) and not name.startswith("_"))
