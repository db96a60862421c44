"""Forging: saved traces whose header or arrays were changed, as damage or malice would."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import convscope as cs
from convscope.errors import DataError
from convscope.proof.verification_report import Verification

Arrays = dict[str, np.ndarray[Any, Any]]
Header = dict[str, Any]
FORMAT, STEP_FORMAT = "convscope-trace-2", "convscope-trace-3"
OP, MODULE, ARGUMENTS, RESULTS, OVERRIDDEN = 4, 2, 6, 9, 12
"""Places of a step's entries in the header."""


class Small(nn.Module):
    """A convolution, a bias that is a view of a parameter, a ReLU in place, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 2, 3)
        self.conv2 = nn.Conv2d(2, 2, 3)
        self.fc = nn.Linear(8, 3)
        self.shift = nn.Parameter(torch.rand(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.conv1(x).relu_() + self.shift[:, :2, None, None].expand(-1, -1, 4, 4))
        return self.fc(x.flatten(1))  # type: ignore[no-any-return]


class Square(torch.autograd.Function):
    """The square, with its derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grads[0] * 2 * x  # type: ignore[no-any-return]


class Normed(nn.Module):
    """A convolution that is used by two paths, batch norm, a custom function, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y = F.max_pool2d(Square.apply(self.norm(y)) + y, 2, 1)  # type: ignore[no-untyped-call]
        return self.fc(y.flatten(1))  # type: ignore[no-any-return]


def written(path: Path, model: nn.Module | None = None, *, image: Tensor | None = None) -> tuple[Arrays, Header]:
    """The arrays and the header of a saved trace."""
    torch.manual_seed(0)
    cs.trace(Small() if model is None else model, torch.rand(1, 1, 6, 6) if image is None else image).save(path)
    return read(path)


def written_step(path: Path) -> tuple[Arrays, Header]:
    """The arrays and the header of a saved training step, with batch norm and a custom function."""
    torch.manual_seed(0)
    labels = {"target": [0, 2, 1], "optimizer": "adam", "lr": 0.1}
    cs.trace(Normed(), torch.rand(3, 1, 5, 5), **labels).save(path)  # type: ignore[arg-type]
    return read(path)


def read(path: Path) -> tuple[Arrays, Header]:
    with safe_open(path, "numpy") as file:
        (header,) = file.metadata().values()
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(header)  # noqa: SIM118


def save(arrays: Arrays, path: Path, header: str) -> None:
    """Write a trace in the format of what its header holds."""
    save_file(arrays, path, {STEP_FORMAT if '"positions"' in header else FORMAT: header})


def forged(
    path: Path,
    original: tuple[Arrays, Header],
    *,
    arrays: Callable[[Arrays], Any] = lambda _: None,
    header: Callable[[Header], Any] = lambda _: None,
) -> Path:
    """The same trace with changes, in another file."""
    changed, head = dict(original[0]), json.loads(json.dumps(original[1]))
    arrays(changed)
    header(head)
    save(changed, path, json.dumps(head))
    return path


def report_of(path: Path) -> Verification | None:
    """What `verify` says about a file; None where it is refused, in one sentence that names it."""
    try:
        trace = cs.Trace.load(path)
    except DataError as error:
        text = str(error)
        assert str(path) in text, text
        assert text.endswith(".") and "\n" not in text and len(text) < 400, text  # noqa: PT018 - one sentence
        return None
    _ = trace.output, trace.input, trace.constants, [trace.operands(step) for step in trace.all_steps]
    _ = trace.card, trace.modules, [(step.says, repr(step), step.outputs) for step in trace.all_steps]
    report = cs.verify(trace, cells=10)
    json.dumps(report.to_json(), allow_nan=False)
    return report
