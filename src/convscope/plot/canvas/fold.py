"""Fold: a long trace as a few parts that keep its structure: modules, or single steps, and what each part reads.

Knows only a trace's steps; nothing is drawn here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from convscope.plot.canvas.step_maps import reads_image, repeats
from convscope.traces.step import Step
from convscope.traces.trace import Trace


@dataclass(frozen=True, slots=True)
class FoldedPart:
    """One step, or consecutive steps of one module, drawn as one."""

    name: str
    steps: tuple[Step, ...]
    reads: tuple[int, ...]
    """Places of the parts whose output it reads; -1 is the image."""

    @property
    def last(self) -> Step:
        """The step whose output is the part's."""
        return self.steps[-1]


def fold(trace: Trace, limit: int, depth: int | None = None) -> tuple[list[FoldedPart], int]:
    """A trace as at most `limit` parts: all steps where they are few, else modules as deep as there is room.

    Args:
        trace: The steps.
        limit: How many parts at most, where `depth` does not say otherwise.
        depth: How many levels of modules to open: 1 folds each child of the model to one part.

    Returns:
        The parts in order, and how many steps were left out because they only lay numbers out anew.
    """
    by_id = {step.id: step for step in trace.steps}
    source: dict[int, int] = {}
    drawn: list[Step] = []
    for step in trace.steps:
        if repeats(step, by_id):
            source[step.id] = next(source[i] for i in step.inputs if i in by_id)
        else:
            source[step.id] = step.id
            drawn.append(step)
    return _parts(_groups(drawn, limit, depth), source), len(trace.steps) - len(drawn)


def _groups(steps: Sequence[Step], limit: int, depth: int | None) -> list[list[Step]]:
    """Runs of steps that become one part each."""
    if depth is not None:
        return _at_depth(steps, depth)
    if len(steps) <= limit:
        return [[step] for step in steps]
    deepest = max(step.module.count(".") + 1 for step in steps)
    results = [groups for d in range(1, deepest + 1) if len(groups := _at_depth(steps, d)) <= limit]
    if results and len(results[-1]) > 1:
        return results[-1]
    size = -(-len(steps) // limit)  # no modules to go by: equal runs
    return [list(steps[i : i + size]) for i in range(0, len(steps), size)]


def _at_depth(steps: Sequence[Step], depth: int) -> list[list[Step]]:
    groups: list[list[Step]] = []
    last: Any = None
    for step in steps:
        path = step.module.split(".") if step.module else []
        key = tuple(path[:depth]) if len(path) >= depth else step.id
        if groups and key == last:
            groups[-1].append(step)
        else:
            groups.append([step])
        last = key
    return groups


def _parts(groups: Sequence[Sequence[Step]], source: dict[int, int]) -> list[FoldedPart]:
    place = {step.id: i for i, group in enumerate(groups) for step in group}
    parts = []
    for i, group in enumerate(groups):
        reads = {place[source[read]] for step in group for read in step.inputs if read in source} - {i}
        reads |= {-1} if any(reads_image(step) for step in group) else set()
        parts.append(FoldedPart(_name(group), tuple(group), tuple(sorted(reads))))
    return parts


def _name(group: Sequence[Step]) -> str:
    if len(group) == 1:
        return group[0].name
    paths = [step.module.split(".") for step in group]
    shared = [names[0] for names in zip(*paths, strict=False) if len(set(names)) == 1]
    return ".".join(shared) or f"{group[0].name} … {group[-1].name}"
