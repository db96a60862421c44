"""Field rules: how each operation changes the reach of cells: the cells of the image that they depend on, axis by axis.

Each number sees, along an axis of the image, the cells from `jump·position + first` to `jump·position + last`. A window
of k cells widens that by (k - 1)·jump. Uses steps; no torch, no numbers of tensors.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from convscope.layer_arithmetic import regrouped
from convscope.ops.pointwise import pointwise_dependencies
from convscope.ops.table import OPS
from convscope.traces.step import Ref, Step


@dataclass(frozen=True, slots=True)
class FieldReach:
    """The image cells that the cells of a result depend on, along one axis."""

    first: int
    last: int
    jump: int
    """Cells of the image between neighbouring positions."""
    count: int
    """Positions."""
    place: int | None
    """The axis of the result along which positions run; None if all cells see the same."""
    length: int
    """Cells of the image along this axis."""
    merged: bool = False
    """Whether that axis also runs over other axes of the image or channels, as after a flatten."""
    loose: bool = False
    """Whether it may be wider than what one number sees: a score of two positions sees these two windows alone."""
    sum: str = ""
    """How the last window changed its size."""

    @property
    def size(self) -> int:
        """Cells that one number sees, unless the border of the image cuts it."""
        return self.last - self.first + 1

    @property
    def whole(self) -> bool:
        """Whether every number sees all of the axis."""
        last = self.first + self.jump * (self.count - 1) if self.place is not None else self.first
        return max(self.first, last) <= 0 and self.last >= self.length - 1

    def together(self) -> "FieldReach":
        """The reach of a number that reads all positions."""
        if self.place is None:
            return self
        return replace(self, last=self.last + self.jump * (self.count - 1), jump=0, count=1, place=None, merged=False)


State = tuple[FieldReach, ...]
"""One for each spatial axis of the image."""


Operands = Sequence[tuple[Ref, State]]
"""The tensors that a step reads, each with the reach of its cells; () for a parameter."""
Rule = Callable[[Step, Operands], State | None]
"""The reach of a step's result; None where window arithmetic does not describe it."""


def _cell_by_cell(step: Step, operands: Operands) -> State | None:
    """Operands of equal or broadcast shapes."""
    shifted_states = []
    for ref, state in operands:
        shift = len(step.shape) - len(ref.shape)
        if state:
            shifted_states.append(tuple(r if r.place is None else replace(r, place=r.place + shift) for r in state))
    return _joined(shifted_states)


def _joined(states: Sequence[State]) -> State | None:
    """The reach of cells that read several operands at the same position."""
    joined = []
    for reaches in zip(*states, strict=True):
        fixed, running = [r for r in reaches if r.place is None], [r for r in reaches if r.place is not None]
        if len({(r.place, r.jump, r.count, r.merged) for r in running}) > 1:
            return None
        if running and any(not r.whole for r in fixed):
            return None
        kind = fixed[0] if fixed else running[0]
        joined.append(
            replace(kind, first=min(r.first for r in fixed or running), last=max(r.last for r in fixed or running))
        )
    return tuple(joined)


def _windows(step: Step, operands: Operands) -> State | None:
    """A convolution or pooling."""
    if step.arguments.get("transposed"):
        return None
    ref, state = operands[0]
    kernel = _kernel(step, operands)
    settings = [_spread(step.arguments.get(n), len(kernel), usual) for n, usual in SETTINGS]
    if not _listed(step.arguments.get("stride")):
        settings[0] = list(kernel)  # of a pooling
    first_axis, result = len(ref.shape) - len(kernel), []
    for reach in state:
        if reach.place is None or reach.place < first_axis:
            result.append(reach if reach.place != 1 else reach.together())  # channels are summed
            continue
        axis = reach.place - first_axis
        k, (stride, padding, dilation) = kernel[axis], (setting[axis] for setting in settings)
        if reach.merged and k > 1:
            return None
        wider = dilation * (k - 1)
        text = (
            f"{reach.size} + ({k} - 1)·{reach.jump}"
            if dilation == 1
            else f"{reach.size} + {dilation}·({k} - 1)·{reach.jump}"
        )
        result.append(
            replace(
                reach,
                first=reach.first - padding * reach.jump,
                last=reach.last + (wider - padding) * reach.jump,
                jump=reach.jump * stride,
                count=step.shape[reach.place],
                sum=text if k > 1 else "",
            )
        )
    return tuple(result)


SETTINGS = (("stride", 1), ("padding", 0), ("dilation", 1))


