"""One table of operations for the rules: what PyTorch is asked to do, on inputs whose sizes all differ.

Each case is traced like any model; the trace may record several operations, and all of them are looked at. Channels,
kernel, input and output sizes differ, so that a swapped axis cannot pass.
"""

import zlib
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from convscope.capture.tracing import trace
from convscope.traces.trace import Trace
from rule_case import Case, Doing, call
from rule_cases_backward import BACKWARD
from rule_cases_layers import LAYERS
from rule_cases_moves import FILLED, MOVES, RESAMPLING
from rule_cases_numbers import ACTIVATION, ARITHMETIC, FUNCTIONS, REDUCTION
from rule_cases_windows import ATTENTION, CONVOLUTION, FUSED, LINEAR, NORMALIZATION, POOLING

CASES: Mapping[str, Case] = {
    **CONVOLUTION,
    **LINEAR,
    **POOLING,
    **NORMALIZATION,
    **REDUCTION,
    **ACTIVATION,
    **FUNCTIONS,
    **ARITHMETIC,
    **MOVES,
    **FILLED,
    **RESAMPLING,
    **ATTENTION,
    **FUSED,
    **{name: call(does, *shapes, slopes=False) for name, (does, shapes) in BACKWARD.items()},
    **LAYERS,
}


@lru_cache(maxsize=1)  # tests with `scope="module"` in their parameters ask for a case one after the other
def recorded(name: str, dtype: torch.dtype = torch.float32) -> tuple[Trace, Doing, tuple[Tensor, ...]]:
    """The trace of a case, its model and its inputs, the same each time."""
    case = CASES[name]
    torch.manual_seed(zlib.crc32(name.encode()))
    model = Doing(case.does()).to(dtype).train(case.training)
    for value in [*model.parameters(), *model.buffers()]:
        if value.is_floating_point() and value is not model.like:
            value.requires_grad_(False).copy_(
                torch.rand_like(value) + 0.5 if value.min() > 0 else torch.randn_like(value)
            )
    inputs = tuple((torch.randn(shape) * case.scale).to(dtype) for shape in case.shapes)
    return trace(model, inputs, training=case.training), model, inputs
