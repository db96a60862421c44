"""Step: one operation of a pass as data, what a training step adds, notes, a digest of all weights. No torch."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from convscope.escaping import spelled
from convscope.ops import Role, role_of, title_of
from convscope.typing import Array

Cell = tuple[int, ...]
Kind = Literal["step", "parameter", "constant", "input"]


class Values(Protocol):
    """The source of a trace's numbers: memory, a file, or recomputation on demand."""

    def output(self, step: int, index: int) -> Array:
        """Result `index` of a step."""

    def operand(self, step: int, name: str, item: int) -> Array:
        """The value of a tensor argument when the step ran; `item` is the index in a list of tensors."""


@dataclass(frozen=True, slots=True)
class Ref:
    """Identifies the tensor behind an argument.

    >>> Ref("step", 3, "relu", shape=(1, 8, 26, 26)).name
    'relu'
    """

    kind: Kind
    """"parameter" includes buffers, "constant" is a tensor that `forward` made or closed over."""
    id: int
    """The step's id, or the index among the trace's parameters, constants or inputs."""
    name: str
    """The name of the step, parameter or input; `constant0` etc. for constants."""
    output: int = 0
    """Index among the step's results."""
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    """The recorded type, as PyTorch names it."""
    stride: tuple[int, ...] = ()
    """Strides in elements, in the memory in which `offset` counts."""
    offset: int = 0
    memory: int = 0
    """Identifies the memory, shared by all views of it."""
    rewritten: tuple[int, ...] = ()
    """Steps that wrote to this memory after it was made, so that it no longer holds the original result."""

    def address(self, cell: Cell) -> int:
        """The address of a cell, in elements."""
        return self.offset + sum(i * s for i, s in zip(cell, self.stride, strict=True))

    def cell_at(self, address: int) -> Cell | None:
        """The cell at an address, or None.

        >>> Ref("step", 0, "view", shape=(2, 3), stride=(1, 2), offset=2).cell_at(7)
        (1, 2)
        """
        cells, inside = self.cells_at(np.array([address]))
        return tuple(map(int, cells[0])) if inside[0] else None

    def cells_at(self, addresses: Array) -> tuple[Array, Array]:
        """The cells at these addresses, (T, axes), and a mask of the addresses that belong to the tensor, (T,).

        >>> Ref("step", 0, "view", shape=(2, 3), stride=(1, 2), offset=2).cells_at(np.array([7, 99]))[0][0].tolist()
        [1, 2]
        """
        remainder = addresses - self.offset
        cells = np.zeros((len(addresses), len(self.shape)), np.int64)
        for axis in sorted(range(len(self.shape)), key=lambda a: -self.stride[a]):
            if self.stride[axis] > 0:
                index = np.clip(remainder // self.stride[axis], 0, self.shape[axis] - 1)
                cells[:, axis] = index
                remainder = remainder - index * self.stride[axis]
        return cells, remainder == 0


class Origin(NamedTuple):
    """The origin of a number: a cell of a step's result, a parameter, a constant or an input."""

    kind: Kind
    id: int
    name: str
    output: int
    cell: Cell


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One operation with its arguments and results.

    >>> import torch, convscope as cs
    >>> step = cs.trace(torch.nn.Conv2d(1, 2, 3), torch.zeros(1, 1, 5, 5)).steps[0]
    >>> step.op, step.output.shape, step.parameters["weight"]
    ('convolution', (1, 2, 3, 3), 'weight')

    `output` and `outputs` read numbers from the trace's source; arrays are read-only and start with the batch axis.
    """

    id: int
    """Index in the order of execution, counting hidden steps."""
    name: str
    """Readable, unique name: `conv1`, `layer1.0.relu#2`, `layer1.0.add`, `flatten`."""
    module: str
    """Dotted path of the innermost module that ran it; "" is the model itself."""
    module_type: str
    op: str
    """ATen name without overload, in-place mark or out: `convolution`, `addmm`, `relu`."""
    overload: str
    arguments: Mapping[str, Any]
    """Arguments by their names in ATen's schema, including defaults; tensors are `Ref`, lists of tensors tuples."""
    inputs: tuple[int, ...]
    """Ids of the visible steps that it reads, directly or through hidden ones."""
    parameters: Mapping[str, str]
    """Argument name -> name of the parameter passed."""
    results: tuple[Ref, ...]
    """References of its results; most operations have one."""
    view: bool = False
    """Whether its result is a view of its first argument."""
    hidden: bool = False
    """Whether it is layout or preparation that belongs to a visible step."""
    overridden: bool = False
    """Whether the caller provided its result by an override."""
    broken: tuple[str, ...] = ()
    """Sentences on its numbers that had left PyTorch earlier in the pass (`item()`, NumPy, compiled code), which breaks
    the chain to the image."""
    position: int = 0
    """Which result of the ATen operation its first one is: a backward operation is one step for each gradient."""
    aliases: tuple[str, ...] = ()
    """Further names of the step: `add.grad` is also the gradient of both terms of the sum."""
    values: Values | None = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first result."""
        return self.results[0].shape

    @property
    def dtype(self) -> str:
        """The first result's recorded type; bfloat16 and half are returned as float32, exactly."""
        return self.results[0].dtype

    @property
    def is_complex(self) -> bool:
        """Whether it reads or makes complex numbers."""
        return any(ref.dtype.startswith("complex") for ref in (*self.results, *(ref for _, _, ref in self.refs())))

    @property
    def role(self) -> Role:
        """Whether its operation calculates, moves, creates or draws numbers."""
        return role_of(self.op)

    @property
    def says(self) -> str:
        """The operation in words: `convolution 3x3, padding 1`."""
        return "; ".join([title_of(self), *self.broken])

    @property
    def output(self) -> Array:
        """The first result."""
        return self._values.output(self.id, 0)

    @property
    def outputs(self) -> tuple[Array, ...]:
        """All results, such as a pooling's maxima and their indices."""
        return tuple(self._values.output(self.id, index) for index in range(len(self.results)))

    @property
    def _values(self) -> Values:
        assert self.values is not None, "a step without numbers"
        return self.values

    def refs(self) -> Iterator[tuple[str, int, Ref]]:
        """Its tensor arguments: name, index in a list of tensors (0 for a single one), Ref."""
        for name, value in self.arguments.items():
            if isinstance(value, Ref):
                yield name, 0, value
            elif isinstance(value, tuple):
                yield from ((name, i, item) for i, item in enumerate(value) if isinstance(item, Ref))

    def __repr__(self) -> str:
        return spelled(f"<{self.id} {self.name}: {self.op} {'x'.join(map(str, self.shape))} {self.dtype}>")


def frozen(array: Array) -> Array:
    """A read-only view."""
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


def weights_digest(weights: Iterable[tuple[str, str, Array]]) -> str:
    """SHA-256 of names, types, shapes and numbers, in order.

    >>> weights_digest([("bias", "float32", np.zeros(2, np.float32))])[:8]
    '52eda023'

    Args:
        weights: Name, recorded type as PyTorch names it, and numbers of each parameter and buffer.
    """
    digest = hashlib.sha256()
    for name, dtype, array in weights:
        digest.update(f"{name} torch.{dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


VALUES_ALONE = {"_linalg_svd": 1, "_linalg_eigh": 0}
"""Operations for which an untraced PyTorch skips the vectors if they are not used, and the index of the result that
holds the values."""


def notes_of(steps: Sequence[Step]) -> tuple[str, ...]:
    """Sentences on broken chains to the image, and on steps that an untraced run may round differently."""
    return (*broken_chains(steps), *_rounded(steps))


def broken_chains(steps: Sequence[Step]) -> Iterator[str]:
    """Sentences on numbers that left PyTorch during the pass and came back."""
    for step in steps:
        for reason in step.broken:
            yield f"the chain to the image is broken at {step.name}: {reason}."


def _rounded(steps: Sequence[Step]) -> Iterator[str]:
    """Sentences on steps whose vectors are unused: an untraced run may use another algorithm without them."""
    read_results = {(ref.id, ref.output) for step in steps for _, _, ref in step.refs() if ref.kind == "step"}
    for step in steps:
        values = VALUES_ALONE.get(step.op)
        vectors = {output for output, result in enumerate(step.results) if result.shape and output != values}
        if values is not None and not any((step.id, output) in read_results for output in vectors):
            yield (
                f"{step.name} was traced together with vectors that no step reads; if the model requests only the "
                "values, an untraced PyTorch computes them in another way, and the last bits may differ."
            )


@dataclass(frozen=True, slots=True)
class BackwardNode:
    """One node of the backward pass: the derivative of one forward operation, or of one custom function."""

    kind: str
    """Its name in autograd: `ConvolutionBackward0`, or the class of a custom function."""
    custom: bool
    """Whether its formula was written by the user (`torch.autograd.Function`)."""
    received: tuple[tuple[Ref, Ref], ...]
    """Pairs of a result of the forward operation and its gradient."""
    gave: tuple[tuple[Ref, Ref], ...]
    """Pairs of what the forward operation read (a step's result, a parameter, an input) and the gradient for it."""
    operations: int
    """Number of steps that it took."""
    withheld: tuple[Ref, ...] = ()
    """What the forward operation read, and for which a custom function gave no gradient (None)."""


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """A loss, its gradients and perhaps an update.

    >>> TrainingStep("evaluation", "cross-entropy", "", Ref("step", 9, "loss"), {}, {}, ()).says
    'loss and gradients of cross-entropy, in evaluation mode'
    """

    mode: str
    """"training" (dropout drops, batch norm uses the batch) or "evaluation"."""
    loss_name: str
    optimizer: str
    """The optimizer with its learning rate, in words; empty where none took a step."""
    loss: Ref
    gradients: Mapping[str, Ref]
    """Parameter or input -> its gradient."""
    updated: Mapping[str, Ref]
    """Parameter -> its new value."""
    nodes: tuple[BackwardNode, ...]
    """In the order in which they ran."""
    origin: str = ""
    """The run and its step, in words; empty if it is not a run's step."""
    state: tuple[str, ...] = ()
    """The optimizer's state before the step, by its names among the trace's parameters: `conv1.weight.exp_avg`."""
    statistics: Mapping[str, Ref] = field(default_factory=dict)
    """Batch norm's running mean or variance -> its new value."""

    @property
    def says(self) -> str:
        """A description of the recording: the first line of every report."""
        scope = f"one step of {self.optimizer} on" if self.optimizer else "loss and gradients of"
        return f"{scope} {self.loss_name}, in {self.mode} mode{f'; {self.origin}' if self.origin else ''}"
