"""Evidence: a model run once on training images, once evaluated and once trained a step, and restored afterwards."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from convscope.capture.model_state import set_version, version
from convscope.cards.card import Card
from convscope.cards.card_inference import card_of
from convscope.data.dataset import Dataset
from convscope.data.lazy_images import Selection
from convscope.errors import ConvscopeError
from convscope.training.outputs import in_eval_mode, logits_of, scores_of

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
"""Layers that behave differently in training mode."""


@dataclass(frozen=True, slots=True, eq=False)
class LossCall:
    """A loss as it was called."""

    name: str
    output: Tensor = field(repr=False)
    """The input, detached."""
    target: Tensor = field(repr=False)


@dataclass(slots=True)
class Observed:
    """The calls within a `watched` block, in order."""

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
        self.observed = Observed()

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> object:
        """Note the call, then make it."""
        arguments = kwargs or {}
        if func in LOSSES:
            bound = _bound(func, args, arguments)
            output, target = bound.get("input"), bound.get("target")
            if isinstance(output, Tensor) and isinstance(target, Tensor):
                self.observed.losses.append(LossCall(LOSSES[func], output.detach(), target.detach()))
        elif func in MODAL:
            bound = _bound(func, args, arguments)
            rate = bound.get("p", 1.0)
            if rate:
                self.observed.modes.append((MODAL[func], bool(bound.get("training", True))))
        return func(*args, **arguments)


def _bound(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Arguments by name, defaults filled in."""
    try:
        bound = inspect.signature(func).bind(*args, **kwargs)
    except (ValueError, TypeError):
        return {}
    bound.apply_defaults()
    return bound.arguments


Loss = Callable[[Tensor, Tensor], Tensor]
Step = Callable[[nn.Module, Tensor, Tensor], object]
Predict = Callable[[nn.Module, Tensor], object]

FAILURES = (RuntimeError, TypeError, ValueError, IndexError, AssertionError)


@dataclass(frozen=True, slots=True, eq=False)
class LayerEvidence:
    """Statistics of a module's output for the images: enough to tell whether it carries information."""

    name: str
    kind: str
    constant: bool
    """Whether it gave the same for every image."""
    fed_constant: bool
    """Whether it was given the same for every image."""
    flat: float
    """For tanh and sigmoid the share of outputs within 0.001 of their limits, else 0."""


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationEvidence:
    """The model's answers, in the mode that it is asked in."""

    error: str = ""
    output: Tensor | None = field(default=None, repr=False)
    """Shape (n, K)."""
    again: Tensor | None = field(default=None, repr=False)
    """The output for the same images in a second call."""
    halves: Tensor | None = field(default=None, repr=False)
    """The output for the same images, in two batches of half the size."""
    observed: Observed = field(default_factory=Observed)
    buffers: tuple[str, ...] = ()
    """Buffers that asking changed."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingEvidence:
    """One training step."""

    error: str = ""
    observed: Observed = field(default_factory=Observed)
    gradients: Mapping[str, float | None] = field(default_factory=dict)
    """The largest gradient of each trainable parameter; None where it got none."""
    unchanged: tuple[str, ...] = ()
    """Trainable parameters that the step did not change."""
    own_step: bool = False
    """Whether it was the user's own step, with an optimizer."""
    added_to: tuple[str, ...] = ()
    """Parameters that the user's step had moved by a gradient which was still there when a second step's was added."""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """All that was seen; what could not be had is None."""

    model: nn.Module
    card: Card
    data: Dataset
    test: Dataset | None
    images: Tensor = field(repr=False)
    """The images as the model takes them, shape (n, C, H, W)."""
    labels: Tensor = field(repr=False)
    evaluation: EvaluationEvidence
    stepped: TrainingEvidence
    layers: tuple[LayerEvidence, ...]

    def answers(self, images: Tensor) -> Tensor:
        """The model's outputs in evaluation mode, shape (n, K), 250 images at a time."""
        with torch.no_grad(), in_eval_mode(self.model):
            return torch.cat([scores_of(self.model(part), len(part)) for part in torch.split(images, 250)])


def gather(
    model: nn.Module,
    data: Dataset,
    test: Dataset | None,
    *,
    selection: Selection,
    loss: Loss,
    step: Step | None,
    predict: Predict,
) -> Evidence:
    """Run the model on some training images; weights, buffers, gradients, modes and random state are put back."""
    parameter = next(model.parameters(), torch.empty(0))
    raw, read_indices = data.readable(selection)
    images = torch.from_numpy(data.preprocess.normalize(raw)).to(parameter.device, parameter.dtype)
    labels = torch.tensor(data.labels[read_indices], device=parameter.device)
    with left_as_found(model):
        evaluation = _ask(model, images, predict)
    with left_as_found(model):
        stepped = _step(model, images, labels, loss, step)
    with left_as_found(model):
        layers = () if evaluation.error else _layers(model, images)
    return Evidence(model, card_of(model), data, test, images, labels, evaluation, stepped, layers)


