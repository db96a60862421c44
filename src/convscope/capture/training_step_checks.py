"""Training step checks: what cannot be explained is refused in one sentence, before it runs or right after.

Uses torch and models; no steps.
"""

import torch

from convscope.capture.gradients import BackwardRecorder
from convscope.capture.model_state import ModelState
from convscope.capture.recording import NARROW, tensors_of
from convscope.errors import TrainingError, UsageError


def check_model(subject: ModelState) -> None:
    """Refuse a model whose training step is not explained.

    Raises:
        UsageError: compiled, in half precision, with hooks, under autocast.
        TrainingError: no parameter of it can be trained.
    """
    if subject.compiled:
        raise UsageError(
            "a training step of a compiled model is not explained, because torch.compile fuses its operations; pass "
            "the model itself, before torch.compile."
        )
    trained = [name for name, tensor in subject.parameters.items() if tensor.requires_grad]
    if not trained:
        raise TrainingError("this model has no trainable parameters (there are none, or all of them are frozen).")
    for name in trained:
        kind = str(subject.parameters[name].dtype).removeprefix("torch.")
        if kind not in {"float32", "float64"}:
            raise UsageError(
                f"a training step in {kind} is not explained (its parameter {name} is {kind}); use model.float()."
            )
        # Hooks change what training makes of a gradient, and the step runs on copies, which have none.
        tensor = subject.parameters[name]
        if tensor._backward_hooks or getattr(tensor, "_post_accumulate_grad_hooks", None):
            raise UsageError(
                f"a training step of parameters with hooks is not explained ({name} has one, which may change its "
                "gradient); remove the hooks for this call."
            )
    for path, module in subject.modules.items():
        if module._backward_hooks or module._backward_pre_hooks:
            raise UsageError(
                f"a training step of modules with backward hooks is not explained ({path or 'the model'} has one, "
                "which may change its gradient); remove the hooks for this call."
            )
    if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
        raise UsageError("a training step under autocast is not explained; turn autocast off for this call.")


def check_recorded(recorder: BackwardRecorder) -> None:
    """Refuse a forward pass, or its loss, that took gradients itself or calculated in half precision."""
    if recorder.nested:
        raise UsageError(
            "a second backward pass is not explained: the model or its loss calls backward or autograd.grad itself (a "
            "gradient penalty, for example); leave that term out and return the loss."
        )
    results = (tensor for call in recorder.tape.calls if call is not None for tensor in tensors_of(call[3]))
    narrow = next((tensor for tensor in results if tensor.dtype in NARROW and tensor.requires_grad), None)
    if narrow is not None:
        raise UsageError(
            f"a training step in {str(narrow.dtype).removeprefix('torch.')} is not explained, and the model calculates "
            "in it, as under autocast; turn autocast off for this call."
        )
