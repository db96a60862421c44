"""Calls of losses and backward operations, to compare with the reference: those that the cases of the rules make."""

import zlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from reference_cases import Case
from rule_cases_backward import BACKWARD


class Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own __init_subclass__
    """While it is entered, backward operations are kept with what they are called with."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kept: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        if "backward" in name or "_loss" in name:
            self.kept.append((name, args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def backward() -> Iterator[dict[str, Case]]:
    """The last backward operation that each case calls."""
    for name, (does, shapes) in BACKWARD.items():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        inputs = [torch.randn(shape, generator=generator).double() for shape in shapes]
        if "max" in name:  # numbers that every type holds, so that the same cells win in all of them
            inputs = [(x * 32).round() / 32 for x in inputs]
        with Calls() as calls:
            does(*inputs)
        op, args, kwargs = calls.kept[-1]
        single = range(len(args) if op.startswith("mkldnn") else 0)  # what oneDNN keeps fits one type
        yield {name: Case(op, args, kwargs, tuple(single))}
