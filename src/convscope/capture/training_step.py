"""Training steps: the checked settings of `cs.trace(model, images, target=..., ...)`, and the session that runs one.

The model runs with copies of its trainable parameters, and the optimizer's step runs on copies of these and of its
state, so that the user's model and optimizer are not modified. Uses torch, losses and optimizers by name; no steps.
"""

import inspect
import math
import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from convscope.capture.call_inputs import CallInputs
from convscope.capture.gradients import BackwardRecorder
from convscope.capture.model_state import PLAIN, ModelState
from convscope.capture.optimizer_update import Update, check_optimizer, updates_of
from convscope.capture.recorder import Recorder
from convscope.capture.recording import tensors_of
from convscope.capture.session import TracingSession
from convscope.capture.training_step_checks import check_model, check_recorded
from convscope.errors import ShapeError, UsageError
from convscope.progress import Progress
from convscope.training.objectives import LOSSES, OPTIMIZERS, make_loss, make_optimizer
from convscope.training.recipes import Recipe
from convscope.training.runs import Run
from convscope.training.snapshots import newest_good, restore_optimizer, snapshot_folders
from convscope.type_checks import kind_of

LossFunction: TypeAlias = Callable[..., Tensor]
"""(output, target) -> the loss, one number."""
IGNORED = -100
"""The label that PyTorch's cross-entropy leaves out by default."""


@dataclass(frozen=True, slots=True)
class StepSettings:
    """The settings that a training step adds to a forward pass."""

    target: ArrayLike | Tensor
    loss: str | LossFunction | None = None
    optimizer: str | torch.optim.Optimizer | None = None
    lr: float | None = None
    training: bool | None = None
    origin: str = ""
    """The step and its run, in words."""

    @property
    def trains(self) -> bool:
        """Whether the model runs in training mode: as it trains where there is an optimizer."""
        return self.optimizer is not None if self.training is None else self.training


def settings_of_run(run: Run, settings: StepSettings) -> StepSettings:
    """The settings of a run's step: those that are not passed come from its recipe and its newest snapshot.

    Raises:
        UsageError: the run was trained with an optimizer whose update is not explained.
        RunError: its snapshots are damaged.
    """
    settings = replace(settings, loss=_loss_of_run(run.recipe) if settings.loss is None else settings.loss)
    if settings.optimizer is None:
        falls = settings.lr is None and run.recipe.schedule != "constant"
        origin = (
            f"the rate at the end of the run's schedule, at most {run.recipe.lr:g} before" if falls else settings.origin
        )
        return replace(settings, optimizer=_optimizer_of_run(run, settings.lr), lr=None, origin=origin)
    return settings


def _loss_of_run(recipe: Recipe) -> str | LossFunction:
    """The loss that a run was trained with, by its name; with label smoothing the function, as the name has none."""
    return make_loss(recipe) if recipe.label_smoothing else recipe.loss


def _optimizer_of_run(run: Run, lr: float | None) -> torch.optim.Optimizer:
    """A run's optimizer over its weights, with the state of the newest snapshot where that has the same weights."""
    optimizer = make_optimizer(run.model, run.recipe)
    check_optimizer(optimizer)
    folder = run.path / "snapshots"
    if snapshot_folders(folder):
        _, weights, state, _ = newest_good(folder)
        run_weights = run.model.state_dict()
        if all(torch.equal(run_weights[name].cpu(), tensor) for name, tensor in weights.items() if name in run_weights):
            restore_optimizer(optimizer, state["optimizer"], run.path)  # else its state belongs to other weights
            _lay_out(optimizer)
    for group in optimizer.param_groups:
        group["lr"] = lr if lr is not None else group["lr"]
    return optimizer


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give an optimizer's state the memory layout of its parameters.

    Trainings use channels-last convolutions, but weights are loaded contiguously; a fused optimizer requires the same
    layout for both.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter).copy_(value)


@dataclass(slots=True, eq=False)
class TrainingSession(TracingSession):
    """A session that also computes the loss, the gradients and, with an optimizer, the new parameters."""

    shortens: ClassVar[bool] = False
    target: Tensor | None = None
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
        model_parameters = self.subject.parameters
        frozen = self.parameters
        self.parameters = {
            **{n: p.detach().clone() for n, p in model_parameters.items() if p.requires_grad and n not in frozen},
            **frozen,
        }
        self.results = {}

    @property
    def trained(self) -> tuple[str, ...]:
        """The names of the parameters that get gradients."""
        return tuple(name for name, tensor in self.subject.parameters.items() if tensor.requires_grad)

    def call(self, recorder: Recorder) -> object:
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
                check_recorded(recorder)
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

    def _calculated(self, output: object) -> object:
        """The loss of what the model returned or, if the loss takes only a tensor, of the first one in it."""
        assert self.loss is not None
        try:
            return self.loss(output, self.target)
        except (AttributeError, KeyError, TypeError) as error:
            first = next(tensors_of(output), None)
            if isinstance(output, Tensor) or first is None:
                raise
            try:
                return self.loss(first, self.target)
            except (AttributeError, KeyError, TypeError, IndexError):
                raise error from None

    def _loss(self, output: object) -> Tensor:
        """The loss of this output.

        Raises:
            UsageError: it cannot be differentiated.
        """
        loss = self._calculated(output)
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


