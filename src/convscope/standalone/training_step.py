"""Training step: one step on a report's images, with the calculations behind the numbers that the page shows first.

The page cannot calculate gradients and updates by itself; it carries the explanations that it shows.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TypedDict

import numpy as np

import convscope as cs
from convscope.expr.call import Cell
from convscope.expr.expr import Cells, Dot, Expr, Leaf
from convscope.server.explanations.explanations import explained, explanation_of, proved
from convscope.server.session.inputs import PageInput
from convscope.server.traces.array_pictures import extent, number
from convscope.server.traces.passes import TracePass
from convscope.server.training_steps import ParameterUpdate, step_answer
from convscope.standalone.document import PageContents
from convscope.traces.trace import Trace
from convscope.typing import Array

KERNELS, WHOLE, LARGEST = 4, 25, 9
"""What the page (Updates.svelte) shows first: kernels, weights of a whole kernel, else the largest gradients."""
ALONG = 60
"""Numbers on the way from the largest gradients back to the loss."""
SHARE = 0.85
"""Fraction of the limit up to which explanations are added."""


class TrainingStepJson(TypedDict):
    """A training step for the page; tensors by their numbers."""

    info: dict[str, object]
    """As the server answers POST /api/training-steps."""
    outputs: Mapping[int, int]
    """Step -> its numbers."""
    ranges: Mapping[int, list[object]]
    directions: Mapping[str, int]
    """Parameter -> what the optimizer multiplies by the learning rate."""
    answers: Mapping[str, dict[str, object]]
    """Recorded explanations by their path."""


def training_step(contents: PageContents, example: TracePass, trace: Trace) -> TrainingStepJson | None:
    """Describe a training step, and explain the numbers of it that the page shows first; None if it does not fit.

    Args:
        contents: What the page carries.
        example: A forward pass of the same model.
        trace: The step.
    """
    images = trace.input
    page_input = PageInput("the images of this report", images[0], images[0], None, (), images)
    trace_pass = TracePass("step", example.opened, None, example.request, page_input, trace, None, (), frozenset())
    info = step_answer(trace_pass, 0)
    if not contents.room_for(described := info.model_dump()):
        return None
    outputs: dict[int, int] = {}
    ranges: dict[int, list[object]] = {}
    directions: dict[str, int] = {}
    for update in info.updates:
        for step in (trace_pass.step(update.gradient), trace_pass.step(update.updated)):
            index = contents.tensor(step.output[0] if len(step.shape) > 1 and step.shape[0] == 1 else step.output)
            if index is not None:
                outputs[step.id] = index
                ranges[step.id] = [*map(number, extent(step.output))]
        along = contents.tensor(cs.update_direction(trace, update.name)[0])
        if along is not None:
            directions[update.name] = along
    answers: dict[str, dict[str, object]] = {}
    for step_id, cell in dict.fromkeys(_numbers(trace_pass, info.updates)):
        answer = _explanation(trace_pass, trace.all_steps[step_id], cell)
        if not contents.room_for(answer, SHARE):
            break
        answers[f"traces/{trace_pass.id}/steps/{step_id}/explain?cell={','.join(map(str, cell))}"] = answer
    return {"info": described, "outputs": outputs, "ranges": ranges, "directions": directions, "answers": answers}


def _explanation(trace_pass: TracePass, step: cs.Step, cell: Cell) -> dict[str, object]:
    """The server's answer for a number, with its proof."""
    with np.errstate(all="ignore"):
        answer = explained(trace_pass, step, cell)
        if answer.proof is None:
            answer = answer.model_copy(update={"proof": proved(trace_pass, explanation_of(trace_pass, step, cell))})
    return answer.model_dump()


def _numbers(trace_pass: TracePass, updates: Sequence[ParameterUpdate]) -> Iterator[tuple[int, Cell]]:
    """The numbers to explain, the most important first: the loss, what the page shows first, and the ways to the loss.

    The numbers of one step follow each other, as its recomputation is kept for the next one.
    """
    trace = trace_pass.trace
    assert trace.training_step is not None
    loss = trace.training_step.loss
    if loss.id is not None and not loss.shape:
        yield loss.id, ()
    first = {update.name: _shown(update, trace_pass.step(update.gradient).output) for update in updates}
    for update in updates:
        yield from ((update.updated, cell) for cell in first[update.name])
        yield from ((update.gradient, cell) for cell in first[update.name])
    ways = (_ways(trace, update.gradient, first[update.name][0]) for update in updates)
    yield from islice(chain.from_iterable(ways), ALONG)


def _shown(update: ParameterUpdate, gradient: Array) -> list[Cell]:
    """The weights that the page shows first, the one with the largest gradient first."""
    shape, sizes = tuple(update.shape), np.abs(gradient).reshape(update.shape)
    planes = sizes.reshape(shape[0], shape[1] if len(shape) > 2 else 1, -1) if len(shape) > 1 else sizes[None, None]
    channel = int(np.unravel_index(int(planes.argmax()), planes.shape)[1])
    flat = np.arange(sizes.size).reshape(planes.shape)[:KERNELS, channel]  # (kernels, weights)
    if flat.shape[1] > WHOLE:
        order = np.argsort(-planes[:KERNELS, channel], axis=1, kind="stable")[:, :LARGEST]
        flat = np.take_along_axis(flat, order, 1)
    chosen = sorted(flat.ravel().tolist(), key=lambda index: -sizes.ravel()[index])
    return [tuple(map(int, np.unravel_index(index, shape))) for index in chosen]


def _ways(trace: Trace, step: int, cell: Cell) -> Iterator[tuple[int, Cell]]:
    """The numbers that a number's largest term refers to, and so on, breadth first."""
    ids = {traced_step.name: traced_step.id for traced_step in trace.steps}
    queue = [(step, cell)]
    visited = {*queue}
    while queue:
        step_id, position = queue.pop(0)
        yield step_id, position
        expr = cs.explain(trace, trace.all_steps[step_id], position).expr
        for leaf in () if expr is None else _largest(expr):
            target = ids.get(leaf.source.name)
            if leaf.source.kind == "step" and not leaf.source.output and target is not None:
                next_number = (target, tuple(map(int, leaf.cell)))
                if next_number not in visited:
                    visited.add(next_number)
                    queue.append(next_number)


def _largest(expr: Expr) -> Iterator[Leaf]:
    """The numbers of an expression; of a sum those of its largest term."""
    if isinstance(expr, Leaf):
        yield expr
    elif isinstance(expr, Dot):
        if len(expr.left):
            largest_term = int(np.argmax(np.abs(expr.products)))
            sides = [side for side in (expr.left, expr.right) if side is not None and not side.is_padding(largest_term)]
            yield from (side.leaf(largest_term) for side in sides if side.derive is None)
    else:
        for part in expr.arguments.values():
            if not isinstance(part, Cells):
                yield from _largest(part)
            elif len(part) and part.derive is None:
                yield part.leaf(int(np.argmax(np.abs(part.values))))
