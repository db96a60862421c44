"""Text: an expression as a calculation on paper, for a terminal 80 to 100 columns wide.

Knows expressions; no steps, no proof. Every calculation can be repeated with a pocket calculator from the numbers as
they are shown; what their rounding leaves over is a line of its own.
"""

from convscope.rules.text.detail import Detail as Detail
from convscope.rules.text.display import short as short
from convscope.rules.text.drawing import draw as draw
from convscope.rules.text.drawing import headline as headline
from convscope.rules.text.drawing import result as result
from convscope.rules.text.formulas import formula as formula
from convscope.rules.text.page import compared as compared
from convscope.rules.text.page import page as page
from convscope.rules.text.page import passage as passage
from convscope.rules.text.paper import Paper as Paper
from convscope.rules.text.paper import paper as paper
from convscope.rules.text.sheet import RULE as RULE
from convscope.rules.text.sheet import Row as Row
from convscope.rules.text.sheet import indented as indented
from convscope.rules.text.sheet import render as render
