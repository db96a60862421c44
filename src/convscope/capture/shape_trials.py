"""Shape trials: why a model failed on an input, and which sizes or settings would fit, each confirmed by a run.

A copy of the model is run on the input under a mode that sees every torch function; `shape_repairs` diagnoses the call
that fails, and every option is tried on a copy before it is proposed. Large models are copied without their values.
The work is limited by a number of calls, not by time, so the result is deterministic.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from convscope.capture.model_state import PLAIN
from convscope.capture.recording import tensors_of
from convscope.capture.shape_repairs import Diagnosis, Option, ShapeRepair, diagnosis
from convscope.capture.torch_calls import CallLog, Change, TorchCall
from convscope.cards.card_inference import card_of
from convscope.cards.trial_copy import TrialCopies, Unrunnable
from convscope.cards.trial_runs import USUAL, expectation
from convscope.errors import TraceError

CALLS = 8_000
"""Maximum number of torch calls in all trials: a few seconds."""
OPTIONS = 16
"""Maximum number of options tried for a call."""
PROPOSED = 3
"""Maximum number of proposed repairs."""
FURTHER = 4
"""Maximum number of later failures that a repair may fix as well."""
MULTIPLES = (2, 4, 8, 16, 32, 64)
LEAST = 8
"""Smaller images may fit only because their last cell is broadcast."""
FARTHEST = 128
"""Maximum distance of other sizes from the requested one."""


@dataclass(frozen=True, slots=True)
class ShapeFailure:
    """Why a model failed on an input, and what would fit."""

    where: str
    """The module that failed."""
    error: str
    """PyTorch's message, its first line."""
    sum: str
    """The calculation that went wrong; empty if the failure is not a known shape error."""
    sizes: tuple[tuple[int, ...], ...] = ()
    """Sizes of an input, without the batch axis, on which the model runs."""
    repairs: tuple[tuple[ShapeRepair, ...], ...] = ()
    """Changes with which the model runs at the requested size; each item is one proposal."""

    def lines(self) -> Iterator[str]:
        """The failure and the repairs as lines of text."""
        yield f"✗ {self.sum or self.error}"
        if self.sum:
            yield f"  PyTorch: {self.error}"
        for shape in self.sizes:
            yield f"  fits: an input of {'x'.join(map(str, shape))}"
        for repairs in self.repairs:
            yield f"  fits: {' and '.join(map(str, repairs))}"
        if self.sizes or self.repairs:
            yield "  (each was run on a copy of the model)"
        else:
            yield "  no size or setting was found that makes it run"

    def to_json(self) -> dict[str, object]:
        """As plain values for a JSON file."""
        return {
            "where": self.where,
            "error": self.error,
            "sum": self.sum,
            "sizes": [list(shape) for shape in self.sizes],
            "repairs": [
                [{"where": r.where, "setting": r.setting, "value": r.value} for r in repairs]
                for repairs in self.repairs
            ],
        }


def shape_failure(model: nn.Module, inputs: ArrayLike | Mapping[str, ArrayLike], error: TraceError) -> ShapeFailure:
    """Why a model failed on these inputs, and what would fit.

    Args:
        model: The model; copies of it are run.
        inputs: An array without its batch axis, or a mapping of such arrays.
        error: The TraceError that tracing raised.
    """
    cause = error.__cause__ or error
    first_line = (str(cause).strip() or type(cause).__name__).splitlines()[0].rstrip(".")
    try:
        trials = _Trials(TrialCopies(model))
        arrays = inputs if isinstance(inputs, Mapping) else {"": inputs}
        tensors = {name: torch.as_tensor(array)[None] for name, array in arrays.items()}
        outcome = trials.run(tensors)
        cause_diagnosis = outcome.diagnosis
        repairs = trials.repairs(tensors, outcome)
        sizes = trials.sizes(next(iter(tensors.values())), outcome) if len(tensors) == 1 else ()
    except Unrunnable:
        return ShapeFailure(error.module, first_line, "")
    return ShapeFailure(error.module, first_line, cause_diagnosis.sum if cause_diagnosis else "", sizes, repairs)


