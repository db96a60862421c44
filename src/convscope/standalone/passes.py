"""Passes: the forward passes of a standalone page: their numbers, how each step calculates, and recorded answers."""

import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np

import convscope as cs
from convscope.escaping import first_few
from convscope.expr.call import Source
from convscope.server.explanations.explanations import explained, probability, softmax_of
from convscope.server.explanations.origins import contributions_of, paths_info
from convscope.server.explanations.schema import PathsInfo
from convscope.server.http.message import Number
from convscope.server.session.schema import InputRef, SampleRef, StoredRef
from convscope.server.traces.array_pictures import extent, number
from convscope.server.traces.descriptions import thumbnail, trace_info
from convscope.server.traces.passes import TracePass
from convscope.standalone.arithmetic import arithmetic_of
from convscope.standalone.document import PageContents

HALF = 0.5
"""Share of the limit that parameters may take."""
QUICK = 1_500_000
"""Numbers of a pass whose answers are followed back to the pixels."""
PATHS = 6_000
"""Paths after which no more answers are followed through the channels: 3 s of processor time."""
UNFIT = "Some contributions of pixels, paths and probabilities: they do not fit."
LONG = "Some contributions of pixels and paths: calculating them takes long; the explorer shows them."
BEST = 3
"""Classes whose answer is followed back to the pixels."""
THUMBNAILS, SIDE = 16, 32
"""As the page's strip asks for them."""


class PassJson(TypedDict):
    """A pass for the page; tensors by their numbers among those that are embedded, None where one was left out."""

    ref: dict[str, object]
    info: dict[str, object]
    input: int | None
    shown: int | None
    """The image, before preprocessing."""
    outputs: dict[int, int]
    """Step -> its numbers."""
    ranges: dict[int, list[Number]]
    """Step -> its smallest and its largest number."""
    arithmetic: dict[int, dict[str, object]]
    """Step -> how it calculates."""
    thumbnails: dict[int, dict[str, object]]
    """Step whose numbers were left out -> a small picture of it."""


class ParameterJson(TypedDict):
    """A parameter for the page."""

    tensor: int
    low: Number
    high: Number


