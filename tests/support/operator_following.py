"""Contributions and receptive fields of PyTorch's operator database, as a script.

    python operator_following.py [SHARE [SEED]]

Of a seeded share of the operations some samples each, whose first tensor is made from an image. Of some cells of the
result: what the image's cells add up to, their weights against autograd's gradient, and whether another number in a
cell outside the receptive field changes the result. Prints a line of JSON, with a line for each fault.
"""

import json
import random
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import convscope as cs
from convscope.errors import ConvscopeError
from convscope.traces.step import Step
from convscope.traces.trace import Trace
from convscope.typing import Array
from operator_database_exclusions import EXCLUDED
from operator_edges import PYTORCH_IS_WRONG, UNSAFE, first_tensor

CELLS = 300
"""Samples with more numbers are left out."""
SAMPLES, RESULTS, CHANGES = 3, 2, 4
"""Samples of an operation, cells of its result, and cells of the image that are changed."""
LEFT_OUT = frozenset(
    {
        *("nn_functional_max_unpool1d", "nn_functional_max_unpool2d", "nn_functional_max_unpool3d"),
        *("empty_like", "new_empty", "to_sparse"),
    }
)
"""Operations that write several numbers into one cell, whose gradient PyTorch gives to all of them; that write none, or
give a sparse tensor."""


class Following(nn.Module):
    """An operation whose first tensor is the image."""

    def __init__(self, operation: Any, sample: Any) -> None:
        super().__init__()
        self.operation, self.sample = operation, sample

    def forward(self, image: Tensor) -> Tensor:
        """The operation's first result."""
        first = image[0].reshape(self.sample.input.shape)
        result: Tensor = first_tensor(self.operation(first, *self.sample.args, **self.sample.kwargs))
        return result[None]


def samples(operation: Any, draw: random.Random) -> list[Any]:
    """Some samples of an operation with a first tensor of few fractions."""
    torch.manual_seed(draw.randrange(2**20))
    try:
        drawn = [s for _, s in zip(range(60), operation.sample_inputs("cpu", torch.float32), strict=False)]
    except (AssertionError, ImportError, RuntimeError):  # samples that need a GPU or another library
        return []
    fitting = [s for s in drawn if isinstance(s.input, Tensor) and _fits(s.input)]
    return draw.sample(fitting, min(SAMPLES, len(fitting)))


def _fits(x: Tensor) -> bool:
    return x.is_floating_point() and x.layout == torch.strided and 0 < x.numel() <= CELLS


def recorded(model: nn.Module, image: Tensor) -> tuple[Trace, Step] | None:
    """A trace and its last step; None where its numbers are no fractions or are drawn at random."""
    trace = cs.trace(model, image)
    last = trace.all_steps[-1] if trace.all_steps else None
    if last is None or "float" not in last.dtype or 0 in last.shape:
        return None
    first, second = (model(image).detach() for _ in range(2))
    drawn = any(step.role == "random" for step in trace.all_steps) or not torch.equal(first, second)
    return None if drawn and not first.isnan().any() else (trace, last)


class Number(NamedTuple):
    """One number of a recorded pass."""

    model: nn.Module
    image: Tensor
    trace: Trace
    step: Step
    cell: tuple[int, ...]

    def after(self, image: Tensor) -> float:
        """The number for another image."""
        return float(self.model(image).detach()[self.cell])

    @property
    def slopes(self) -> Array | None:
        """Autograd's gradient of the number by the image; None where it has none."""
        learned = self.image.clone().requires_grad_()
        try:
            torch.autograd.backward(self.model(learned)[self.cell])
        except (RuntimeError, NotImplementedError):
            return None
        result = None if learned.grad is None else learned.grad.double().numpy().reshape(-1)
        return None if result is None or not np.isfinite(result).all() else result


def contribution_faults(number: Number) -> Iterator[str]:
    """Whether the cells of the image add up to the number, with autograd's gradient as their weights."""
    try:
        why = cs.explain(number.trace, number.step, number.cell).to_input()
    except ConvscopeError:
        return
    if why.broken:
        return
    if np.isfinite([why.value, why.bound]).all() and not why.checks:
        yield f"left over {why.left} of {why.value}, allowed {why.slack}; bound {why.bound}"
    slopes, (weights,) = number.slopes, (weight.reshape(-1) for weight in why.weights.values())
    if slopes is not None and np.isfinite(weights).all():
        apart = np.abs(weights - slopes).max()
        if apart > 1e-3 * np.abs(slopes).max() + 1e-4:
            yield f"weights {apart} from autograd's"


def field_faults(number: Number, draw: random.Random) -> Iterator[str]:
    """Whether a cell outside the receptive field has a gradient, or changes the number."""
    try:
        field = cs.probe.receptive_field(number.trace, number.step.name, number.cell)
    except ConvscopeError:
        return
    if field.unknown or field.broken or field.chosen_by:
        return
    outside, slopes = np.flatnonzero(field.cells.reshape(-1) == 0), number.slopes
    if slopes is not None and slopes[outside].any():
        yield "a gradient outside the receptive field"
    for place in draw.sample(outside.tolist(), min(CHANGES, len(outside))):
        changed = number.image.clone()
        changed[0, place] = changed[0, place] * 0.5 + 0.3
        try:
            before, after = number.after(number.image), number.after(changed)
        except (RuntimeError, ValueError, IndexError):  # such a cell is refused, or the result has another shape
            continue
        if before != after and not (np.isnan(before) and np.isnan(after)):
            yield f"{before} becomes {after} by a cell outside the receptive field"


def study(share: float, seed: int) -> dict[str, Any]:
    """Counts of the numbers followed, and a line for each fault."""
    from torch.testing._internal.common_methods_invocations import op_db

    counts, lines, draw = Counter[str](), list[str](), random.Random(seed)
    operations: list[Any] = op_db
    for operation in operations:
        name = operation.formatted_name
        chosen = draw.random() < share and operation.supports_dtype(torch.float32, "cpu")
        if not chosen or name in EXCLUDED or name in {*UNSAFE, *LEFT_OUT, *PYTORCH_IS_WRONG} or "jiterator" in name:
            continue
        for sample in samples(operation, draw):
            model, image = Following(operation, sample), sample.input.detach().reshape(1, -1).clone()
            try:
                found = recorded(model, image)
                for _ in range(RESULTS if found else 0):
                    assert found is not None
                    cell = tuple(draw.randrange(n) for n in found[1].shape)
                    counts["numbers"] += 1
                    number = Number(model, image, *found, cell)
                    faults = [*contribution_faults(number), *field_faults(number, draw)]
                    lines += [f"{name} {cell}: {fault}" for fault in faults]
            except ConvscopeError:
                counts["refused"] += 1
            except Exception as error:  # that is what is looked for
                where = traceback.extract_tb(error.__traceback__)[-1]
                lines.append(f"{name}: {type(error).__name__}: {error} ({where.filename}:{where.lineno})")
    return {"counts": counts, "lines": lines}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    warnings.filterwarnings("error", category=RuntimeWarning)
    given = dict(enumerate(sys.argv))
    print(json.dumps(study(float(given.get(1, 1.0)), int(given.get(2, 0)))))  # noqa: T201
