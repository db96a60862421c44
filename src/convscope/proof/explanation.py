"""Explain: why is this number this number? Where recorded tensor, expression and reference meet for one cell."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from convscope.errors import PluginError, UsageError
from convscope.expr.call import Call, Cell, Source, cell_label, full_cell, step_label
from convscope.expr.expr import Expr, Leaf
from convscope.json_values import plain_number
from convscope.ops import OPS, Op, convolution
from convscope.progress import Progress, silent
from convscope.proof.calls import call_of, check_tables
from convscope.proof.contributions import Contributions, contributions
from convscope.proof.derivatives import derivatives_of
from convscope.proof.explanation_text import notes_on, text_of
from convscope.proof.paths import Paths, Walk, paths_to, walk_along
from convscope.proof.provenance import with_provenance
from convscope.proof.recomputation import Recomputation, recomputed
from convscope.proof.status import PROVED, STATUSES, Status
from convscope.proof.tolerance import agree, mixes, resolves, root_mean_square, undecided, whole_bound
from convscope.reference.operation import Operation
from convscope.reference.table import OPERATIONS
from convscope.render.reductions import Inner, parts
from convscope.render.sums import Detail
from convscope.render.to_json import plain
from convscope.render.worksheet import Worksheet, worksheet
from convscope.rich_display import RichDisplay
from convscope.traces.notation import formula, pytorch_code
from convscope.traces.step import Step
from convscope.traces.trace import Trace
from convscope.type_checks import check_kind, kind_of, takes

FORMAT = "convscope explanation 1"


@dataclass(frozen=True, eq=False)
class Explanation(RichDisplay):
    """Why one recorded number is what it is: `print` it, or walk on from it.

    >>> import torch, convscope as cs
    >>> layer = torch.nn.Linear(2, 1)
    >>> _ = layer.load_state_dict({"weight": torch.tensor([[2.0, -1.0]]), "bias": torch.tensor([0.5])})
    >>> why = explain(cs.trace(layer, torch.tensor([[3.0, 4.0]])), "linear", (0,))
    >>> why.value, why.proved
    (2.5, True)
    >>> print(why)
    linear (0) = 2.5
    2 numbers, each times its weight, plus the bias
    <BLANKLINE>
      input (0)  3  ×  weight[0, 0]   2  =    6.0
      input (1)  4  ×  weight[0, 1]  −1  =   −4.0
      bias[0]                                 0.5
      ─────────────────────────────────────────────────
      calculated                              2.5
      in full                                 2.5000000
      recorded                                2.5000000
      difference                              0.0000000   allowed ± 0.0000019
    <BLANKLINE>
    ✓ proved: explained here and recomputed by the NumPy reference, both within the bound
    """

    trace: Trace = field(repr=False)
    step: Step
    cell: Cell
    """A full index of the step's result."""
    output: int
    """The index of the result, for a step with several."""
    call: Call = field(repr=False)
    ops: Mapping[str, Op] = field(repr=False)
    raw: Expr | None = field(repr=False)
    """The rule's expression, with the tensors named as the operation read them; None without a rule."""
    value: float
    """The value of the expression in float64; NaN without one."""
    recorded: float
    """PyTorch's number."""
    bound: float
    """Bound of |value - recorded| by the rounding of PyTorch's kernel."""
    normwise: bool = False
    """Whether that is the bound of kernels that mix whole planes, because the number exceeds that of a sum."""
    references: Mapping[str, Operation] = field(default_factory=lambda: OPERATIONS, repr=False)
    reason: str = ""
    """Why there is no expression, where a rule explains other numbers of this operation, or other forms of it."""

    @cached_property
    def expr(self) -> Expr | None:
        """The expression, with every number named by the step, parameter or image that it was made in."""
        return None if self.raw is None else with_provenance(self.trace, self.step, self.raw)

    @property
    def difference(self) -> float:
        """recorded - value."""
        return self.recorded - self.value

    @property
    def name(self) -> str:
        """The step and the cell as a person reads them: `conv1 (3, 10, 12)`."""
        label = cell_label(self.cell, self.call.shape) if self.cell else ""
        result = f", result {self.output}" if self.output else ""
        return f"{step_label(self.step.name)}{result} {label}".strip()

    @property
    def agrees(self) -> bool:
        """Whether the expression's value is within the bound of the recorded number; nan agrees with nan."""
        return self.raw is not None and agree(self.value, self.recorded, self.bound, self.call.dtype)

    @cached_property
    def changed(self) -> tuple[str, ...]:
        """The parameters of this step that changed since the trace."""
        changed = set(self.trace.changed())
        return tuple(ref.name for _, _, ref in self.step.refs() if ref.kind == "parameter" and ref.name in changed)

    @cached_property
    def status(self) -> Status:
        """The proof status of this number; see `STATUSES`. Recomputes the step on first access."""
        if self.step.overridden or self.step.role == "random":
            return "given"
        if self.changed:
            return "weights changed"
        witness = recomputed(self.trace, self.step, self.output, normwise=self.normwise, references=self.references)
        if self.raw is not None and not self.agrees:
            return "unresolved" if bool(undecided(self.call, self.value, self.recorded)) else "mismatch"
        if witness is None:
            return "unsupported" if self.raw is None else "not recomputed"
        if not witness.agrees(self.cell, self.recorded, self.call.dtype):
            open_ = bool(undecided(self.call, witness.values[self.cell], self.recorded))
            return "unresolved" if open_ else "mismatch"
        return self._derived(self._within(witness))

    def _derived(self, status: Status) -> Status:
        """The status of a number that, if it is a gradient, is also the derivative of its forward step."""
        if status not in PROVED or self.trace.training_step is None:
            return status
        return derivatives_of(self.trace, self.ops).status(self.step)[0] or status

    def _within(self, witness: Recomputation) -> Status:
        """The status of a number that is within the reference's bound, and within the rule's where it has one."""
        if not self._resolved(witness):
            return "unresolved"
        proved: Status = "proved normwise" if self.normwise else "proved"
        return "recomputed" if self.raw is None else proved

    def _resolved(self, witness: Recomputation) -> bool:
        """Whether both witnesses' bounds tell this number from others; those of integers do, or are open for ties."""
        numbers = self.step.outputs[self.output]
        if numbers.dtype.kind != "f":
            return True
        size = root_mean_square(numbers)
        judged = [(float(witness.values[self.cell]), witness.bound(self.cell))]
        judged += [] if self.raw is None else [(self.value, self.bound)]
        return all(resolves(value, self.recorded, bound, self.call.dtype, size) for value, bound in judged)

    @property
    def says(self) -> str:
        """The status and what it means, in a line."""
        return STATUSES[self.status].line

    @property
    def proved(self) -> bool:
        """Whether expression and reference both agree with the recorded number."""
        return self.status in PROVED

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Remarks: changed weights, where a NaN came in, an operation without a rule."""
        return tuple(notes_on(self))

    @takes()
    def parts(self, *, all: bool = False) -> list[Leaf | Inner]:  # noqa: A002 - the word of the command line
        """The numbers this one is made of, the most important first; with `all`, every one of them."""
        return [] if self.expr is None else parts(self.expr, Detail(everything=all))

    @takes(part="Leaf")
    def follow(self, part: Leaf) -> "Explanation | None":
        """The explanation of a part; None where it ends: at a pixel, a parameter, a constant.

        >>> import torch, convscope as cs
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.ReLU())
        >>> why = explain(cs.trace(net, torch.ones(1, 2)), "1", (0,))
        >>> why.follow(why.parts()[0]).name
        'layer 0 (0)'
        """
        if part.source.kind != "step":
            return None
        name, output = part.source.name, part.source.output
        return explain(self.trace, name, part.cell, output=output, ops=self.ops, references=self.references)

    @takes()
    def walk(self, depth: int = 2) -> "Iterator[tuple[int, Explanation]]":
        """This explanation, those of its parts, and so on down: pairs of level (from 0) and explanation.

        Args:
            depth: How many levels; 1 is this one alone.
        """
        yield 0, self
        if depth > 1:
            for part in self.parts():
                explanation = self.follow(part) if isinstance(part, Leaf) else None
                if explanation is not None:
                    yield from ((level + 1, inner) for level, inner in explanation.walk(depth - 1))

    @takes()
    def to_text(self, *, all: bool = False, depth: int = 1, short: bool = False) -> str:  # noqa: A002 - the command's
        """The calculation on paper.

        >>> import torch, convscope as cs
        >>> trace = cs.trace(torch.nn.ReLU(), torch.tensor([[[-1.0, 2.0]]]))
        >>> print(cs.explain(trace, "relu", (0, 0, 1)).to_text(short=True))
        relu (0, 0, 1) = 2   ✓ proved
        max(0, x)
        <BLANKLINE>
          x   input (0, 0, 1)   2
        <BLANKLINE>
          max(0, 2)             2
          ───────────────────────
          calculated            2

        Args:
            all: Every term of a long sum, not only the largest.
            depth: How many steps back; 2 adds the calculation of each number in this one.
            short: Leave out the comparison with the recorded number; its outcome is beside the number.
        """
        return text_of(self, everything=all, depth=depth, short=short)

    def paper(self) -> Worksheet | None:
        """The calculation as lines, for who draws windows and kernels by other means than text; None without a rule."""
        return None if self.expr is None else worksheet(self.expr, self.recorded, self.bound)

    @takes()
    def to_input(self, *, progress: Progress = silent) -> Contributions:
        """The same number as contributions of input pixels plus a constant.

        Exact where every step on the way is piecewise linear; elsewhere the tangent, and it says so.

        Args:
            progress: Receives how many steps are done.

        Raises:
            UsageError: a step on the way has no vector-Jacobian product.
        """
        return contributions(self.trace, self.step, self.cell, self.output, self.name, ops=self.ops, progress=progress)

    @takes(minus="Explanation")
    def to_paths(self, minus: "Explanation | None" = None, *, progress: Progress = silent) -> Paths:
        """The same number as what the image adds by way of each channel of the first and last convolution.

        >>> import torch, convscope as cs
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 2), torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> trace = cs.trace(net, torch.rand(1, 3, 3))
        >>> paths = cs.explain(trace, trace.steps[-1], (1,)).to_paths()
        >>> len(paths.paths), sorted(path.channels for path in paths.paths)
        (3, [(0,), (1,), (2,)])

        Args:
            minus: Another number of the same step: the paths are then those of the difference.
            progress: Receives how many channels of the last convolution are done.

        Raises:
            UsageError: there is no convolution before it, too many paths, or a step that cannot be followed.
        """
        return paths_to(self.trace, self.step, self.cell, None if minus is None else minus.cell, progress)

    @takes()
    def to_walk(self, places: "Sequence[tuple[str | int | None, Sequence[int]]]") -> Walk:
        """What a pixel adds to the number by way of chosen numbers: the slopes along the walk, times the pixel.

        >>> import torch, convscope as cs
        >>> trace = cs.trace(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()), torch.ones(1, 2))
        >>> walk = cs.explain(trace, "1", (2,)).to_walk([("0", (0, 2)), (None, (0, 1))])
        >>> bool(walk.product == walk.slopes[0] * walk.slopes[1] * 1.0)
        True

        Args:
            places: Numbers by step and full index, each read by the one before it; the step None is the first input.

        Raises:
            UnknownName: there is no such step.
            UsageError: a number does not read the next one, has no such cell, or cannot be followed.
        """
        walk: list[tuple[Step | None, Cell]] = [(self.step, self.cell)]
        check_kind("to_walk", "places", places, "Sequence")
        for place in places:
            pair: object = place
            if not isinstance(pair, tuple | list) or len(pair) != 2 or isinstance(pair[1], str):
                example = "('conv1', (0, 1, 1))"
                raise UsageError(f"a walk goes through pairs of a step and a cell, such as {example}, not {pair!r}.")
            name, cell = place[0], tuple(place[1]) if isinstance(place[1], Iterable) else place[1]
            step = None if name is None else self.trace[name]
            shape = next(iter(self.trace.inputs.values())).shape if step is None else step.shape
            walk.append((step, full_cell(cell, shape, "the input" if step is None else step.name)))
        return walk_along(self.trace, walk)

    def to_formula(self) -> str | None:
        """The calculation as a formula with its indices; None where the operation has none."""
        return formula(self.step, self.cell)

    def to_code(self) -> str | None:
        """PyTorch code that gives the number from its `trace`; None where the operation has no short call."""
        return pytorch_code(self.step, self.cell)

    @takes()
    def to_json(self, *, depth: int = 1, proof: bool = True) -> dict[str, Any]:
        """Every number in full precision, as plain values for JSON; docs/reference/explanation.md has the schema.

        Args:
            depth: As for `to_text`; more than 1 adds the explanations of the parts, as `parts`.
            proof: Whether with `status` and `proved`, for which the step is recomputed.
        """
        values: dict[str, Any] = {
            "format": FORMAT,
            "step": {"id": self.step.id, "name": self.step.name, "module": self.step.module, "op": self.step.op},
            "shape": list(self.call.shape),
            "dtype": self.call.dtype,
            "output": self.output,
            "cell": list(self.cell),
            "name": self.name,
            "value": plain_number(self.value),
            "recorded": plain_number(self.recorded),
            "difference": plain_number(self.difference),
            "bound": plain_number(self.bound),
            **({"status": self.status, "proved": self.proved} if proof else {}),
            "notes": list(self.notes),
            "expr": None if self.expr is None else plain(self.expr),
        }
        if depth > 1:
            followed = (self.follow(part) for part in self.parts() if isinstance(part, Leaf))
            values["parts"] = [inner.to_json(depth=depth - 1, proof=proof) for inner in followed if inner is not None]
        return values

    def __str__(self) -> str:
        return self.to_text()


@takes(trace="Trace", step="Step | str | int | integer", cell="int | integer | tuple | list | ndarray")
@np.errstate(all="ignore")  # numbers may be infinite
def explain(
    trace: Trace,
    step: Step | str | int,
    cell: Cell | int,
    *,
    output: int = 0,
    ops: Mapping[str, Op] = OPS,
    references: Mapping[str, Operation] = OPERATIONS,
) -> Explanation:
    """Explain one number of a trace.

    >>> import convscope as cs
    >>> model = cs.load_model("crosses", args={"published": True})
    >>> why = cs.explain(cs.trace(model, cs.load_image("crosses:damaged-plus", like=model)), "conv1", (0, 0, 0))
    >>> round(why.value, 4), why.proved
    (-0.6951, True)

    Args:
        trace: What `cs.trace` recorded.
        step: A step, its name or its id.
        cell: An index of the step's result without the image index: (channel, row, column), (unit,).
        output: Which result, of a step that has several, such as the positions of a max pooling.
        ops: Another table of operations, such as `OPS | {"mylib::swirl": Op(my_rule, my_dependencies)}`.
        references: Another table of definitions, such as `cs.reference.OPERATIONS | {"mylib::swirl": Operation(...)}`.

    Returns:
        Its explanation. Where no rule explains the operation it has no expression, and says so.

    Raises:
        UnknownName: no such step.
        UsageError: the step has no such cell, or no such result, or holds complex numbers.
    """
    check_tables("explain", ops, references)
    chosen = step if isinstance(step, Step) else trace[step]
    if not 0 <= output < len(chosen.results):
        raise UsageError(
            f"{chosen.name} has {len(chosen.results)} results, counted from 0; there is no result {output}."
        )
    if chosen.results[output].dtype.startswith("complex"):
        raise UsageError(f"{chosen.name} holds complex numbers, which are not explained; choose another step.")
    call = call_of(trace, chosen, output, ops)
    full = full_cell(cell, call.shape, chosen.name)
    recorded = float(chosen.outputs[output][full]) if output else float(chosen.output[full])
    raw, reason = None, ""
    try:
        raw = _expression(chosen, call, full, recorded, ops)
    except UsageError as refusal:
        reason = str(refusal)
    if raw is None:
        return Explanation(
            trace, chosen, full, output, call, ops, None, np.nan, recorded, np.nan, False, references, reason
        )
    value, error = map(float, raw.result(call.precision))
    bound = whole_bound(value, error, call.precision)
    mixed = mixes(call) and not agree(value, recorded, bound, call.dtype)
    bound = max(bound, convolution.normwise(call, full)) if mixed else bound
    return Explanation(trace, chosen, full, output, call, ops, raw, value, recorded, bound, mixed, references)


def _expression(step: Step, call: Call, cell: Cell, recorded: float, ops: Mapping[str, Op]) -> Expr | None:
    if step.overridden or step.role == "random":
        return Leaf(recorded, Source(f"{step.name}, as given", "constant", call.shape, call.dtype), cell)
    if call.op not in ops or step.is_complex:
        return None
    expression = ops[call.op].rule(call, cell)
    if expression is not None and not isinstance(expression, Expr):
        raise PluginError(f"the rule of {call.op!r} returns {kind_of(expression)}, not an expression.")
    return expression
