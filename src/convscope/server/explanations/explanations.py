"""Explanations: one number with its calculation, its proof, and the words in which it is read aloud."""

import math
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

import convscope as cs
from convscope.render.numbers import MINUS, compact
from convscope.server.explanations.schema import (
    Address,
    ApplyJson,
    CellsJson,
    DotJson,
    Explained,
    ExplanationJson,
    LeafJson,
    Line,
    Paper,
    Proof,
    RestJson,
)
from convscope.server.traces.array_pictures import number
from convscope.server.traces.passes import TERMS, TracePass
from convscope.typing import Array

AXES: Mapping[int, tuple[str, ...]] = {
    1: ("unit",),
    2: ("token", "feature"),
    3: ("channel", "row", "column"),
}
"""Number of axes without the batch -> the names of the axes."""


def cell_words(cell: Sequence[int], shape: Sequence[int]) -> str:
    """A cell as it is read aloud.

    >>> cell_words((0, 3, 10, 12), (1, 8, 28, 28)), cell_words((0, 1), (1, 2))
    ('channel 3, row 10, column 12', 'unit 1')
    """
    shown = list(cell[1:]) if len(cell) > 1 and shape[0] == 1 else list(cell)
    names = AXES.get(len(shown))
    if names is None or len(shown) == len(cell) > 1:
        return "cell " + ", ".join(map(str, shown)) if shown else "its only cell"
    return ", ".join(f"{name} {index}" for name, index in zip(names, shown, strict=True))


def aloud(value: float | str) -> str:
    """A number for a sentence, six digits.

    >>> aloud(-0.8692831), aloud("nan")
    ('−0.869283', 'nan')
    """
    return value.replace("-", MINUS) if isinstance(value, str) else compact(value, 6)


def spoken_sentence(explanation: ExplanationJson) -> str:
    """An explanation in one sentence for a screen reader, from its JSON, not yet cut."""
    position = cell_words(explanation["cell"], explanation["shape"])
    head = f"{explanation['step']['name']}, {position}, is {aloud(explanation['recorded'])}"
    expr = explanation["expr"]
    if expr is None:
        return f"{head}; no rule explains it."
    return f"{head}: {_because(expr)}."


def _because(expr: LeafJson | DotJson | ApplyJson) -> str:
    if expr["type"] == "leaf":
        return f"the number {aloud(expr['value'])} of {expr['name']}, passed on"
    if expr["type"] == "apply":
        note = expr["note"]
        return f"{note}: {expr['formula']}" if note else str(expr["formula"])
    left, right, bias = expr["left"], expr["right"], expr["bias"]
    count = len(left["values"])
    if count == 0:
        addition = "nothing is added"
    elif right is None:
        addition = f"the sum of {count:,} {_plural('number', count)} of {left['name']}"
    else:
        addition = f"the sum of {count:,} {_plural('product', count)} of {left['name']} and {right['name']}"
    if expr["divisor"] != 1:
        addition += f", divided by {aloud(expr['divisor'])}"
    if expr["scale"] != 1:
        addition += f", times {aloud(expr['scale'])}"
    return addition + (f", plus {aloud(bias['value'])}" if bias is not None else "")


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


SOME = 256
"""Terms of a sum where not all are asked for."""
CHEAP = 40_000_000
"""Products that the reference adds within some hundredths of a second, also on a busy machine."""
EACH = 80
"""Products that any other function costs, for each number that goes in."""


def explained(
    trace_pass: TracePass, step: cs.Step, cell: Sequence[int], *, every: bool = False, channel: int | None = None
) -> Explained:
    """Why a number is what it is.

    Args:
        trace_pass: The pass.
        step: The step that made it.
        cell: An index; the image index and axes of size 1 may be left out.
        every: All terms of a long sum, as far as an answer may hold them.
        channel: The channel whose terms are sent, for a window over several.

    Raises:
        UsageError: the step has no such cell.
    """
    explanation = explanation_of(trace_pass, step, cell)
    cheap = step.id in trace_pass.proved or _work(explanation) <= CHEAP
    proof = proved(trace_pass, explanation) if cheap else None
    answer = _answer(explanation, address_of(trace_pass, explanation), proof, TERMS if every else SOME, channel)
    # the code reads a trace of one forward pass, which this one is not
    return answer if trace_pass.trace.training_step is None else answer.model_copy(update={"code": None})


def address_of(trace_pass: TracePass, explanation: cs.Explanation) -> Address:
    """Which number an explanation is about: taken from the explanation itself, not from the request."""
    return Address(trace=trace_pass.id, step=explanation.step.id, cell=[int(index) for index in explanation.cell])


