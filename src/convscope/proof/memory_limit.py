"""Memory limit: what `verify` may take on top of the trace. Uses traces."""

import math
import re

from convscope.traces.step import Ref
from convscope.traces.trace import Trace

ALLOWANCE = 256_000_000
"""Bytes that any trace may need."""
TIMES = 3
"""How many times the largest step may be needed besides."""


def allowed(trace: Trace) -> int:
    """Bytes that verifying takes at most on top of the trace: 256 MB and three times its largest step.

    >>> import torch, convscope as cs
    >>> allowed(cs.trace(torch.nn.ReLU(), torch.ones(1, 1, 5, 5)))
    256000600
    """
    sizes = (sum(map(bytes_of, (*step.results, *(ref for *_, ref in step.refs())))) for step in trace.all_steps)
    return ALLOWANCE + TIMES * max(sizes, default=0)


def bytes_of(ref: Ref) -> int:
    """The size of a tensor as a trace holds it."""
    bits = re.search(r"\d+", ref.dtype)  # none in bool; the first in float8_e4m3fn
    return math.prod(ref.shape) * (int(bits[0]) // 8 if bits else 1)
