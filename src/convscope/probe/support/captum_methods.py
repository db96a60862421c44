"""Captum methods: Captum's attribution methods by name, each called so that it gives a map in the image's shape.

Captum is optional and imported when a method is first used; its numbers are handed on as they are. Uses torch.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from convscope.errors import UsageError
from convscope.training.outputs import scores_of

MISSING = (
    "attribution compares Captum's methods, and Captum is not installed here: pip install 'convscope[attribution]'."
)
STEPS = 64
"""Steps along the path of integrated gradients."""
AT_ONCE = 1 << 19
"""Numbers of the images of one pass: three photos of 224x224."""


@dataclass(frozen=True, slots=True, eq=False)
class MethodCall:
    """What a method is asked."""

    model: nn.Module
    image: Tensor
    """Shape (1, C, H, W)."""
    output: int
    """Which of the model's outputs."""
    layer: str
    """The module of the last convolution, "" where there is none."""
    going_on: Callable[[], None] = lambda: None
    """Called before each of the many passes that some methods make; what it raises ends them."""

    def forward(self, images: Tensor) -> Tensor:
        """The outputs of the model, shape (N, K)."""
        self.going_on()
        return scores_of(self.model(images), len(images))


@dataclass(frozen=True, slots=True)
class Method:
    """One of Captum's methods."""

    run: Callable[[MethodCall, Any], Tensor]
    signed: bool = True
    """Whether its numbers can say that a pixel speaks against."""
    complete: bool = False
    """Whether its numbers claim to add up to the output minus the output for an image of zeros."""


class Whole(nn.Module):
    """A model that returns logits, as Captum's hooks require."""

    def __init__(self, call: MethodCall) -> None:
        super().__init__()
        self.inner = call.model

    def forward(self, images: Tensor) -> Tensor:
        """The outputs of the model, shape (N, K)."""
        return scores_of(self.inner(images), len(images))


def _saliency(call: MethodCall, attr: Any) -> Any:
    return attr.Saliency(call.forward).attribute(call.image, target=call.output)


def _input_x_gradient(call: MethodCall, attr: Any) -> Any:
    return attr.InputXGradient(call.forward).attribute(call.image, target=call.output)


def _integrated_gradients(call: MethodCall, attr: Any) -> Any:
    method = attr.IntegratedGradients(call.forward)
    batch = max(1, min(16, AT_ONCE // call.image.numel()))
    return method.attribute(call.image, target=call.output, n_steps=STEPS, internal_batch_size=batch)


def _occlusion(call: MethodCall, attr: Any) -> Any:
    _, channels, height, width = call.image.shape
    window = max(1, height // 8), max(1, width // 8)
    stride = max(1, window[0] // 2), max(1, window[1] // 2)
    return attr.Occlusion(call.forward).attribute(
        call.image, (channels, *window), strides=(channels, *stride), target=call.output
    )


def _grad_cam(call: MethodCall, attr: Any) -> Any:
    if not call.layer:
        raise UsageError("there is no convolution")
    layer = call.model.get_submodule(call.layer)
    result = attr.LayerGradCam(call.forward, layer).attribute(call.image, target=call.output, relu_attributions=True)
    enlarged = attr.LayerAttribution.interpolate(result, tuple(call.image.shape[2:]), "bilinear")
    return enlarged.expand(call.image.shape) / call.image.shape[1]


def _guided_backprop(call: MethodCall, attr: Any) -> Any:
    return attr.GuidedBackprop(Whole(call)).attribute(call.image, target=call.output)


def _deep_lift(call: MethodCall, attr: Any) -> Any:
    return attr.DeepLift(Whole(call)).attribute(call.image, target=call.output)


METHODS: Mapping[str, Method] = {
    "input-x-gradient": Method(_input_x_gradient),
    "integrated-gradients": Method(_integrated_gradients, complete=True),
    "deep-lift": Method(_deep_lift, complete=True),
    "occlusion": Method(_occlusion),
    "saliency": Method(_saliency, signed=False),
    "guided-backprop": Method(_guided_backprop),
    "grad-cam": Method(_grad_cam, signed=False),
}
"""In the order in which they are shown."""


def captum() -> Any:
    """The module `captum.attr`.

    Raises:
        UsageError: Captum is not installed.
    """
    try:
        return import_module("captum.attr")
    except ImportError:
        raise UsageError(MISSING) from None


def attributed(name: str, call: MethodCall, attr: Any) -> Tensor | str:
    """A method's map, shape (C, H, W), float64; or why the method does not work for this model."""
    hooks = _hooks(call.model)
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")  # Captum says that it sets hooks
            result: Tensor = METHODS[name].run(call, attr)
    except (RuntimeError, AssertionError, AttributeError, TypeError, UsageError) as error:
        return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
    finally:
        _take_off(call.model, hooks)
    return result.detach()[0].double().cpu()


REGISTRIES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _hooks(model: nn.Module) -> dict[str, dict[str, set[int]]]:
    """The hooks of every module, by their keys."""
    return {
        path: {registry: set(getattr(module, registry)) for registry in REGISTRIES}
        for path, module in model.named_modules()
    }


def _take_off(model: nn.Module, before: Mapping[str, Mapping[str, set[int]]]) -> None:
    """Remove what a method that failed has left on the model."""
    for path, module in model.named_modules():
        for registry in REGISTRIES:
            hooks = getattr(module, registry)
            for key in set(hooks) - before.get(path, {}).get(registry, set()):
                del hooks[key]