class PassWriter:
    """Writes passes into the contents of a page.

    A step whose operation the page cannot calculate, or whose tensors do not fit, keeps the calculation of its largest
    number as a recorded answer.
    """

    def __init__(self, contents: PageContents) -> None:
        self._contents = contents
        self._passes: dict[str, PassJson] = {}
        self._parameters: dict[str, ParameterJson] = {}
        self._answers: dict[str, dict[str, object]] = {}
        self._contributions: dict[str, dict[str, object]] = {}
        self._refusals: dict[str, str] = {}
        self._short: dict[str, None] = {}
        self._recorded: dict[str, None] = {}
        self._unanswered: dict[str, None] = {}
        self._followed = 0

    def add(self, ref: InputRef, trace_pass: TracePass) -> bool:
        """Add a pass; returns False, and adds nothing, if there is no room for its description."""
        info = trace_info(trace_pass).model_dump()
        if not self._contents.room_for(info):
            return False
        if not self._parameters:
            self._add_parameters(trace_pass)
        array, shown = trace_pass.model_input.array, trace_pass.model_input.picture
        entry: PassJson = {
            "ref": ref.model_dump(),
            "info": info,
            "input": self._contents.tensor(array),
            "shown": self._contents.tensor(shown),
            "outputs": {},
            "ranges": {},
            "arithmetic": {},
            "thumbnails": {},
        }
        self._passes[key_of(ref)] = entry
        for step in trace_pass.trace.steps:
            self._add_step(trace_pass, step, entry)
        self._add_answers(trace_pass)
        for step in trace_pass.trace.steps:
            self._add_arithmetic(trace_pass, step, entry)
        return True

    def _add_parameters(self, trace_pass: TracePass) -> None:
        for name in trace_pass.trace.parameters:
            array = np.asarray(trace_pass.trace.parameters[name])
            index = self._contents.tensor(array, HALF)
            low, high = extent(array)
            if index is None:
                self._short[f"the weights {name}"] = None
            else:
                self._parameters[name] = {"tensor": index, "low": number(low), "high": number(high)}

    def _add_step(self, trace_pass: TracePass, step: cs.Step, entry: PassJson) -> None:
        low, high = trace_pass.extent(step)
        entry["ranges"][step.id] = [number(low), number(high)]
        index = self._contents.tensor(step.output[0] if _alone(step) else step.output)
        if index is not None:
            entry["outputs"][step.id] = index
            return
        self._short[f"the numbers of {step.name}"] = None
        about, picture = thumbnail(trace_pass, step, slice(0, THUMBNAILS), SIDE)
        small = self._contents.tensor(picture)
        if small is not None:
            entry["thumbnails"][step.id] = {"about": {**about, "shape": list(picture.shape)}, "tensor": small}

    def _add_arithmetic(self, trace_pass: TracePass, step: cs.Step, entry: PassJson) -> None:
        outputs = {traced_step.name: entry["outputs"].get(traced_step.id) for traced_step in trace_pass.trace.steps}

        def find(source: Source) -> int | None:
            if source.kind == "parameter":
                parameter = self._parameters.get(source.name)
                return None if parameter is None else parameter["tensor"]
            if source.kind == "step" and source.output == 0:
                return outputs.get(source.name)
            return entry["input"] if source.kind == "input" and len(trace_pass.trace.inputs) == 1 else None

        arithmetic = arithmetic_of(trace_pass.trace, step, find)
        if arithmetic is not None and self._contents.room_for(arithmetic):
            entry["arithmetic"][step.id] = arithmetic
            return
        self._recorded[step.name] = None
        if step.output.size and step.output.dtype.kind == "f":
            sizes = np.nan_to_num(np.abs(step.output), nan=-1.0)
            cell = tuple(int(i) for i in np.unravel_index(int(np.argmax(sizes)), step.shape))
            self._record(trace_pass, step, cell[1:] if _alone(step) else cell)

    def _record(self, trace_pass: TracePass, step: cs.Step, cell: tuple[int, ...]) -> None:
        """Keep the server's own answer for one cell, with the largest terms of a long sum."""
        with np.errstate(all="ignore"):
            answer = explained(trace_pass, step, cell)
        if answer.proof is None:
            return
        self._keep(
            f"traces/{trace_pass.id}/steps/{step.id}/explain?cell={','.join(map(str, cell))}", answer.model_dump()
        )

    def _add_answers(self, trace_pass: TracePass) -> None:
        """Why the classes with the largest scores: probabilities, contributions of pixels, and paths."""
        info = trace_info(trace_pass)
        if info.output is None or not info.answers:
            return
        step, best = trace_pass.step(info.output), [answer.index for answer in info.answers[:BEST]]
        if info.answers[0].probability is not None:
            softmax = softmax_of(step)
            for answer in info.answers:
                path = f"traces/{trace_pass.id}/probability/explain?cell={answer.index}"
                self._keep(path, probability(trace_pass, step, answer.index, softmax).model_dump())
        if info.input.form != "picture" or len(info.answers) < 2:
            return
        if sum(math.prod(traced_step.shape) for traced_step in trace_pass.trace.steps) > QUICK:
            self._unanswered[LONG] = None
            return
        base = f"traces/{trace_pass.id}/steps/{step.id}"
        for index in best:
            self._add_contributions(trace_pass, step, index, f"{base}/contributions?cell={index}")
        for index, minus in [*((index, None) for index in best), (best[0], best[1])]:
            self._add_paths(trace_pass, step, (index, minus), base)

    def _add_contributions(self, trace_pass: TracePass, step: cs.Step, index: int, path: str) -> None:
        try:
            header, numbers = contributions_of(trace_pass, step, (index,))
        except cs.ConvscopeError as error:
            self._refusals[path] = str(error)
            return
        tensor = self._contents.tensor(numbers)
        if tensor is None or not self._contents.room_for(header):
            self._unanswered[UNFIT] = None
        else:
            self._contributions[path] = {"header": header, "tensor": tensor}

    def _add_paths(self, trace_pass: TracePass, step: cs.Step, classes: Sequence[int | None], base: str) -> None:
        index, minus = classes
        path = f"{base}/paths?cell={index}" + ("" if minus is None else f"&minus={minus}")
        if self._followed > PATHS:
            self._unanswered[LONG] = None
            return
        answer = paths_info(trace_pass, step, (int(index or 0),), minus)
        self._keep(path, answer.model_dump())
        self._followed += len(answer.paths) + answer.others if isinstance(answer, PathsInfo) else 0

    def _keep(self, path: str, answer: dict[str, object]) -> None:
        if self._contents.room_for(answer):
            self._answers[path] = answer
        else:
            self._unanswered[UNFIT] = None

    @property
    def left_out(self) -> list[str]:
        """Sentences on what did not fit and on what the page cannot calculate."""
        texts = []
        if self._short:
            texts.append(f"{first_few(self._short, 6)}: they do not fit.")
        if self._recorded:
            texts.append(f"Calculations of {first_few(self._recorded, 6)} but those of their largest numbers.")
        texts += self._unanswered
        return [text[:1].upper() + text[1:] for text in texts]

    def header(self) -> dict[str, object]:
        """The passes for the page."""
        return {
            "passes": self._passes,
            "parameters": self._parameters,
            "answers": self._answers,
            "contributions": self._contributions,
            "refusals": self._refusals,
        }


def key_of(ref: InputRef) -> str:
    """An input as the page looks it up.

    >>> key_of(SampleRef(source="mnist", split="test", index=7))
    'mnist/test/7'
    """
    if isinstance(ref, SampleRef):
        return f"{ref.source}/{ref.split}/{ref.index}"
    assert isinstance(ref, StoredRef)
    return ref.id


def _alone(step: cs.Step) -> bool:
    return len(step.shape) > 1 and step.shape[0] == 1
