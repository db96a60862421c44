"""Training session: one pass with its loss, its backward pass and its update, on stand-ins for the parameters.

The model runs with copies of its trainable parameters, and the optimizer's step runs on copies of these and of its
state, so that the user's model and optimizer are not modified. Knows torch; no steps, no names.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from convscope.capture.backward_recorder import BackwardRecorder
from convscope.capture.model_state import PLAIN
from convscope.capture.optimizer_update import Update, updates_of
from convscope.capture.recorder import Recorder
from convscope.capture.recording import tensors_of
from convscope.capture.session import TracingSession
from convscope.errors import UsageError

LossFunction = Callable[[Any, Any], Tensor]


@dataclass(slots=True, eq=False)
class TrainingSession(TracingSession):
    """A session that also computes the loss, the gradients and, with an optimizer, the new parameters."""

    shortens: ClassVar[bool] = False
    target: Any = None
    loss: LossFunction | None = None
    optimizer: torch.optim.Optimizer | None = None
    """The user's own, or a new one over the model's parameters; only its copy takes a step."""
    loss_name: str = ""
    optimizer_says: str = ""
    origin: str = ""
    of_inputs: bool = True
    """Whether the images get gradients too; not where the model writes into them."""
    all_train: bool = False
    """Whether every module runs in training mode."""
    gradients: dict[str, Tensor] = field(default_factory=dict)
    """Name of a parameter or input -> its gradient; a parameter that the loss does not depend on has none."""
    updates: list[Update] = field(default_factory=list)
    """One for each parameter that the optimizer moves, in its order."""

    def __post_init__(self) -> None:
        TracingSession.__post_init__(self)
        mine = self.subject.parameters
        frozen = self.parameters
        self.parameters = {
            **{n: p.detach().clone() for n, p in mine.items() if p.requires_grad and n not in frozen},
            **frozen,
        }
        self.results = {}

    @property
    def trained(self) -> tuple[str, ...]:
        """The names of the parameters that get gradients."""
        return tuple(name for name, tensor in self.subject.parameters.items() if tensor.requires_grad)

    def call(self, recorder: Recorder) -> Any:
        """Forward, loss, backward and update, recorded by `recorder`; returns what the model returned."""
        assert isinstance(recorder, BackwardRecorder)
        if self.all_train:
            for module in self.subject.modules.values():
                module.__dict__["training"] = True
        leaves = self._leaves()
        self._refresh_recurrent()
        try:
            with torch.enable_grad():
                output = self.subject.model(*self.intake.arguments, **self.intake.keywords)
                recorder.loss_start = self._starts(recorder)
                loss = self._loss(output)
                recorder.begin_backward()
                gradients = torch.autograd.grad(loss, [*leaves.values()], allow_unused=True)
        finally:
            recorder.end_backward()
        self.gradients = {name: grad for name, grad in zip(leaves, gradients, strict=True) if grad is not None}
        recorder.update_start = len(recorder.tape.calls)
        self.updates = list(self._updates(recorder))
        self.tensors = {**self.tensors, **{name: t for update in self.updates for name, t in update.before.items()}}
        return output

    @staticmethod
    def _starts(recorder: BackwardRecorder) -> int:
        recorder.watch_last()
        return len(recorder.tape.calls)

    def _leaves(self) -> dict[str, Tensor]:
        """The tensors to differentiate by: the images and the trained parameters, as the pass sees them."""
        inputs = {
            n: t for n, t in self.intake.tensors.items() if t.is_floating_point() and n != "target" and self.of_inputs
        }
        leaves = inputs | {name: self.tensors[name] for name in self.trained}
        for tensor in leaves.values():
            tensor.requires_grad_()
        return leaves

    def _refresh_recurrent(self) -> None:
        """Update the additional list of weights in recurrent layers."""
        for module in self.subject.modules.values():
            if isinstance(module, torch.nn.RNNBase) and type(module) in PLAIN:
                module.__dict__["_flat_weights"] = [getattr(module, name) for name in module._flat_weights_names]

    def _loss(self, output: Any) -> Tensor:
        """The loss of this output.

        Raises:
            UsageError: it cannot be differentiated.
        """
        assert self.loss is not None
        value = next(tensors_of(output), None) if not isinstance(output, Tensor) else output
        loss = self.loss(value, self.target)
        if not isinstance(loss, Tensor) or loss.dim() > 0:
            kind = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"type {type(loss).__name__}"
            raise UsageError(f"a loss is one number, and this one has {kind}; take its mean or sum (reduction='mean').")
        if not loss.requires_grad:
            raise UsageError(
                "the loss does not depend on any parameter: forward uses argmax, detach, NumPy or no_grad; let it "
                "return the scores."
            )
        with torch._C._DisableTorchDispatch():  # it does not leave the pass
            number = float(loss.detach())
        if not math.isfinite(number):
            raise UsageError(
                f"the loss of this batch is {number}, so its gradients mean nothing; cs.trace without target shows "
                "where the first nan or infinity arises."
            )
        return loss

    def _updates(self, recorder: BackwardRecorder) -> Iterator[Update]:
        if self.optimizer is None:
            return
        names = {id(tensor): name for name, tensor in self.subject.parameters.items()}
        stand_ins = {name: self.tensors[name] for name in self.trained}
        for update in updates_of(self.optimizer, names, stand_ins, self.gradients):
            update.time = len(recorder.tape.calls)
            recorder.tape.calls.append(update.call)
            yield update
