"""Rules: one number of one operation -> a small expression of recorded numbers, with its error bound.

A rule is a plain function (call, cell) -> expression, found in `RULES` by operation name. Rules know NumPy and nothing
of torch, traces or the reference implementation: each does its own index arithmetic.
"""

from convscope.rules.call import Array as Array
from convscope.rules.call import Call as Call
from convscope.rules.call import Operand as Operand
from convscope.rules.call import Source as Source
from convscope.rules.call import full_cell as full_cell
from convscope.rules.expr import Apply as Apply
from convscope.rules.expr import Cells as Cells
from convscope.rules.expr import Dot as Dot
from convscope.rules.expr import Expr as Expr
from convscope.rules.expr import Leaf as Leaf
from convscope.rules.functions import FUNCTIONS as FUNCTIONS
from convscope.rules.table import RULES as RULES
from convscope.rules.table import Rule as Rule
from convscope.rules.table import explain_cell as explain_cell
