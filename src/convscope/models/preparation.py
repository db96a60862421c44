"""Preparation of a loaded model: evaluation mode and back, and shapes for layers that get them from the first input.

Uses torch's modes and lazy modules; some modules' `eval` fails, as that of torch.export's does.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from convscope.cards.card_inference import card_of
from convscope.cards.trial_runs import expectation, runs
from convscope.errors import ModelError


def evaluate(model: nn.Module) -> nn.Module:
    """Set a model to eval mode: by its own `eval` or, if that fails, module by module.

    >>> evaluate(nn.Dropout()).training
    False
    """
    try:
        model.eval()
    except (NotImplementedError, AttributeError, RuntimeError):
        for module in model.modules():
            module.__dict__["training"] = False
    return model


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Within it the model is in eval mode; afterwards each module returns to its previous mode."""
    before = [(module, module.training) for module in model.modules()]
    evaluate(model)
    try:
        yield
    finally:
        for module, mode in before:
            module.__dict__["training"] = mode


_SEEDS: "WeakKeyDictionary[nn.Module, int]" = WeakKeyDictionary()
"""Model -> the seed for its weights, to be drawn once they have shapes."""
NOTE = (
    "its lazy layers get their shapes from the first image; say them now by preprocess: channels=... and size=..., "
    "or by weights"
)


def lacks_shapes(model: nn.Module) -> bool:
    """Whether some parameters get their shapes from the first input.

    >>> lacks_shapes(nn.LazyLinear(2)), lacks_shapes(nn.Linear(3, 2))
    (True, False)
    """
    return any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers()))


def give_shapes(model: nn.Module, arguments: Sequence[object], keywords: Mapping[str, object] | None = None) -> None:
    """Run a lazy model once to give it shapes; its weights are drawn with the seed that it was loaded with.

    >>> net = nn.Sequential(nn.LazyConv2d(4, 3))
    >>> give_shapes(net, [torch.zeros(1, 3, 8, 8)])
    >>> net[0]
    Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1))

    Args:
        model: Any model; one whose parameters all have shapes is left as it is.
        arguments: Its inputs by position, with a batch axis.
        keywords: Its inputs by name.

    Raises:
        ModelError: it fails on these inputs; then it still lacks shapes.
    """
    if not lacks_shapes(model):
        return
    shapes = ", ".join(str(tuple(value.shape)) for value in arguments if isinstance(value, Tensor))
    if runs(model, arguments, keywords or {}) is False:
        raise ModelError(
            f"the lazy layers of {card_of(model).name} cannot get their shapes from an input of {shapes}: its forward "
            "fails on it; give an input that it takes."
        )
    _run(model, arguments, keywords or {}, _SEEDS.get(model, 0))


def settle(model: nn.Module, size: tuple[int, int] | None, channels: int | None, seed: int) -> tuple[str, ...]:
    """Give a newly loaded model with lazy layers its shapes, if its input is known; returns notes.

    Args:
        model: Any model.
        size: Height and width of a picture, if known.
        channels: Number of channels of a picture, if known.
        seed: What fresh weights are drawn by.
    """
    lazy = [module for module in model.modules() if isinstance(module, nn.modules.lazy.LazyModuleMixin)]
    if not lazy:
        return ()
    _SEEDS[model] = seed
    if not lacks_shapes(model):  # weights gave them
        _complete(lazy)
        result = expectation(model)
        size, channels = size or (result.size if result else None), channels or (result.channels if result else None)
    if channels is None or (size is None and lacks_shapes(model)):
        return (NOTE,) if lacks_shapes(model) else ()
    give_shapes(model, [torch.zeros(1, channels, *(size or (64, 64)))])
    return ()


def _complete(lazy: Sequence[nn.Module]) -> None:
    """Set the sizes and final classes of lazy layers, which loading weights leaves at 0 and unchanged."""
    for module in lazy:
        weight = getattr(module, "weight", None)
        shape = tuple(weight.shape) if isinstance(weight, Tensor) else ()
        transposed = getattr(module, "transposed", False)
        groups = getattr(module, "groups", 1)
        counts = {
            "in_channels": (shape[0] if transposed else shape[1] * groups) if len(shape) > 1 else 0,
            "in_features": shape[1] if len(shape) > 1 else 0,
            "num_features": shape[0] if shape else 0,
        }
        for name, count in counts.items():
            if getattr(module, name, None) == 0 and count:
                setattr(module, name, count)
        _become(module)


def _become(module: Any) -> None:
    """Do what torch does after a lazy module's first call: remove its hooks and become the ordinary layer's class."""
    for name in ("_initialize_hook", "_load_hook"):
        if hasattr(module, name):
            getattr(module, name).remove()
            delattr(module, name)
    if module.cls_to_become is not None:
        module.__class__ = module.cls_to_become


def _run(model: nn.Module, arguments: Sequence[object], keywords: Mapping[str, object], seed: int) -> None:
    with (
        torch.random.fork_rng(devices=[]),
        warnings.catch_warnings(),
        torch.no_grad(),
        in_evaluation(model),
    ):
        warnings.simplefilter("ignore")  # that lazy modules are under development
        torch.default_generator.manual_seed(seed)
        try:
            model(*arguments, **keywords)
        except Exception as error:
            raise ModelError(
                f"the lazy layers of {card_of(model).name} cannot get their shapes: "
                f"{type(error).__name__}: {str(error).splitlines()[0]}"
            ) from error
    if lacks_shapes(model):
        raise ModelError(f"{card_of(model).name} has lazy layers that its forward does not reach; they have no shapes.")
