"""Operations of PyTorch's operator database on edge values and odd layouts, forward and backward, as a script.

    python operator_edges.py DTYPE,DTYPE [SHARE [SEED]]

Of a seeded share of the operations, one sample each: its first tensor is filled with zeros of both signs, infinities,
nan, subnormal and the largest numbers, or with few different ones, so that many are equal; it is given as a transposed,
strided or expanded view, or with an axis of no cells. Prints a line of JSON for each type, with a line for each
traceback, mismatch or warning of NumPy. Each operation has a process of its own: some kernels of PyTorch end it at such
an input, which is counted and no fault where they do so without convscope too.
"""

import json
import multiprocessing
import random
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import convscope as cs
from convscope.errors import ConvscopeError
from operator_database_exclusions import EXCLUDED

CELLS = 400
"""Samples with more numbers are left out."""
UNSAFE = frozenset({"empty_strided", "new_empty_strided"})
"""Operations that give memory to which nothing was written."""
PYTORCH_IS_WRONG = {
    "as_strided_scatter": "its gradient is that of what is written, not of the tensor that it is written into",
    "median": "of rows that share memory it sorts the same cells several times",
    "nanmedian": "as median",
    "masked_median": "as median",
}
"""Operations whose recorded numbers are not what their documentation says, which is found where it is so."""
Change = Callable[[Tensor, torch.Generator], Tensor]


class Of(nn.Module):
    """An operation with the arguments of one sample, as a model whose parameter is the sample's first tensor."""

    def __init__(self, operation: Any, sample: Any, first: Tensor, *, learns: bool) -> None:
        super().__init__()
        self.operation, self.sample = operation, sample
        self.first = nn.Parameter(first) if learns else first

    def forward(self, x: Tensor) -> Any:
        """The operation's first result, of a forward pass its result."""
        result = self.operation(self.first, *self.sample.args, **self.sample.kwargs)
        if not isinstance(self.first, nn.Parameter):
            return result
        return first_tensor(result).flatten()[None] * x


def first_tensor(result: Any) -> Any:
    """The first tensor of an operation's result."""
    while isinstance(result, list | tuple):
        result = result[0]
    return result


def edges(x: Tensor, generator: torch.Generator) -> Tensor:
    """Zeros of both signs, infinities, nan, subnormal numbers, the largest numbers, and ordinary ones."""
    limits = torch.finfo(x.dtype)
    odd = [0.0, -0.0, torch.inf, -torch.inf, torch.nan, limits.tiny / 4, -limits.tiny / 4, limits.max, limits.min]
    numbers = torch.tensor([*odd, *[1.0, -1.0, 0.5, -2.0] * 3], dtype=x.dtype)
    return numbers[torch.randint(len(numbers), x.shape, generator=generator)]


def finite_edges(x: Tensor, generator: torch.Generator) -> Tensor:
    """The same without infinities and nan."""
    return edges(x, generator).nan_to_num(0.25, 1.0, -1.0)


def ties(x: Tensor, generator: torch.Generator) -> Tensor:
    """Few different numbers, so that many are equal."""
    return torch.randint(-1, 2, x.shape, generator=generator).to(x.dtype)


def transposed(x: Tensor, _: torch.Generator) -> Tensor:
    """The same numbers, the last axis lying first in memory."""
    return x.movedim(-1, 0).contiguous().movedim(0, -1) if x.ndim > 1 else strided(x, _)


def strided(x: Tensor, _: torch.Generator) -> Tensor:
    """The same numbers, every other cell of a longer axis."""
    return x.repeat_interleave(2, -1)[..., ::2] if x.ndim else x


def expanded(x: Tensor, _: torch.Generator) -> Tensor:
    """The first row for all rows."""
    return x[:1].expand(x.shape) if x.ndim and len(x) else x


def without_cells(x: Tensor, _: torch.Generator) -> Tensor:
    """No image."""
    return x[:0] if x.ndim else x


CHANGES: tuple[Change, ...] = (edges, finite_edges, ties, transposed, strided, expanded, without_cells)


def weighed(output: Tensor, _target: Tensor) -> Tensor:
    """A weighted sum of all numbers."""
    return (output * torch.linspace(-1, 2, output.numel()).to(output.dtype).reshape(output.shape)).sum()


def outcome(operation: Any, sample: Any, first: Tensor, *, learns: bool) -> tuple[str, str]:
    """The result for one call, and the message."""
    model = Of(operation, sample, first, learns=learns)
    image = torch.ones(1, 1, dtype=first.dtype)
    try:
        settings: dict[str, Any] = {"target": torch.zeros(1), "loss": weighed} if learns else {}
        trace = cs.trace(model, image, **settings)
        report = cs.verify(trace, cells=12)
    except ConvscopeError as error:
        return "refused", str(error)
    wrong = [step for step in report.steps if step.finding in {"mismatch", "wrong derivative"}]
    if wrong:
        return "mismatch", f"{wrong[0].op} {wrong[0].finding} {wrong[0].mismatch}"
    for step in trace.all_steps:
        if step.results and 0 not in step.shape and not step.is_complex:
            cs.explain(trace, step, (0,) * len(step.shape)).to_text()
    return "proved" if report.proved else "unproved", ""


