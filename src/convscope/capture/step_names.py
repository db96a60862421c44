"""Step names: a readable, unique name for each step. Knows linked calls and module paths; no torch."""

import math
from collections.abc import Sequence

from convscope.capture.call_records import CallRecord, TensorMeta
from convscope.capture.dataflow import LinkedCall

PLAIN = {  # ATen names that differ from the documented names
    "addmm": "linear",
    "mm": "matmul",
    "bmm": "matmul",
    "baddbmm": "matmul",
    "_to_copy": "to",
    "_unsafe_view": "reshape",
    "_reshape_alias": "reshape",
    "constant_pad_nd": "pad",
}


def names_of(rows: Sequence[LinkedCall], hidden: Sequence[bool], visits: Sequence[tuple[str, int]]) -> list[str]:
    """A unique name for each row; visible ones get theirs first.

    The only visible step of a leaf module takes the module's path; any other step is named `path.operation`, or just
    `operation` in the model's own `forward`. Repeated names are numbered: `relu`, `relu#2`.
    """
    callers = {caller for _, caller in visits}
    shown: dict[int, int] = {}
    for row, hid in zip(rows, hidden, strict=True):
        shown[row.entry.visit] = shown.get(row.entry.visit, 0) + (not hid)
    names = [""] * len(rows)
    used: dict[str, int] = {}
    for turn in (False, True):
        for number, row in enumerate(rows):
            if hidden[number] is turn:
                visit = row.entry.visit
                path = visits[visit][0]
                alone = not turn and path and shown[visit] == 1 and visit not in callers
                name = path if alone else f"{path}.{plain_name(row)}".lstrip(".")
                names[number] = _numbered(name, used)
    return names


def _numbered(name: str, used: dict[str, int]) -> str:
    used[name] = used.get(name, 0) + 1
    return name if used[name] == 1 else f"{name}#{used[name]}"


def plain_name(row: LinkedCall) -> str:
    """The operation's name in PyTorch's documentation."""
    op, slots = row.entry.op, [link.slot for link in row.links]
    if op in {"convolution", "_convolution", "convolution_overrideable", "mkldnn_convolution"} and len(slots) > 1:
        transposed = "_transpose" if row.entry.arguments.get("transposed") else ""
        return f"conv{transposed}{len(slots[1].shape) - 2}d"
    if op in {"view", "_unsafe_view", "_reshape_alias"} and slots and _flattens(slots[0], row.entry):
        return "flatten"
    if op == "mm" and len(row.links) > 1 and row.links[1].kind == "parameter":
        return "linear"
    if op in PLAIN:
        return PLAIN[op]
    if "scaled_dot_product" in op:
        return "attention"
    return op.rpartition("::")[2].lstrip("_").removeprefix("native_").removesuffix("_with_indices")


def _flattens(before: TensorMeta, entry: CallRecord) -> bool:
    """Whether the trailing axes were merged into one."""
    after = entry.results[0]
    if not 1 <= len(after.shape) < len(before.shape):
        return False
    kept = len(after.shape) - 1
    return before.shape[:kept] == after.shape[:kept] and after.shape[-1] == math.prod(before.shape[kept:])
