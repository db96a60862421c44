"""Origins of a number: paths through channels, what each pixel adds to it, walks, and the pixels it can depend on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

import convscope as cs
from convscope.server.explanations.explanations import address_of, explanation_of
from convscope.server.explanations.schema import (
    ContributionsInfo,
    FieldInfo,
    NoPaths,
    PathInfo,
    PathsInfo,
    WalkInfo,
)
from convscope.server.jobs import stop_if_left
from convscope.server.session.inputs import planes_of_all
from convscope.server.traces.array_pictures import as_float32, number, pack
from convscope.server.traces.passes import TracePass

SHOWN = 12
"""Number of paths in an answer, the largest."""


def paths_info(
    trace_pass: TracePass, step: cs.Step, cell: Sequence[int], minus: int | None = None
) -> PathsInfo | NoPaths:
    """A number as paths through the channels of the first and the last convolution before it.

    Args:
        trace_pass: The pass.
        step: The step that made the number.
        cell: An index; the image index and axes of size 1 may be left out.
        minus: Another class, whose number is subtracted.

    Raises:
        UsageError: the step has no such cell.
    """
    explanation = explanation_of(trace_pass, step, cell)
    subtracted = None if minus is None else explanation_of(trace_pass, step, (minus,))
    try:
        result = explanation.to_paths(subtracted, progress=stop_if_left)
    except cs.UsageError as error:
        return NoPaths(of=address_of(trace_pass, explanation), message=str(error))
    shown = result.paths[:SHOWN]
    return PathsInfo(
        of=address_of(trace_pass, explanation),
        minus=minus,
        paths=[
            PathInfo(
                steps=[step.id for step in path.steps],
                channels=list(path.channels),
                value=number(path.value),
                cell=list(path.cell),
            )
            for path in shown
        ],
        others=len(result.paths) - len(shown),
        rest=number(result.rest + sum(path.value for path in result.paths[SHOWN:])),
        constant=number(result.constant),
        total=number(result.total),
        bent=list(result.bent),
    )


def contributions_of(
    trace_pass: TracePass, step: cs.Step, cell: Sequence[int]
) -> tuple[dict[str, object], NDArray[np.float32]]:
    """A number as contributions of the input's pixels: a summary; and each pixel's contribution, then its weight.

    Raises:
        UsageError: a step on the way has no vector-Jacobian product, or the step has no such cell.
    """
    explanation = explanation_of(trace_pass, step, cell)
    contributions = explanation.to_input(progress=stop_if_left)
    pixels, _ = planes_of_all(contributions.pixels, filled_with=0.0)
    weights, _ = planes_of_all(contributions.weights, filled_with=0.0)
    info = ContributionsInfo(
        of=address_of(trace_pass, explanation),
        value=number(contributions.value),
        constant=number(contributions.constant),
        total=number(contributions.total),
        residual=number(contributions.residual),
        bound=number(contributions.bound),
        linear=contributions.linear,
        bent=list(contributions.bent),
        broken=list(contributions.broken),
        checks=bool(contributions.checks),
        shape=list(pixels.shape),
    )
    return {"info": info.model_dump()}, np.stack([pixels, weights])


def contributions_pack(trace_pass: TracePass, step: cs.Step, cell: Sequence[int]) -> bytes:
    """Contributions as bytes, for a response."""
    header, numbers = contributions_of(trace_pass, step, cell)
    return pack(header, [as_float32(numbers)])


def walk_info(trace_pass: TracePass, numbers: Sequence[tuple[int | None, Sequence[int]]]) -> WalkInfo:
    """What a pixel adds along a walk, to the first number from which each reads the next.

    Args:
        trace_pass: The pass.
        numbers: Numbers by their step's id, None for the image, and their index, without the image's.

    Raises:
        UsageError: no number reads the next one, or one cannot be followed.
    """
    named_cells = [(None if step is None else trace_pass.step(step).name, cell) for step, cell in numbers]
    for first, (step, cell) in enumerate(numbers[:-1]):
        if step is None:
            raise cs.UsageError("a walk begins at a number of a step.")
        explanation = explanation_of(trace_pass, trace_pass.step(step), cell)
        try:
            walk = explanation.to_walk(named_cells[first + 1 :])
        except cs.UsageError:
            if first + 2 == len(numbers):
                raise
            continue
        return WalkInfo(
            of=address_of(trace_pass, explanation),
            first=first,
            slopes=[number(slope) for slope in walk.slopes],
            value=number(walk.value),
            product=number(walk.product),
        )
    raise cs.UsageError("a walk has at least two numbers.")


def field_info(trace_pass: TracePass, step: cs.Step, cell: Sequence[int]) -> FieldInfo:
    """The pixels that a number can depend on.

    Raises:
        UsageError: the step has no such cell.
    """
    explanation = explanation_of(trace_pass, step, cell)
    field = cs.probe.receptive_field(trace_pass.trace, step.name, tuple(explanation.cell), progress=stop_if_left)
    rows, columns = field.box[-2:] if len(field.box) > 1 else (None, None)
    return FieldInfo(
        of=address_of(trace_pass, explanation), rows=rows, columns=columns, count=field.count, whole=field.whole
    )
