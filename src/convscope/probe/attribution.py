"""Attribution: Captum's methods beside what convscope knows exactly, and where they differ.

The exact map is `to_input` of an explanation: what each pixel adds to the output, biases kept apart. For a piecewise
linear network it is the output itself, taken apart; the other methods answer other questions. Uses traces and proofs.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convscope.capture.tracing import trace
from convscope.cards.card_inference import card_of
from convscope.errors import UnknownName, UsageError
from convscope.escaping import first_few
from convscope.inputs.pictures import Prepared, prepare
from convscope.probe.patches import last_convolution
from convscope.probe.support.captum_methods import METHODS, MethodCall, attributed, captum
from convscope.probe.support.report import ProbeReport, Table
from convscope.progress import Progress, silent
from convscope.proof.explanation import explain
from convscope.rich_display import RichDisplay
from convscope.traces.step import Step
from convscope.traces.trace import Trace
from convscope.training.outputs import in_eval_mode, scores_of
from convscope.training.runs import Model, as_model
from convscope.type_checks import takes
from convscope.typing import Array

STRONGEST = 0.05
"""The share of pixels that two maps are compared by."""
ROUNDING = 1e-4
"""Differences below this share of the largest pixel are float32 rounding."""
HEAD = ("method", "adds up to", "should", "correlation", "shared", "differs most at")
Map = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Attributed:
    """The result of one of Captum's methods."""

    method: str
    map: Map | None = field(repr=False)
    """In the image's shape (C, H, W); None where it does not work for this model."""
    refused: str = ""
    """Why it does not work."""
    total: float = float("nan")
    """All numbers of the map added up."""
    promised: float | None = None
    """The sum the method promises: the output minus the output for zeros; None if it promises none."""
    correlation: float = float("nan")
    """With the exact contributions over pixels, channels added; of magnitudes where the method has no sign."""
    shared: float = float("nan")
    """The share of the strongest 5 % of pixels that both maps have in common."""
    apart: tuple[int, int] | None = None
    """Row and column where they differ most, as shares of each whole; None where only rounding differs."""


@dataclass(frozen=True, slots=True, eq=False)
class Attribution(RichDisplay):
    """An output attributed to the pixels of an image, exactly and by Captum's methods."""

    model: str
    image: str
    output: str
    """The class, or the number of the output."""
    value: float
    """The output."""
    picture: NDArray[np.float32] = field(repr=False)
    """The image from 0 to 1, (C, H, W)."""
    exact: Map = field(repr=False)
    """The contribution of each cell of the image, (C, H, W)."""
    constant: float
    """The contribution of biases and shifts."""
    linear: bool
    """Whether the exact contributions are the output itself, not its tangent at this image."""
    bent: tuple[str, ...]
    """The steps that are not piecewise linear."""
    methods: tuple[Attributed, ...]
    broken: tuple[str, ...] = ()
    """The steps that take numbers which left PyTorch: what pixels add through these is unknown."""

    def to_json(self) -> dict[str, object]:
        """Plain values for JSON; the maps in row-major order."""
        return {
            "model": self.model,
            "image": self.image,
            "output": self.output,
            "value": self.value,
            "shape": list(self.exact.shape),
            "exact": {
                "contributions": self.exact.reshape(-1).tolist(),
                "constant": self.constant,
                "linear": self.linear,
                "bent": list(self.bent),
                "broken": list(self.broken),
            },
            "methods": [_plain(methods_done) for methods_done in self.methods],
        }

    def __str__(self) -> str:
        return str(self.report())

    def report(self) -> ProbeReport:
        """The result as sentences and tables."""
        total = float(self.exact.sum())
        kind = (
            "exact: the network is piecewise linear" if self.linear else f"a tangent, because of {first_few(self.bent)}"
        )
        if self.broken:
            kind = f"what they add through numbers that left PyTorch is unknown: {first_few(self.broken)}"
        head = f"{self.output} of {self.model} for {self.image}: {self.value:.5g}"
        adds = f"pixels add {total:.5g}, biases and shifts {self.constant:.5g} ({kind})"
        return ProbeReport.of(
            [head, adds], Table(HEAD, [_row(methods_done) for methods_done in self.methods], right=(1, 2, 3, 4))
        )