def _kernel(step: Step, operands: Operands) -> list[int]:
    if step.op == "convolution":
        return list(operands[1][0].shape[2:])
    return _spread(step.arguments.get("kernel_size"), int(step.op.partition("d")[0][-1]), 1)


def _padded(step: Step, operands: Operands) -> State | None:
    """Zero padding shifts the positions."""
    (ref, state), pad = operands[0], _listed(step.arguments.get("pad"))
    left = {len(ref.shape) - 1 - i: n for i, n in enumerate(pad[::2])}
    right = {len(ref.shape) - 1 - i: n for i, n in enumerate(pad[1::2])}
    if any(r.merged and r.place is not None and (left.get(r.place) or right.get(r.place)) for r in state):
        return None
    return tuple(
        r
        if r.place is None or r.place not in left
        else replace(
            r, first=r.first - left[r.place] * r.jump, last=r.last - left[r.place] * r.jump, count=step.shape[r.place]
        )
        for r in state
    )


def _reduced(names: Sequence[str], *, keeps_axes: bool = False) -> Rule:
    """A mean or a softmax reads whole axes; `keeps_axes` if the result still has them."""

    def rule(step: Step, operands: Operands) -> State | None:
        ref, state = operands[0]
        axes = next((_listed(step.arguments[n]) for n in names if step.arguments.get(n) is not None), [])
        places = {int(a) % len(ref.shape) for a in axes} or set(range(len(ref.shape)))
        keep = keeps_axes or bool(step.arguments.get("keepdim"))
        return tuple(replace(r, loose=False) for r in _without(state, places, keep=keep))

    return rule


def _without(state: State, places: set[int], *, keep: bool = False) -> State:
    """After all numbers along these axes were read together; the axes are gone unless kept."""
    result = []
    for reach in state:
        if reach.place in places:
            result.append(reach.together())
        elif reach.place is None or keep:
            result.append(reach)
        else:
            result.append(replace(reach, place=reach.place - sum(p < reach.place for p in places)))
    return tuple(result)


def _layer_norm(step: Step, operands: Operands) -> State | None:
    ref, state = operands[0]
    count = len(_listed(step.arguments.get("normalized_shape")))
    return _without(state, set(range(len(ref.shape) - count, len(ref.shape))), keep=True)


def _group_norm(_step: Step, operands: Operands) -> State | None:
    ref, state = operands[0]
    return _without(state, set(range(1, len(ref.shape))), keep=True)


def _batch_norm(step: Step, operands: Operands) -> State | None:
    if not step.arguments.get("training"):
        return operands[0][1]
    return _without(operands[0][1], set(range(2, len(operands[0][0].shape))), keep=True)


def _product(left: str, right: str) -> Rule:
    """A matrix product reads the left operand's last axis and the right one's second to last axis in full."""

    def rule(step: Step, operands: Operands) -> State | None:
        by_id = {id(ref): state for ref, state in operands}
        a, b = step.arguments[left], step.arguments[right]
        left_state, right_state = by_id[id(a)], by_id[id(b)]
        if left_state and right_state:  # a number of both; exact once either was read wholly
            rows, columns = (tuple(r.together() for r in state) for state in (left_state, right_state))
            is_read_whole = any(r.place == len(a.shape) - 1 for r in left_state) or any(
                r.place == len(b.shape) - 2 for r in right_state
            )
            fixed = all(r.place is None for r in (*left_state, *right_state))
            joined = _joined([rows, columns])
            return joined and tuple(replace(r, loose=not (is_read_whole or fixed)) for r in joined)
        if left_state:
            return _without(left_state, {len(a.shape) - 1}, keep=True)
        return _without(right_state, {len(b.shape) - 2}, keep=True)

    return rule


def _attention(_step: Step, operands: Operands) -> State | None:
    return _joined([tuple(r.together() for r in state) for _, state in operands if state])


def _moved(axes: Callable[[Step, int], Sequence[int | None]]) -> Rule:
    """Axes in another order; `axes` gives the input's axis for each axis of the result."""

    def rule(step: Step, operands: Operands) -> State | None:
        ref, state = operands[0]
        order = list(axes(step, len(ref.shape)))
        return tuple(r if r.place is None else replace(r, place=order.index(r.place)) for r in state)

    return rule


def _swapped(step: Step, rank: int) -> list[int | None]:
    order: list[int | None] = [*range(rank)]
    first, second = (int(step.arguments.get(n, i)) % rank for i, n in enumerate(("dim0", "dim1")))
    order[first], order[second] = order[second], order[first]
    return order


def _permuted(step: Step, rank: int) -> list[int | None]:
    return [int(axis) % rank for axis in step.arguments["dims"]]


