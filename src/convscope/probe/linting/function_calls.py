"""Watching: what losses, dropout and batch norm are called with while a model runs. Knows torch's functions alone."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

LOSSES: Mapping[Callable[..., Any], str] = {
    F.cross_entropy: "cross-entropy",
    F.nll_loss: "nll",
    F.mse_loss: "mse",
    F.l1_loss: "l1",
    F.smooth_l1_loss: "smooth l1",
    F.huber_loss: "huber",
    F.binary_cross_entropy: "binary cross-entropy",
    F.binary_cross_entropy_with_logits: "binary cross-entropy",
}
MODAL: Mapping[Callable[..., Any], str] = {
    F.dropout: "dropout",
    F.dropout1d: "dropout",
    F.dropout2d: "dropout",
    F.dropout3d: "dropout",
    F.alpha_dropout: "dropout",
    F.feature_alpha_dropout: "dropout",
    F.batch_norm: "batch norm",
}
"""What behaves differently in training mode."""


@dataclass(frozen=True, slots=True, eq=False)
class LossCall:
    """A loss as it was called."""

    name: str
    output: Tensor = field(repr=False)
    """What it was given, without its gradient."""
    target: Tensor = field(repr=False)


@dataclass(slots=True)
class Seen:
    """What happened within a `watched` block, in order."""

    losses: list[LossCall] = field(default_factory=list)
    modes: list[tuple[str, bool]] = field(default_factory=list)
    """("dropout" or "batch norm", whether it was in training mode)."""

    def trained(self, kind: str) -> bool:
        """Whether any of this kind ran in training mode."""
        return (kind, True) in self.modes


class Watching(TorchFunctionMode):
    """Within it every call of a loss, dropout or batch norm is noted; nothing is changed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = Seen()

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Note the call, then make it."""
        given = kwargs or {}
        if func in LOSSES:
            named = _bound(func, args, given)
            output, target = named.get("input"), named.get("target")
            if isinstance(output, Tensor) and isinstance(target, Tensor):
                self.seen.losses.append(LossCall(LOSSES[func], output.detach(), target.detach()))
        elif func in MODAL:
            named = _bound(func, args, given)
            rate = named.get("p", 1.0)
            if rate:
                self.seen.modes.append((MODAL[func], bool(named.get("training", True))))
        return func(*args, **given)


def _bound(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Arguments by name, defaults filled in."""
    try:
        bound = inspect.signature(func).bind(*args, **kwargs)
    except (ValueError, TypeError):
        return {}
    bound.apply_defaults()
    return bound.arguments
