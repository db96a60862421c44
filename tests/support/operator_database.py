"""PyTorch's operator database through trace, verify and explain, as a script: its imports change settings of torch.

    python operator_database.py DTYPE,DTYPE [SHARE [SEED]]

Prints a line of JSON for each type: how often each outcome came, a line for each traceback and each mismatch, and how
many samples of which operation are not proved, with the ATen operations that are why. Excluded operations are run too:
they must neither fail nor mismatch.
"""

import json
import math
import random
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

import convscope as cs
from convscope.errors import ConvscopeError
from operator_database_exclusions import EXCLUDED

CELLS = 200_000
"""Samples with more numbers are left out."""
FEW = 4
"""Samples of an operation at most, where a share of them is drawn: some have thousands."""
SETTLED = frozenset({"proved", "proved normwise", "given"})
"""Findings of steps that need no more proof."""


class Of(nn.Module):
    """An operation with the arguments of one sample, as a model of its first tensor."""

    def __init__(self, operation: Any, sample: Any) -> None:
        super().__init__()
        self.operation, self.sample = operation, sample

    def forward(self, x: Tensor) -> Any:
        return self.operation(x, *self.sample.args, **self.sample.kwargs)


def samples(dtype: torch.dtype, share: float, draw: random.Random) -> Iterator[tuple[str, Any, Any]]:
    """Name, operation and sample: a share of the samples of a share of all operations, as making samples takes long."""
    from torch.testing._internal.common_methods_invocations import op_db

    operations: list[Any] = op_db
    for operation in operations:
        if draw.random() >= share or not operation.supports_dtype(dtype, "cpu") or "jiterator" in operation.name:
            continue
        torch.manual_seed(0)
        try:
            made = enumerate(operation.sample_inputs("cpu", dtype, requires_grad=False))
            chosen = (
                (f"{operation.formatted_name}/{index}", operation, sample)
                for index, sample in made
                if draw.random() < share and isinstance(sample.input, Tensor) and sample.input.numel() <= CELLS
            )
            yield from chosen if share == 1 else islice(chosen, FEW)
        except (AssertionError, ImportError, RuntimeError):  # samples that need a GPU or another library
            continue


def outcome(operation: Any, sample: Any) -> tuple[str, str]:
    """What came of one sample, and the message or the operations that are why."""
    try:
        trace = cs.trace(Of(operation, sample), (sample.input,))
    except ConvscopeError as error:
        return "refused", str(error)
    if not trace.all_steps:
        return "no operation", ""
    report = cs.verify(trace)
    if report.mismatches:
        worst = report.mismatches[0]
        return "mismatch", f"{worst.op} {worst.mismatch}"
    for step in trace.all_steps:
        shape = step.results[0].shape if step.results else ()
        if step.results and 0 not in shape and not step.is_complex:
            cs.explain(trace, step, (0,) * len(shape)).to_text()
    if report.proved:
        return "proved", ""
    return "unproved", ", ".join(sorted({f"{s.op} ({s.finding})" for s in report.steps if s.finding not in SETTLED}))


def study(dtype: str, share: float, seed: int) -> dict[str, Any]:
    """Every sample, or a seeded share of them; each type draws others."""
    counts, lines = Counter[str](), []
    unproved: dict[str, Counter[str]] = {}
    from torch.testing._internal.common_methods_invocations import op_db

    unknown = EXCLUDED.keys() - {operation.formatted_name for operation in op_db}
    for name, operation, sample in samples(getattr(torch, dtype), math.sqrt(share), random.Random(f"{dtype}{seed}")):
        try:
            result, line = outcome(operation, sample)
        except Exception as error:  # that is what is looked for
            where = traceback.extract_tb(error.__traceback__)[-1]
            result, line = "traceback", f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
        if result in {"traceback", "mismatch"}:
            lines.append(f"{name}: {result}: {line}")
            print(lines[-1], file=sys.stderr, flush=True)  # noqa: T201
        elif operation.formatted_name in EXCLUDED:
            result = "excluded"
        elif result == "unproved":
            unproved.setdefault(operation.formatted_name, Counter())[line] += 1
        counts[result] += 1
    return {"counts": counts, "lines": lines, "unproved": unproved, "excluded without samples": [*unknown]}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    given = dict(enumerate(sys.argv))
    for dtype in given[1].split(","):
        print(json.dumps(study(dtype, float(given.get(2, 1.0)), int(given.get(3, 0)))))  # noqa: T201