@contextmanager
def left_as_found(model: nn.Module) -> Iterator[None]:
    """Restore the model on exit, whatever happened to it; traces made before remain valid."""
    original = model.state_dict(keep_vars=True)
    state = {name: (value.detach().clone(), version(value)) for name, value in original.items()}
    gradients = {name: value.grad for name, value in model.named_parameters()}
    modes = [(module, module.training) for module in model.modules()]
    for value in model.parameters():
        value.grad = None
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in model.state_dict(keep_vars=True).items():
                    content, count = state[name]
                    value.copy_(content)
                    if value is original[name] and not value.is_inference():
                        set_version(value, count)
            for name, value in model.named_parameters():
                value.grad = gradients[name]
            for module, mode in modes:
                module.training = mode


def _ask(model: nn.Module, images: Tensor, predict: Predict) -> EvaluationEvidence:
    """Ask the same twice, and once more in other batches."""
    before = {name: value.clone() for name, value in model.named_buffers()}
    half = max(1, len(images) // 2)
    try:
        with torch.no_grad(), Watching() as watching:
            output, again = (scores_of(predict(model, images), len(images)).detach().float() for _ in range(2))
            parts = torch.split(images, half)
            halves = torch.cat([scores_of(predict(model, part), len(part)).detach().float() for part in parts])
    except ConvscopeError:  # an answer that gives no class, which every check would misread
        raise
    except FAILURES as error:
        return EvaluationEvidence(error=_sentence(error))
    changed = [name for name, value in model.named_buffers() if not torch.equal(value, before[name])]
    return EvaluationEvidence("", output, again, halves, watching.observed, tuple(changed))


def _step(model: nn.Module, images: Tensor, labels: Tensor, loss: Loss, step: Step | None) -> TrainingEvidence:
    """One step: the user's own, or forward, loss and backward in training mode."""
    trainable = {name: value for name, value in model.named_parameters() if value.requires_grad}
    before = {name: value.detach().clone() for name, value in trainable.items()}
    watching = Watching()
    if step is None:
        model.train()
    try:
        with torch.enable_grad(), watching:
            if step is not None:
                step(model, images, labels)
            else:
                output = logits_of(model(images))  # (n, K), or (n,) as the loss is to see it
                total = loss(scores_of(output, len(images)) if output.dim() > 2 else output, labels)
                if trainable:
                    torch.autograd.backward(total)
    except FAILURES as error:
        return TrainingEvidence(_sentence(error), watching.observed, own_step=step is not None)
    largest = {n: None if v.grad is None else float(v.grad.abs().max()) for n, v in trainable.items()}
    unchanged = [name for name, value in trainable.items() if torch.equal(value, before[name])]
    if step is None:
        return TrainingEvidence("", watching.observed, largest, tuple(unchanged))
    used = {name: value for name, value in trainable.items() if largest[name] and name not in unchanged}
    added_to = _added_to(used, lambda: step(model, images, labels)) if used else ()
    return TrainingEvidence("", watching.observed, largest, tuple(unchanged), own_step=True, added_to=added_to)


def _added_to(used: Mapping[str, nn.Parameter], step: Callable[[], object]) -> tuple[str, ...]:
    """The parameters that still have a gradient when a second step's gradient first reaches them."""
    there: dict[str, bool] = {}

    def look(name: str, value: nn.Parameter) -> None:
        there.setdefault(name, value.grad is not None and bool(value.grad.any()))

    hooks = [
        value.register_hook(lambda _, n=name, v=value: look(n, v))  # type: ignore[no-untyped-call]  # torch has no types
        for name, value in used.items()
    ]
    try:
        with torch.enable_grad():
            step()
    except FAILURES:
        return ()
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(name for name in used if there.get(name))


def _layers(model: nn.Module, images: Tensor) -> tuple[LayerEvidence, ...]:
    """The output of each module without children, in call order."""
    result: list[LayerEvidence] = []
    names = {module: name for name, module in model.named_modules() if not any(module.children())}

    def look(module: nn.Module, arguments: tuple[object, ...], output: object) -> None:
        if isinstance(output, Tensor) and output.shape[:1] == images.shape[:1] and output.is_floating_point():
            fed = arguments[0] if arguments and isinstance(arguments[0], Tensor) else images
            result.append(
                LayerEvidence(
                    names[module], type(module).__name__, _constant(output), _constant(fed), _flat(module, output)
                )
            )

    hooks = [module.register_forward_hook(look) for module in names]
    try:
        with torch.no_grad(), in_eval_mode(model):
            model(images)
    except FAILURES:
        return ()
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(result)


def _constant(values: Tensor) -> bool:
    return bool((values == values[:1]).all())


def _flat(module: nn.Module, output: Tensor) -> float:
    if isinstance(module, nn.Tanh):
        return float((output.abs() > 0.999).float().mean())
    if isinstance(module, nn.Sigmoid):
        return float(((output > 0.999) | (output < 0.001)).float().mean())
    return 0.0


def _sentence(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
