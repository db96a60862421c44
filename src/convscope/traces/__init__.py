"""Traces: the recorded forward pass as data, in memory or in a file, and the difference between two of them.

Uses NumPy, operations and cards; no torch: `convscope.capture` records traces.
"""

from convscope.traces.difference import Difference as Difference
from convscope.traces.difference import difference as difference
from convscope.traces.step import Ref as Ref
from convscope.traces.step import Step as Step
from convscope.traces.trace import Trace as Trace
