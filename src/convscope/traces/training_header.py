"""Training header: what a training step adds to the header of a saved trace, packed and checked. No torch.

Everything that a proof relies on is checked against the steps: which result is the loss, a gradient or a new parameter,
and between which tensors each node of the backward pass ran. Uses steps and JSON; no files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from convscope.traces.header import pack, unpack
from convscope.traces.step import BackwardNode, Kind, Ref, Step, TrainingStep

STEP = [field.name for field in fields(TrainingStep) if field.name != "nodes"]
NODE = [field.name for field in fields(BackwardNode)]
MODES = ("training", "evaluation")
RESULTS = 64
"""More results than any operation has."""


def pack_training(training_step: TrainingStep, steps: Sequence[Step]) -> dict[str, object]:
    """A training step as JSON, with the further names of its steps and the positions of their results."""
    return {
        "step": {name: pack(getattr(training_step, name)) for name in STEP},
        "nodes": [{name: pack(getattr(node, name)) for name in NODE} for node in training_step.nodes],
        "positions": {str(step.id): step.position for step in steps if step.position},
        "aliases": {str(step.id): list(step.aliases) for step in steps if step.aliases},
    }


@dataclass(frozen=True, slots=True)
class BackwardRows:
    """The part of a header that only a training step has."""

    packed: Mapping[str, Any]
    positions: Mapping[str, int]
    aliases: Mapping[str, list[str]]

    @classmethod
    def of(cls, packed: object) -> "BackwardRows":
        """The entries of single steps, checked.

        Raises:
            ValueError: one of them is impossible.
        """
        if not isinstance(packed, dict) or {*packed} != {"step", "nodes", "positions", "aliases"}:
            raise ValueError("the training step is damaged")
        positions, aliases = packed["positions"], packed["aliases"]
        right = isinstance(positions, dict) and all(type(n) is int and 0 < n < RESULTS for n in positions.values())
        _require(right, "a step has an impossible position among the results of its operation")
        right = isinstance(aliases, dict) and all(map(_names, aliases.values()))
        _require(right, "a step has an impossible further name")
        return cls(packed, positions, aliases)

    def entries(self, number: int) -> dict[str, Any]:
        """What they add to a step."""
        return {"position": self.positions.get(str(number), 0), "aliases": tuple(self.aliases.get(str(number), ()))}


def checked_training(
    packed: Mapping[str, Any], outside: Mapping[tuple[Kind, int], Ref], steps: list[Step]
) -> TrainingStep:
    """A training step from a header.

    Args:
        packed: What `pack_training` returned.
        outside: The tensors that existed before the pass.
        steps: All steps.

    Raises:
        ValueError: something in it does not fit the steps; the message says what.
    """
    entries, nodes = _entries(packed["step"], STEP), packed["nodes"]
    _require(isinstance(nodes, list), "the nodes of the backward pass are not a list")
    reader = _TrainingReader(outside, steps, _of_step(entries["loss"], steps, "the loss").id)
    training_step = TrainingStep(**entries, nodes=tuple(map(reader.node, nodes)))
    texts = (training_step.loss_name, training_step.optimizer, training_step.origin)
    _require(all(isinstance(text, str) for text in texts), "the training step lacks a description")
    _require(training_step.mode in MODES, f"the unknown mode {training_step.mode!r}")
    _require(training_step.loss.shape == () and "float" in training_step.loss.dtype, "the loss is not one number")
    reader.gradients(training_step)
    reader.updates(training_step)
    operations = sum(node.operations for node in training_step.nodes)
    _require(operations < len(steps) - training_step.loss.id, "the backward pass has more operations than steps")
    return training_step


@dataclass(frozen=True, slots=True)
class _TrainingReader:
    """Checks tensors of a training step against the steps and tensors of its trace."""

    outside: Mapping[tuple[Kind, int], Ref]
    steps: list[Step]
    loss: int
    """The step that gave the loss: the forward pass ends with it."""

    def node(self, packed: object) -> BackwardNode:
        """One node of the backward pass."""
        node = BackwardNode(**_entries(packed, NODE))
        _require(isinstance(node.kind, str) and bool(node.kind), "a node of the backward pass has no kind")
        _require(isinstance(node.custom, bool), f"{node.kind} is neither custom nor PyTorch's own")
        count = type(node.operations) is int and 0 <= node.operations <= len(self.steps)
        _require(count, f"{node.kind} has an impossible number of operations")
        for pairs in (node.received, node.gave):
            _require(isinstance(pairs, tuple) and all(map(_pair, pairs)), f"{node.kind} has impossible gradients")
            for target, gradient in pairs:
                self._forward(target, node.kind)
                self._backward(gradient, node.kind)
                _require(target.shape == gradient.shape, f"a gradient of {node.kind} has another shape than its tensor")
        _require(
            all(target.kind == "step" for target, _ in node.received), f"{node.kind} received no result's gradient"
        )
        _require(isinstance(node.withheld, tuple), f"{node.kind} withholds no tensors")
        for ref in node.withheld:
            self._forward(ref, node.kind)
        return node

    def gradients(self, training_step: TrainingStep) -> None:
        """Raise ValueError unless each gradient is a result of the backward pass, for a tensor of the same shape."""
        _require(isinstance(training_step.gradients, dict), "the gradients are not listed by name")
        leaves = {ref.name: ref for (kind, _), ref in self.outside.items() if kind in {"parameter", "input"}}
        for name, ref in training_step.gradients.items():
            self._backward(ref, f"the gradient of {name}")
            _require(name in leaves, f"there is a gradient of {name!r}, which the trace does not have")
            same = (ref.shape, ref.dtype) == (leaves[name].shape, leaves[name].dtype)
            _require(same, f"the gradient of {name} has another shape or type")

    def updates(self, training_step: TrainingStep) -> None:
        """Raise ValueError unless each new parameter is the first result of a step that updates this parameter."""
        _require(isinstance(training_step.updated, dict), "the new parameters are not listed by name")
        _require(
            bool(training_step.updated) == bool(training_step.optimizer),
            "an optimizer and its new parameters belong together",
        )
        for name, ref in training_step.updated.items():
            self._backward(ref, f"the update of {name}")
            step = self.steps[ref.id]
            before = step.arguments.get("param")
            right = isinstance(before, Ref) and (before.kind, before.name, before.shape) == (
                "parameter",
                name,
                ref.shape,
            )
            right = right and name in training_step.gradients and step.position == 0
            _require(right, f"{step.name} is not the update of {name}")
        _require(isinstance(training_step.statistics, dict), "the running statistics are not listed by name")
        for name, ref in training_step.statistics.items():
            self._backward(ref, f"the update of {name}")
            step = self.steps[ref.id]
            before = step.arguments.get(step.op.partition("::")[2])
            right = isinstance(before, Ref) and (before.kind, before.name, before.shape) == (
                "parameter",
                name,
                ref.shape,
            )
            _require(right and name not in training_step.gradients, f"{step.name} is not the update of {name}")
        _require(
            isinstance(training_step.state, tuple) and _names([*training_step.state]),
            "the optimizer's state is damaged",
        )
        parameters = {ref.name for (kind, _), ref in self.outside.items() if kind == "parameter"}
        for name in training_step.state:
            right = (
                name in parameters
                and name.rpartition(".")[0] in training_step.updated
                and name not in training_step.gradients
            )
            _require(right, f"{name!r} is not part of the optimizer's state")

    def _forward(self, ref: object, location: str) -> None:
        """Check that a tensor belongs to the forward pass."""
        if isinstance(ref, Ref) and ref.kind != "step":
            _require(
                self.outside.get((ref.kind, ref.id)) == ref, f"{location} names a tensor that the trace does not have"
            )
            return
        _require(_of_step(ref, self.steps, location).id <= self.loss, f"{location} names a gradient as its tensor")

    def _backward(self, ref: object, location: str) -> None:
        """Check that a tensor was made after the loss."""
        _require(_of_step(ref, self.steps, location).id > self.loss, f"{location} was made before the loss")


def _of_step(ref: object, steps: Sequence[Step], location: str) -> Ref:
    """A reference, if it is exactly a result of a step."""
    right = isinstance(ref, Ref) and ref.kind == "step" and type(ref.id) is type(ref.output) is int
    _require(right, f"{location} is not a result of a step")
    assert isinstance(ref, Ref)
    right = 0 <= ref.id < len(steps) and 0 <= ref.output < len(steps[ref.id].results)
    right = right and steps[ref.id].results[ref.output] == replace(ref, rewritten=())
    _require(right, f"{location} is a result that no step has")
    later = isinstance(ref.rewritten, tuple) and all(type(row) is int for row in ref.rewritten)
    later = later and all(ref.id < row < len(steps) for row in ref.rewritten)
    _require(
        later and [*ref.rewritten] == sorted({*ref.rewritten}), f"{location} names impossible steps that rewrote it"
    )
    return ref


def _entries(packed: object, names: Sequence[str]) -> dict[str, Any]:
    if not isinstance(packed, dict) or {*packed} != {*names}:
        raise ValueError("the training step has unexpected entries")
    return {name: unpack(value) for name, value in packed.items()}


def _pair(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2


def _names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) and bool(name) for name in value)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
