"""Field sums: the receptive field of every step by arithmetic: window sizes and jumps carried forward from the image.

Each number sees, along an axis of the image, the cells from `jump·position + first` to `jump·position + last`. A window
of k cells widens that by (k - 1)·jump. What this does not describe (an up-sampling, a shuffle) has no field here; the
probe `receptive_field` follows the exact cells instead. Knows traces; no torch, no numbers of tensors.

Source: A. Araujo, W. Norris, J. Sim, Computing Receptive Fields of Convolutional Neural Networks, Distill, 2019.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from convscope.export.field_rules import Reach, State, rule_of
from convscope.traces.step import Ref, Step
from convscope.traces.trace import Trace


@dataclass(frozen=True, slots=True)
class FieldSum:
    """A receptive field."""

    size: tuple[int, ...]
    """Cells along each spatial axis of the image, those beyond its border included."""
    whole: bool
    """Whether every number sees the whole image."""
    changes: bool
    """Whether this step widens it."""
    text: str
    """How, such as `3 + (3 - 1)·2`."""

    @property
    def extent(self) -> str:
        """A short form: `7x7`, or `whole image`."""
        return "whole image" if self.whole else "x".join(map(str, self.size))

    def __str__(self) -> str:
        if self.whole or not self.text:
            return self.extent
        return f"{self.text} = {self.size[0]}" if len(set(self.size)) == 1 else f"{self.text}: {self.extent}"

    def to_json(self) -> dict[str, Any]:
        """As plain values for a JSON file."""
        return {"size": list(self.size), "whole": self.whole, "text": self.text}


def field_sums(trace: Trace) -> dict[int, FieldSum | None]:
    """The receptive field of each step by its id; None where window arithmetic does not describe it."""
    inputs = [ref for ref in trace.outside.values() if ref.kind == "input"]
    spatial = inputs[0].shape[2:] if len(inputs) == 1 else ()
    start = tuple(Reach(0, 0, 1, n, axis, n) for axis, n in enumerate(spatial, 2))
    states, result = dict[int, State | None](), dict[int, FieldSum | None]()
    for step in trace.all_steps:
        before = [(ref, _state(ref, states, start)) for _, _, ref in step.refs()]
        known = [state for _, state in before if state not in (None, ())]
        lost = any(state is None for _, state in before)
        state = None if not start or lost or not step.arguments else _after(step, before) if known else ()
        states[step.id] = state
        loose = any(reach.loose for reach in state or ())
        result[step.id] = _field(state, known) if state and not loose else None
    return result


def _state(ref: Ref, states: Mapping[int, State | None], start: State) -> State | None:
    """The reach of an argument's cells: () for a parameter, None if unknown."""
    if ref.rewritten or ref.output:
        return None
    return start if ref.kind == "input" else states[ref.id] if ref.kind == "step" else ()


def _field(state: State, before: Sequence[State]) -> FieldSum:
    widened = [reach for reach in state if reach.sum]
    whole = all(reach.whole for reach in state)
    sizes = tuple(reach.size for reach in state)
    same = any(sizes == tuple(reach.size for reach in other) for other in before)
    changes = not same and not (whole and any(all(reach.whole for reach in other) for other in before))
    return FieldSum(sizes, whole, changes, widened[0].sum if widened and changes else "")


def _after(step: Step, before: Sequence[tuple[Ref, State | None]]) -> State | None:
    rule = rule_of(step.op)
    states = [(ref, tuple(replace(reach, sum="") for reach in state or ())) for ref, state in before]
    return rule(step, states) if rule is not None else None
