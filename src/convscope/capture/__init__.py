"""Capture: run a model once and keep every tensor it makes.

Knows torch and hands out NumPy arrays; no explanations, plots, HTTP.
"""

from convscope.capture.difference import Difference as Difference
from convscope.capture.difference import difference as difference
from convscope.capture.run import trace as trace
from convscope.capture.trace import Ref as Ref
from convscope.capture.trace import Step as Step
from convscope.capture.trace import Trace as Trace
from convscope.capture.watching import Watch as Watch
