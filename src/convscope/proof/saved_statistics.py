"""Saved statistics: a backward pass uses the mean and the rate as the forward pass rounded them.

Knows traces and the reference.
"""

import numpy as np

from convscope.proof.recomputation import arguments_of, recomputed
from convscope.reference.backward_normalization import batch_norm_moved
from convscope.traces.step import Step
from convscope.traces.trace import Trace
from convscope.typing import Array


def moved_by_statistics(trace: Trace, step: Step, output: int) -> Array | None:
    """How far the rounding of its saved statistics moves a gradient of batch norm; None for everything else.

    Of each statistic counts what it is off by, within the bound of the forward step: a wrong one moves nothing more.
    """
    arguments = arguments_of(trace, step) if step.op == "native_batch_norm_backward" else {}
    saved = {name: ref for name, _, ref in step.refs() if name in {"save_mean", "save_invstd"} and ref.kind == "step"}
    if not arguments.get("train") or len(saved) < 2:
        return None
    exact, off = list[Array](), list[Array]()
    for name in ("save_mean", "save_invstd"):
        witness = recomputed(trace, trace.all_steps[saved[name].id], saved[name].output)
        if witness is None:
            return None
        exact.append(witness.values)
        off.append(np.minimum(np.abs(arguments[name] - witness.values), witness.bounds))
    moved = batch_norm_moved(arguments["grad_out"], arguments["input"], arguments["weight"], *exact, *off)
    wanted = [each for each, asked in zip(moved, arguments["output_mask"], strict=True) if asked]
    return wanted[output]