@dataclass(slots=True, eq=False)
class _Outcome:
    """One run of a copy."""

    ran: bool
    rows: int
    """Length of the first returned tensor's first axis; 0 if the run failed or that tensor has no axes."""
    failed: TorchCall | None = None
    log: list[TorchCall] = field(default_factory=list)

    @property
    def failed_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the tensors in the failed call."""
        return self.failed.shapes if self.failed is not None else []

    @property
    def diagnosis(self) -> Diagnosis | None:
        return None if self.failed is None else diagnosis(self.failed, self.log)


@dataclass(slots=True, eq=False)
class _Trials:
    """Runs of copies of one model."""

    trial_copies: TrialCopies

    @property
    def bare(self) -> bool:
        """Whether the model is itself one of torch's layers."""
        return type(self.trial_copies.model) in PLAIN and not any(self.trial_copies.model.children())

    def run(self, inputs: Mapping[str, Tensor], changes: Mapping[int, Change] | None = None) -> _Outcome:
        """Run a copy on inputs by name; "" is the first by position."""
        keywords = {name: tensor for name, tensor in inputs.items() if name}
        positional = [inputs[""]] if "" in inputs else []
        watch, result = self.trial_copies.run_under(
            lambda names: CallLog(names, changes or {}, bare=self.bare), positional, keywords
        )
        if isinstance(result, Exception):
            return _Outcome(False, 0, watch.failed, watch.log)
        first = next(tensors_of(result), None)
        return _Outcome(True, first.shape[0] if first is not None and first.dim() else 0, None, watch.log)

    def repairs(self, inputs: Mapping[str, Tensor], outcome: _Outcome) -> tuple[tuple[ShapeRepair, ...], ...]:
        """Changes with which the model runs on these inputs, those of one number first."""
        if outcome.diagnosis is None:
            return ()
        attempts = [self._mended(inputs, option) for option in outcome.diagnosis.options[:OPTIONS]]
        proposals = sorted((repairs for repairs in attempts if repairs), key=len)
        fewest = len(proposals[0]) if proposals else 0
        return tuple(repairs for repairs in proposals if len(repairs) <= fewest)[:PROPOSED]

    def _mended(self, inputs: Mapping[str, Tensor], option: Option) -> tuple[ShapeRepair, ...]:
        """The changes of an option and of the later ones that it requires; () if the model still fails."""
        repairs, changes = option.repairs, dict(option.changes)
        for _ in range(FURTHER + 1):
            if self.trial_copies.calls > CALLS:
                return ()
            outcome = self.run(inputs, changes)
            if outcome.ran:
                return repairs if outcome.rows in {0, 1} else ()
            next_diagnosis = outcome.diagnosis
            if next_diagnosis is None or not next_diagnosis.options:
                return ()
            further = next_diagnosis.options[0]
            if set(further.changes) & set(changes):
                return ()
            repairs, changes = (*repairs, *further.repairs), {**changes, **further.changes}
        return ()

    def sizes(self, requested: Tensor, outcome: _Outcome) -> tuple[tuple[int, ...], ...]:
        """Sizes near the requested one at which the model runs."""
        shape = tuple(requested.shape[1:])
        for group in self._candidates(shape, self._depends_on_size(requested, outcome)):
            proposals = list[tuple[int, ...]]()
            for shapes in group:
                fitting = (
                    s
                    for s in shapes
                    if s != shape and self.trial_copies.calls <= CALLS and self._fits(s, requested.dtype)
                )
                proposals += itertools.islice(fitting, 1)
            if proposals:
                return tuple(dict.fromkeys(proposals))
        return ()

    def _depends_on_size(self, requested: Tensor, outcome: _Outcome) -> bool:
        """Whether the shapes in the failed call change if the image is twice as large."""
        if outcome.diagnosis is None:
            return False
        larger_input = torch.zeros(*requested.shape[:2], *(2 * n for n in requested.shape[2:]), dtype=requested.dtype)
        doubled = self.run({"": larger_input})
        return doubled.failed is None or doubled.failed.shapes != outcome.failed_shapes

    def _fits(self, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
        """Whether the model runs on this size, and keeps the images of a batch apart."""
        for batch in (2, 1):
            outcome = self.run({"": torch.zeros(batch, *shape, dtype=dtype)})
            if outcome.ran:
                return outcome.rows == batch
        return False

    def _candidates(self, requested: tuple[int, ...], search: bool) -> Iterator[list[list[tuple[int, ...]]]]:
        """Groups of lists; the first that fits of each list in the first group that has any is proposed.

        The size with the right channels, and what the model expects; the next multiples above and below; all near ones.
        """
        card, expected = card_of(self.trial_copies.model), expectation(self.trial_copies.model)
        channels, (first, *edges) = card.preprocess.channels or (expected.channels if expected else None), requested
        right = channels or first
        flat = len(edges) == 2
        turned = [(right, first, edges[0])] if flat and edges[-1] == right != first else []
        size = card.preprocess.size
        card_size = [(right, *size)] if flat and size is not None and min(size) >= LEAST else []
        yield [[*turned, (right, *edges), *card_size]]
        yield [
            [(right, *shape) for m in MULTIPLES if min(shape := [-(-n // m) * m for n in edges], default=0)],
            [(right, *shape) for m in MULTIPLES if min(shape := [n // m * m for n in edges], default=0)],
        ]
        if search and edges:
            least = max(1, min(edges) // 4)  # smaller ones would only fit by broadcasting
            steps = [step for distance in range(1, FARTHEST) for step in (distance, -distance)]
            near = [(right, *(n + step for n in edges)) for step in steps if min(edges) + step >= least]
            usual, squares = ([(right, n, n) for n in numbers] for numbers in (USUAL, range(least, FARTHEST)))
            yield [[*usual, *near, *squares] if flat else near]
