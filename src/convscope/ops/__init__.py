"""Operations: everything convscope knows about an ATen operation, except its definition (see `convscope.reference`).

One file per family, one literal table: `OPS`, from the operation's name to its `Op`. Rules know NumPy and nothing of
torch, traces or the reference implementation; each of the two does its own index arithmetic.
"""

from convscope.ops.lookup import explain_cell as explain_cell
from convscope.ops.lookup import role_of as role_of
from convscope.ops.lookup import title_of as title_of
from convscope.ops.op import Op as Op
from convscope.ops.op import Role as Role
from convscope.ops.table import OPS as OPS
