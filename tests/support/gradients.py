"""Gradients: which cells of an image a number depends on, as PyTorch's autograd finds it, on a model and on its twin.

The twin has the model's structure in float64, with positive weights, the identity for every activation and averages for
maxima, so that nothing cancels and nothing is switched off: its gradient is not 0 wherever the model can look.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

ACTIVATIONS = {
    torch.relu, torch.relu_, F.relu, F.relu6, F.gelu, F.silu, F.sigmoid, torch.sigmoid, F.tanh, torch.tanh,
    F.leaky_relu, F.elu, F.hardswish, F.hardsigmoid, F.hardtanh, F.softplus, F.mish, F.prelu, torch.prelu,
    Tensor.sigmoid, Tensor.tanh, Tensor.relu, Tensor.relu_, torch.clamp, Tensor.clamp, F.softmax, Tensor.softmax,
    torch.softmax,
}  # fmt: skip


def averaged(pool: Any) -> Callable[..., Tensor]:
    """An average in the place of a maximum over the same windows."""

    def pooled(
        x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, **options: Any
    ) -> Tensor:
        assert dilation in {1, (1, 1)}
        result: Tensor = pool(x, kernel_size, stride, padding, ceil_mode=options.get("ceil_mode", False))
        return result

    return pooled


AVERAGES: Mapping[Any, Callable[..., Tensor]] = {
    torch.max_pool2d: averaged(F.avg_pool2d),
    F.max_pool2d: averaged(F.avg_pool2d),
    torch.max_pool3d: averaged(F.avg_pool3d),
    F.max_pool3d: averaged(F.avg_pool3d),
    F.adaptive_max_pool2d: lambda x, size, **_: F.adaptive_avg_pool2d(x, size),
}


class Smooth(TorchFunctionMode):
    """While it is entered, activations are the identity and maxima are averages."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if func in ACTIVATIONS:
            return args[0]
        if func in AVERAGES:
            return AVERAGES[func](*args, **kwargs)
        assert "pool" not in name or "avg" in name, name
        return func(*args, **kwargs)


def twin_of(model: nn.Module) -> nn.Module:
    """A copy in float64 whose weights are positive and whose statistics do nothing."""
    twin = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.copy_(parameter.abs() + 0.1)
        for path, buffer in twin.named_buffers():
            if path.endswith("running_mean"):
                buffer.zero_()
            elif path.endswith("running_var"):
                buffer.fill_(1.0)
    return twin


@contextmanager
def outputs_of(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """The result of every module without others inside that runs, by path, as it runs."""
    results: dict[str, Tensor] = {}

    def keeper(path: str) -> Callable[..., None]:
        def keep(_module: nn.Module, _args: Any, result: Any) -> None:
            if isinstance(result, Tensor) and path not in results:
                results[path] = result

        return keep

    hooks = [
        module.register_forward_hook(keeper(path))
        for path, module in model.named_modules()
        if not any(module.children())
    ]
    try:
        yield results
    finally:
        for hook in hooks:
            hook.remove()


def support(result: Tensor, cells: Any, image: Tensor) -> Any:
    """Where the gradient of some cells of a result by the image is not 0, in the image's shape."""
    (gradient,) = torch.autograd.grad(result[cells].sum(), image, retain_graph=True, allow_unused=True)
    return torch.zeros_like(image, dtype=torch.bool).numpy() if gradient is None else (gradient != 0).numpy()