def _added(step: Step, rank: int) -> list[int | None]:
    order: list[int | None] = [*range(rank)]
    order.insert(int(step.arguments["dim"]) % (rank + 1), None)
    return order


def _reshaped(step: Step, operands: Operands) -> State | None:
    """Axes of equal products; several that become one are merged, one that becomes several is lost."""
    ref, state = operands[0]
    places = dict[int, tuple[int, bool]]()
    axis_offset = 0
    for sizes, axes in regrouped(ref.shape, step.shape):
        real = [axis_offset + i for i, n in enumerate(sizes) if n != 1]
        target = [axis for axis in axes if step.shape[axis] != 1] or list(axes[:1])
        for axis in range(axis_offset, axis_offset + len(sizes)):
            if len(target) == 1:
                places[axis] = target[0], len(real) > 1
        axis_offset += len(sizes)
    result = []
    for reach in state:
        if reach.place is None:
            result.append(reach)
        elif reach.place in places:
            target_axis, merged = places[reach.place]
            result.append(replace(reach, place=target_axis, merged=reach.merged or merged))
        elif reach.count == 1:
            result.append(reach.together())
        else:
            return None
    return tuple(result)


def _concatenated(step: Step, operands: Operands) -> State | None:
    axis = int(step.arguments.get("dim") or 0) % len(step.shape)
    states = [state for _, state in operands if state]
    if any(r.place == axis and not r.merged for state in states for r in state):
        return None
    return _joined(states)


def _sliced(step: Step, operands: Operands) -> State | None:
    (ref, state), a = operands[0], step.arguments
    axis = int(a.get("dim") or 0) % len(ref.shape)
    start, step_size = int(a.get("start") or 0), int(a.get("step") or 1)
    start = start + ref.shape[axis] if start < 0 else start
    return tuple(
        r
        if r.place != axis or r.merged
        else replace(
            r,
            first=r.first + start * r.jump,
            last=r.last + start * r.jump,
            jump=r.jump * step_size,
            count=step.shape[axis],
        )
        for r in state
    )


def _selected(step: Step, operands: Operands) -> State | None:
    ref, state = operands[0]
    axis = int(step.arguments.get("dim") or 0) % len(ref.shape)
    if any(r.place == axis for r in state):
        return None
    return _without(state, {axis})


def _squeezed(step: Step, operands: Operands) -> State | None:
    ref, state = operands[0]
    dims = _listed(step.arguments.get("dim")) or range(len(ref.shape))
    removed = {int(d) % len(ref.shape) for d in dims}
    return _without(state, {axis for axis in removed if ref.shape[axis] == 1})


def _listed(value: object) -> list[int]:
    return list(value) if isinstance(value, list | tuple) else [value] if isinstance(value, int) else []


def _spread(value: object, axes: int, usual: int) -> list[int]:
    numbers = [int(n) for n in _listed(value)] or [usual]
    return numbers * axes if len(numbers) == 1 else numbers


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        ("convolution", "avg_pool2d", "avg_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices"), _windows
    ),
    "constant_pad_nd": _padded,
    **dict.fromkeys(("native_batch_norm", "cudnn_batch_norm", "batch_norm"), _batch_norm),
    "_native_batch_norm_legit_no_training": _batch_norm,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    **dict.fromkeys(("mean", "sum", "amax", "amin", "var", "std", "linalg_vector_norm"), _reduced(("dim",))),
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax"), _reduced(("dim",), keeps_axes=True)),
    "mm": _product("self", "mat2"),
    "bmm": _product("self", "mat2"),
    "addmm": _product("mat1", "mat2"),
    "baddbmm": _product("batch1", "batch2"),
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "flatten", "_reshape_alias"), _reshaped),
    "permute": _moved(_permuted),
    **dict.fromkeys(("transpose", "t"), _moved(_swapped)),
    "unsqueeze": _moved(_added),
    "squeeze": _squeezed,
    "select": _selected,
    "slice": _sliced,
    "cat": _concatenated,
    **dict.fromkeys(
        ("clone", "alias", "detach", "copy", "_to_copy", "contiguous", "dropout", "native_dropout", "expand"),
        _cell_by_cell,
    ),
}
"""Operation -> how it changes the reach of cells; pointwise operations keep that of their operands."""


def rule_of(op: str) -> Rule | None:
    """The rule of an operation; None where window arithmetic does not describe it."""
    entry = OPS.get(op)
    pointwise = entry is not None and entry.dependencies is pointwise_dependencies
    return RULES.get(op, _cell_by_cell if pointwise else None)
