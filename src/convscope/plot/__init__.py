"""Pictures: every noun of convscope as a matplotlib Figure. Never shown, never saved: that is the caller's.

    figure = cs.plot.samples(cs.load_dataset("shapes"))
    figure.savefig("samples.svg")

Knows matplotlib's objects (no pyplot, no global settings) and NumPy arrays; no torch, no files.
"""

from convscope.plot.attribution import attribution as attribution
from convscope.plot.borders import borders as borders
from convscope.plot.compare import compare as compare
from convscope.plot.contributions import contributions as contributions
from convscope.plot.curves import history as history
from convscope.plot.dead import dead as dead
from convscope.plot.equation import filtered as filtered
from convscope.plot.explanation import explanation as explanation
from convscope.plot.feature_maps import maps as maps
from convscope.plot.feature_maps import maps_by_class as maps_by_class
from convscope.plot.gallery import samples as samples
from convscope.plot.gallery import spread as spread
from convscope.plot.grid import pixels as pixels
from convscope.plot.grid import planes as planes
from convscope.plot.lint import lint as lint
from convscope.plot.matrix import confusion as confusion
from convscope.plot.patches import patches as patches
from convscope.plot.receptive_field import receptive_field as receptive_field
from convscope.plot.shift import shift as shift
from convscope.plot.shortcut import shortcut as shortcut
from convscope.plot.strip import network as network
from convscope.plot.weights import kernels as kernels