def explanation_of(trace_pass: TracePass, step: cs.Step, cell: Sequence[int]) -> cs.Explanation:
    """The explanation of a cell.

    Raises:
        UsageError: the step has no such cell, or holds no real numbers.
    """
    return cs.explain(trace_pass.trace, step, tuple(cell))


def softmax_of(step: cs.Step) -> cs.Trace:
    """The softmax over an answer, for a model that has none."""
    softmax = cs.load_model("torch.nn:Softmax", args={"dim": 1})
    return cs.trace(softmax, np.asarray(step.output, np.float32).reshape(1, -1))


def probability(trace_pass: TracePass, step: cs.Step, index: int, trace: cs.Trace | None = None) -> Explained:
    """Why a class has its probability: the softmax over the answer, where the model itself has none.

    Args:
        trace_pass: The pass.
        step: What made the answer.
        index: Which class.
        trace: What `softmax_of` gives for the step, where the caller has it already.

    Raises:
        UsageError: there is no such class.
    """
    trace = softmax_of(step) if trace is None else trace
    explanation = cs.explain(trace, trace.steps[-1], (index,))
    address = Address(trace=trace_pass.id, step=None, cell=[int(index) for index in explanation.cell])
    answer = _answer(explanation, address, _proof(explanation, address), SOME, None)
    code = f'x = torch.tensor(trace["{step.name}"].output).reshape(1, -1)\ntorch.softmax(x, 1)[0, {index}]'
    written = {"formula": f"out[{index}] = e^in[{index}] / Σ over i of e^in[i]", "code": code}
    renamed = _renamed(answer.model_dump(), step.name)
    assert isinstance(renamed, dict)
    return Explained.model_validate(renamed | written)


def _renamed(value: object, name: str) -> object:
    """The JSON of a softmax over `input`, with the name of the step that its input really is."""
    if isinstance(value, dict):
        step = {"name": name, "kind": "step"} if (value.get("name"), value.get("kind")) == ("input", "input") else {}
        return {key: _renamed(part, name) for key, part in {**value, **step}.items()}
    if isinstance(value, list):
        return [_renamed(part, name) for part in value]
    return value.replace("input (", f"{name} (") if isinstance(value, str) else value


def _answer(
    explanation: cs.Explanation, address: Address, proof: Proof | None, limit: int, channel: int | None
) -> Explained:
    """An explanation as the page gets it, its sums cut."""
    plain = cast("ExplanationJson", explanation.to_json(proof=proof is not None))
    sentence = spoken_sentence(plain)
    if plain["expr"] is None:
        return Explained(of=address, explanation=plain, sentence=sentence, rest=None, proof=proof)
    kept_terms, rest = cut(plain["expr"], limit, channel)
    paper = _paper(explanation, kept_terms)
    return Explained(
        of=address,
        explanation=plain,
        sentence=sentence,
        rest=rest,
        proof=proof,
        paper=paper,
        formula=explanation.to_formula(),
        code=explanation.to_code(),
    )


def _paper(explanation: cs.Explanation, kept_terms: Array | None) -> Paper | None:
    """The calculation in lines; its terms are counted as they are sent."""
    worksheet = explanation.paper()
    if worksheet is None:
        return None
    sent_positions: dict[int | None, int] | None = (
        None if kept_terms is None else {int(term): position for position, term in enumerate(kept_terms)}
    )
    lines = []
    for line in worksheet.lines:
        term = line.term if sent_positions is None else sent_positions.get(line.term)
        lines.append(
            Line(
                kind=line.kind,
                label=line.label,
                number=line.number,
                after=line.after,
                channel=line.channel,
                term=term,
            )
        )
    products, sums = [], []
    if worksheet.dot is not None:
        terms = range(len(worksheet.dot.left)) if kept_terms is None else kept_terms.tolist()
        products, sums = worksheet.products(terms), worksheet.sums(terms)
    return Paper(headline=worksheet.headline, result=worksheet.result, lines=lines, products=products, sums=sums)


def proved(trace_pass: TracePass, explanation: cs.Explanation) -> Proof:
    """The proof status of a number; its step is recomputed."""
    proof = _proof(explanation, address_of(trace_pass, explanation))
    if explanation.step.id in trace_pass.proved:
        trace_pass.proved.remove(explanation.step.id)
    trace_pass.proved.append(explanation.step.id)
    return proof


def _proof(explanation: cs.Explanation, address: Address) -> Proof:
    text = cs.STATUSES[explanation.status]
    return Proof(
        of=address,
        status=explanation.status,
        word=text.word,
        sentence=text.sentence,
        tone=text.tone,
        proved=explanation.proved,
    )