def samples(dtype: torch.dtype, share: float, draw: random.Random) -> Iterator[tuple[str, Any, Any]]:
    """Name, operation and one sample of a share of the operations."""
    from torch.testing._internal.common_methods_invocations import op_db

    operations: list[Any] = op_db
    for operation in operations:
        name = operation.formatted_name
        if draw.random() >= share or name in EXCLUDED or name in UNSAFE or "jiterator" in name:
            continue
        if not operation.supports_dtype(dtype, "cpu"):
            continue
        torch.manual_seed(0)
        try:
            drawn = [s for _, s in zip(range(60), operation.sample_inputs("cpu", dtype), strict=False)]
        except (AssertionError, ImportError, RuntimeError):  # samples that need a GPU or another library
            continue
        fitting = [s for s in drawn if isinstance(s.input, Tensor) and _fits(s.input)]
        if fitting:
            yield name, operation, draw.choice(fitting)


def _fits(x: Tensor) -> bool:
    return x.is_floating_point() and x.layout == torch.strided and 0 < x.numel() <= CELLS


class Attempt(NamedTuple):
    """One changed sample of an operation, forward or backward."""

    operation: Any
    sample: Any
    change: Change
    learns: bool
    seed: int

    @property
    def first(self) -> Tensor:
        """The changed first tensor of the sample."""
        return self.change(self.sample.input.detach(), torch.Generator().manual_seed(self.seed))

    @property
    def is_wrong(self) -> bool:
        """Whether PyTorch's own result is known to be wrong."""
        name = self.operation.formatted_name
        suspect = self.learns if name == "as_strided_scatter" else self.change is expanded
        return name in PYTORCH_IS_WRONG and suspect

    def __str__(self) -> str:
        way = "backward" if self.learns else "forward"
        return f"{self.operation.formatted_name} {self.change.__name__} {way}"


def attempts(dtype: str, share: float, seed: int) -> Iterator[list[Attempt]]:
    """All changes of one sample of each operation, forward, and backward where there is one."""
    draw = random.Random(f"{dtype}{seed}")
    for _, operation, sample in samples(getattr(torch, dtype), share, draw):
        ways = (False, True) if operation.supports_autograd and dtype == "float32" else (False,)
        yield [
            Attempt(operation, sample, change, learns, draw.randrange(2**20)) for change in CHANGES for learns in ways
        ]


def tried(attempt: Attempt) -> tuple[str, str]:
    """The result of an attempt, and what was wrong."""
    try:
        return outcome(attempt.operation, attempt.sample, attempt.first, learns=attempt.learns)
    except Exception as error:  # that is what is looked for
        where = traceback.extract_tb(error.__traceback__)[-1]
        return "traceback", f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"


def without_convscope(attempt: Attempt) -> None:
    """The same by PyTorch alone."""
    first = attempt.first.requires_grad_(attempt.learns)
    output = first_tensor(attempt.operation(first, *attempt.sample.args, **attempt.sample.kwargs))
    if attempt.learns and output.requires_grad:
        torch.autograd.backward(weighed(output.flatten(), output))


FORKED = multiprocessing.get_context("fork")  # samples are made of closures, which no other process could be sent


def crashes(attempt: Attempt) -> bool:
    """Whether PyTorch alone ends the process."""

    def alone() -> None:
        with suppress(Exception):
            without_convscope(attempt)

    child = FORKED.Process(target=alone)
    child.start()
    child.join()
    return child.exitcode is not None and child.exitcode < 0


def results(those: list[Attempt]) -> Iterator[tuple[Attempt, str, str]]:
    """What came of each, tried in processes that each go on where the one before was ended."""
    while those:
        receiver, sender = FORKED.Pipe(duplex=False)

        def work(sender: Any = sender, those: list[Attempt] = those) -> None:
            for attempt in those:
                sender.send(tried(attempt))

        child = FORKED.Process(target=work)
        child.start()
        sender.close()
        with suppress(EOFError):
            while those:
                yield (those[0], *receiver.recv())
                those = those[1:]
        child.join()
        if those:
            yield those[0], *(("crash of PyTorch", "") if crashes(those[0]) else ("crash", f"signal {child.exitcode}"))
            those = those[1:]


def study(dtype: str, share: float, seed: int) -> dict[str, Any]:
    """Counts of the results of a seeded share of the operations, and a line for each that is a fault."""
    counts, lines = Counter[str](), list[str]()
    for those in attempts(dtype, share, seed):
        for attempt, result, detail in results(those):
            counts[result] += 1
            if result == "mismatch" and attempt.is_wrong:
                counts["mismatch of PyTorch"] += 1
            elif result in {"traceback", "mismatch", "crash"}:
                lines.append(f"{attempt}: {result}: {detail}")
                print(lines[-1], file=sys.stderr, flush=True)  # noqa: T201
    return {"counts": counts, "lines": lines}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    warnings.filterwarnings("error", category=RuntimeWarning)
    given = dict(enumerate(sys.argv))
    for dtype in given[1].split(","):
        print(json.dumps(study(dtype, float(given.get(2, 1.0)), int(given.get(3, 0)))))  # noqa: T201