@takes(model="Module | Run | str | Path")
def attribution(
    model: Model,
    image: object,
    output: int | str | None = None,
    *,
    methods: Sequence[str] = (),
    progress: Progress = silent,
) -> Attribution:
    """Captum's methods beside the exact contributions of each pixel to an output.

    >>> import convscope as cs
    >>> result = attribution(cs.load_model("simple-cnn"), "shapes:test/3", 2, methods=["input-x-gradient"])
    >>> round(result.methods[0].correlation, 6), result.linear
    (1.0, True)

    Args:
        model: Any model with one vector of outputs, a run, or a name or path of a model; it is left as it was.
        image: Whatever `cs.load_image` takes, or what `cs.prepare` gave.
        output: A class by number or name; None: the one that the model chooses.
        methods: Names from METHODS; by default all.
        progress: Receives how many methods are done, before each pass of a method.

    Raises:
        UsageError: Captum is not installed, or no step holds the model's outputs.
        ShapeError: the model answers with something else than one score per class, such as segmentation maps.
        UnknownName: no such method, or no such class.
    """
    model = as_model(model)
    for name in methods:
        if name not in METHODS:
            raise UnknownName("attribution method", name, METHODS)
    attr, names = captum(), [*(methods or METHODS)]
    progress("methods", 0, len(names))
    prepared = image if isinstance(image, Prepared) else prepare(image, like=model)
    traced = trace(model, prepared.array)
    last, values = _outputs(traced)
    output_index = _chosen(model, values, output)
    cell = tuple(int(k) for k in np.unravel_index(output_index, last.shape))
    contributions = explain(traced, last.name, cell).to_input()
    exact = contributions.pixels[next(iter(contributions.pixels))][0]
    with in_eval_mode(model):
        methods_done = list[Attributed]()
        call = _method_call(
            model, prepared.array, output_index, traced, lambda: progress("methods", len(methods_done), len(names))
        )
        baseline = _output_for_zeros(call)
        for name in names:
            methods_done.append(
                _compared(name, attributed(name, call, attr), exact, float(values[output_index]) - baseline)
            )
            progress("methods", len(methods_done), len(names))
    card = card_of(model)
    return Attribution(
        card.name,
        prepared.name,
        card.classes[output_index] if output_index < len(card.classes) else f"output {output_index}",
        float(values[output_index]),
        prepared.picture,
        exact,
        contributions.constant,
        contributions.linear,
        contributions.bent,
        tuple(methods_done),
        contributions.broken,
    )


def _outputs(traced: Trace) -> tuple[Step, Array]:
    """The last step that holds the model's outputs, and the outputs, (K,).

    Raises:
        ShapeError: the model answers with something else than one score per class.
        UsageError: no step holds them, so there is nothing to explain.
    """
    scores = scores_of(traced.output, 1)[0].numpy()
    for step in reversed(traced.steps):
        sized = math.prod(step.shape) == len(scores) and "float" in step.dtype
        if sized and np.array_equal(step.output.ravel(), scores, equal_nan=True):
            return step, scores
    raise UsageError("attribution explains an output by the steps that made it, and no step holds this model's output.")


def _chosen(model: nn.Module, values: Array, output: int | str | None) -> int:
    classes = card_of(model).classes
    if output is None:
        return int(values.argmax())
    if output in classes:
        return classes.index(str(output))
    if isinstance(output, str) and not re.fullmatch("[0-9]{1,18}", output):
        raise UnknownName("class", output, classes)
    if not 0 <= int(output) < len(values):
        raise UsageError(f"the model has outputs 0 to {len(values) - 1}, not {output}.")
    return int(output)


def _method_call(
    model: nn.Module, image: NDArray[np.float32], which: int, traced: Trace, going_on: Callable[[], None]
) -> MethodCall:
    first: Tensor = next(model.parameters(), torch.empty(0))
    last = traced[last_convolution(traced.steps)]
    tensor = torch.tensor(image[None], dtype=first.dtype, device=first.device)
    return MethodCall(model, tensor, which, last.module if last.op == "convolution" else "", going_on)


def _output_for_zeros(call: MethodCall) -> float:
    with torch.no_grad():
        return float(call.forward(torch.zeros_like(call.image))[0, call.output])


def _compared(name: str, result: Tensor | str, exact: Map, promised: float) -> Attributed:
    """A method's map beside the exact one."""
    if isinstance(result, str):
        return Attributed(name, None, result)
    method_map, exact_map = result.numpy(), exact
    method = METHODS[name]
    first, second = method_map.sum(axis=0), exact_map.sum(axis=0)
    if not method.signed:
        first, second = np.abs(first), np.abs(second)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = (
            float(np.corrcoef(first.ravel(), second.ravel())[0, 1]) if first.std() and second.std() else float("nan")
        )
        shares = [part / np.abs(part).sum() for part in (first, second)]
    distance = np.nan_to_num(np.abs(shares[0] - shares[1]))
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    is_apart = float(distance.max()) > ROUNDING * float(np.nan_to_num(np.abs(shares[1])).max())
    return Attributed(
        name,
        method_map,
        total=float(method_map.sum()),
        promised=promised if method.complete else None,
        correlation=correlation,
        shared=_shared(first, second),
        apart=(int(row), int(column)) if is_apart else None,
    )


def _shared(first: Map, second: Map) -> float:
    """The share of the strongest pixels that both maps name."""
    count = max(1, round(STRONGEST * first.size))
    strongest = [set(np.argsort(-np.abs(plane).ravel(), kind="stable")[:count].tolist()) for plane in (first, second)]
    return len(strongest[0] & strongest[1]) / count


def _row(result: Attributed) -> tuple[str, ...]:
    """A method's line of the table."""
    if result.map is None:
        return result.method, f"does not work here: {result.refused}"
    should = "–" if result.promised is None else f"{result.promised:.4g}"
    where = "nowhere" if result.apart is None else f"row {result.apart[0]}, column {result.apart[1]}"
    measured = (f"{result.total:.4g}", should, f"{result.correlation:.3f}", f"{100 * result.shared:.0f} %")
    return result.method, *measured, where


def _plain(result: Attributed) -> dict[str, object]:
    return {
        "method": result.method,
        "refused": result.refused,
        "total": result.total,
        "promised": result.promised,
        "correlation": result.correlation,
        "shared": result.shared,
        "apart": None if result.apart is None else list(result.apart),
        "map": None if result.map is None else result.map.reshape(-1).tolist(),
    }