def _work(explanation: cs.Explanation) -> int:
    """About how many products recomputing the whole step takes."""
    count, expr = int(np.prod(explanation.call.shape)), explanation.raw
    if expr is not None and hasattr(expr, "left"):
        return count * len(expr.left)
    window = max((len(a) for a in getattr(expr, "arguments", {}).values() if hasattr(a, "grid")), default=1)
    return count * EACH * (window if len(explanation.call.shape) == 4 else 1)


def cut(
    expr: LeafJson | DotJson | ApplyJson, limit: int, channel: int | None = None
) -> tuple[Array | None, RestJson | None]:
    """Leave only the largest terms of the sums in an expression's JSON, in their order.

    A window keeps whole channels, those whose products add up to the most, so that its grid stays one; `rest` of a sum
    that was cut says how many terms were left out and what their products add up to.

    Returns:
        Which terms of the outermost sum are left, None for all; and the rest of the outermost sum that was cut.
    """
    if expr["type"] == "leaf":
        return None, None
    if expr["type"] == "dot":
        parts = [part for part in (expr["left"], expr["right"]) if part is not None]
        operands = [expr["bias"]] if expr["bias"] is not None else []
    else:
        parts = [argument for argument in expr["arguments"].values() if argument["type"] == "cells"]
        operands = [argument for argument in expr["arguments"].values() if argument["type"] != "cells"]
    kept_terms, rest = _cut_cells(parts, limit, channel) if parts else (None, None)
    if rest is not None:
        expr["rest"] = rest
    for operand in operands:
        inner_rest = cut(operand, limit)[1]
        rest = rest or inner_rest
    return kept_terms, rest


def _cut_cells(parts: list[CellsJson], limit: int, channel: int | None) -> tuple[Array | None, RestJson | None]:
    """Keep some of aligned cells, the same of each."""
    count = len(parts[0]["values"])
    aligned = [part for part in parts if len(part["values"]) == count]
    with np.errstate(all="ignore"):
        products = np.prod([np.array(part["values"], np.float64) for part in aligned], axis=0)
    products[aligned[0]["padding"]] = 0.0
    kept_terms = _largest_terms(parts[0], products, limit, channel)
    if kept_terms is None or len(kept_terms) == count:
        return None, None
    left_out = np.delete(products, kept_terms)
    for part in aligned:
        _keep(part, kept_terms)
    total = math.fsum(left_out) if np.isfinite(np.abs(left_out).sum()) else float(left_out.sum())
    return kept_terms, {"terms": len(left_out), "total": number(total)}


def _largest_terms(cells: CellsJson, products: Array, limit: int, channel: int | None) -> Array | None:
    """The indices of the terms that stay, in order; None for all."""
    grid, count = cells["grid"], len(products)
    planes = np.arange(count).reshape(-1, int(np.prod(grid[-2:]))) if len(grid) > 2 and count else None
    if channel is not None and planes is not None:
        plane_channels = [int(cells["cells"][plane[0]][-3]) for plane in planes]
        if channel not in plane_channels:
            raise cs.UsageError(
                f"the window has channels {min(plane_channels)} to {max(plane_channels)}, not {channel}."
            )
        chosen: Array = planes[plane_channels.index(channel)]
        return chosen
    if count <= limit:
        return None
    sizes = np.where(np.isfinite(products), np.abs(products), np.inf)
    if planes is not None and planes.shape[1] <= limit:
        sums = np.where(np.isfinite(products), products, np.inf)[planes].sum(axis=1)
        best = np.argsort(-np.abs(sums), kind="stable")[: limit // planes.shape[1]]
        return planes[np.sort(best)].ravel()
    return np.sort(np.argsort(-sizes, kind="stable")[:limit])


def _keep(part: CellsJson, kept_terms: Array) -> None:
    grid = part["grid"]
    plane = int(np.prod(grid[-2:])) if len(grid) > 2 else 0
    is_full_planes = (
        plane and len(kept_terms) % plane == 0 and bool((kept_terms.reshape(-1, plane)[:, 0] % plane == 0).all())
    )
    part["grid"] = [len(kept_terms) // plane, *grid[-2:]] if is_full_planes else [len(kept_terms)]
    padding = set(part["padding"])
    part["padding"] = [position for position, k in enumerate(kept_terms.tolist()) if k in padding]
    part["cells"] = [part["cells"][k] for k in kept_terms]
    part["values"] = [part["values"][k] for k in kept_terms]
