"""Training step: what a trace records besides its steps if it includes a loss, gradients and an update.

Knows references; no torch, no numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from convscope.traces.step import Ref


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

    @property
    def says(self) -> str:
        """A description of the recording: the first line of every report."""
        what = f"one step of {self.optimizer} on" if self.optimizer else "loss and gradients of"
        return f"{what} {self.loss_name}, in {self.mode} mode{f'; {self.origin}' if self.origin else ''}"
