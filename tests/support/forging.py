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

import convscope as cs
from convscope.errors import DataError
from convscope.proof.verification_report import Verification

Arrays = dict[str, np.ndarray[Any, Any]]
Header = dict[str, Any]
FORMAT = "convscope-trace-2"
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


def written(path: Path, model: nn.Module | None = None, *, image: Tensor | None = None) -> tuple[Arrays, Header]:
    """The arrays and the header of a saved trace."""
    torch.manual_seed(0)
    cs.trace(Small() if model is None else model, torch.rand(1, 1, 6, 6) if image is None else image).save(path)
    return read(path)


def read(path: Path) -> tuple[Arrays, Header]:
    with safe_open(path, "numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()[FORMAT])  # noqa: SIM118


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
    save_file(changed, path, {FORMAT: json.dumps(head)})
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