def training_session(
    subject: ModelState,
    intake: CallInputs,
    settings: StepSettings,
    *,
    parameters: Mapping[str, Tensor],
    progress: Progress | None,
) -> TrainingSession:
    """A session that records a whole training step.

    Raises:
        UnknownName: unknown loss or optimizer.
        UsageError: a model or setting whose training step is not explained.
        ShapeError: another number of labels than of images.
        TrainingError: no parameter of the model can be trained.
    """
    check_model(subject)
    loss_name, loss = _loss(settings)
    target = _target(subject, intake, settings.target, integers=loss_name in LOSSES)
    intake.tensors = {**intake.tensors, "target": target}
    optimizer = _optimizer(subject, settings)
    return TrainingSession(
        subject,
        intake,
        settings.trains,
        parameters=parameters,
        progress=progress,
        target=target,
        loss=_checked(loss) if loss_name in {"cross-entropy", "nll"} else loss,
        loss_name=loss_name,
        optimizer=optimizer,
        optimizer_says=_says(optimizer),
        all_train=settings.trains,
        origin=settings.origin,
    )


def _loss(settings: StepSettings) -> tuple[str, LossFunction]:
    """The loss's name and function."""
    loss = settings.loss if settings.loss is not None else "cross-entropy"
    if isinstance(loss, str):
        return loss, make_loss(Recipe(loss=loss))
    if not callable(loss):
        raise UsageError(f"a loss is a name ({', '.join(LOSSES)}) or a function, not {kind_of(loss)}.")
    name = type(loss).__name__ if isinstance(loss, nn.Module) else getattr(loss, "__name__", "<lambda>")
    return "a loss of your own" if name == "<lambda>" else name, loss


def _target(subject: ModelState, intake: CallInputs, target: ArrayLike | Tensor, *, integers: bool) -> Tensor:
    """The labels as a tensor on the model's device; for a named loss, one integer for each image."""
    tensor = (target.detach().clone() if isinstance(target, Tensor) else _numbers(target)).to(subject.device)
    images = len(next(iter(intake.tensors.values())))
    if not tensor.dim():
        tensor = tensor[None]
    if len(tensor) != images:
        raise ShapeError(f"{images} images need {images} labels as their target, not {len(tensor)}.")
    if not integers:
        return tensor
    if tensor.dim() != 1 or tensor.is_floating_point() or tensor.is_complex():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ShapeError(
            f"a target is one class number for each image, of shape ({images},), not {kind} of shape "
            f"{tuple(tensor.shape)}; pass a function as the loss for other targets."
        )
    return tensor.long()


def _numbers(target: ArrayLike) -> Tensor:
    """An array, list or number as a tensor."""
    try:
        return torch.from_numpy(np.array(target))
    except Exception:  # text, None, a dict, rows of different lengths, numbers beyond 64 bits, objects of the user
        raise UsageError(
            "a target is the class numbers of the images, an array or a list such as [0, 3], not "
            f"{reprlib.repr(target)}."
        ) from None


def _checked(loss: LossFunction) -> LossFunction:
    """A classification loss that first checks output and labels."""

    def checked(output: object, labels: Tensor) -> Tensor:
        scores = output if isinstance(output, Tensor) else next(tensors_of(output), None)
        if scores is None or scores.dim() < 2:
            shape = type(output).__name__ if scores is None else tuple(scores.shape)
            raise UsageError(f"a classification loss needs one score per class and image (N, K), not {shape}.")
        classes = scores.shape[1]
        if classes == 1:
            raise UsageError("a classification loss of a single score is always 0; use loss='mse' for one score.")
        with torch._C._DisableTorchDispatch():
            wrong = labels[((labels < 0) | (labels >= classes)) & (labels != IGNORED)]
            if len(wrong):
                raise UsageError(
                    f"label {int(wrong[0])} is not one of the model's {classes} classes, 0 to {classes - 1}."
                )
        return loss(scores, labels)

    return checked


def _optimizer(subject: ModelState, settings: StepSettings) -> torch.optim.Optimizer | None:
    """The optimizer, by name over the model's own parameters, which it does not change."""
    choice, lr = settings.optimizer, settings.lr
    if choice is None:
        if lr is not None:
            raise UsageError("a learning rate belongs to an optimizer; name one too, such as optimizer='adam'.")
        return None
    if isinstance(choice, torch.optim.Optimizer):
        if lr is not None:
            raise UsageError("the optimizer has its own learning rate; leave lr out, or name the optimizer.")
        check_optimizer(choice)
        return choice
    if not isinstance(choice, str):
        raise UsageError(f"an optimizer is a name or a torch.optim.Optimizer, not {kind_of(choice)}.")
    if lr is None and choice in OPTIMIZERS:
        lr = inspect.signature(OPTIMIZERS[choice]).parameters["lr"].default
    try:
        rate = 1e-3 if lr is None else float(lr)
    except (TypeError, ValueError):
        raise UsageError(f"lr must be a number greater than 0, not {reprlib.repr(lr)}.") from None
    recipe = Recipe(optimizer=choice, lr=rate)
    optimizer = make_optimizer(subject.model, recipe)
    check_optimizer(optimizer)
    return optimizer


def _says(optimizer: torch.optim.Optimizer | None) -> str:
    if optimizer is None:
        return ""
    rates = ", ".join(dict.fromkeys(f"{float(group['lr']):g}" for group in optimizer.param_groups))
    return f"{type(optimizer).__name__} (learning rate {rates})"
