"""Memory that a training step needs, counted before it starts.

Linux hands out more memory than the machine has and later ends the process that uses it, so that nothing can be caught.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from convscope.cards.trial_copy import CountingMode, TrialCopies, Unrunnable, in_structure
from convscope.data.options import check_bytes

LARGE = 1 << 21
"""Numbers of a batch of images from which its training step is counted; smaller ones fit everywhere."""


def check_step_memory(model: nn.Module, shape: Sequence[int], batch_size: int) -> None:
    """Reject a batch whose training step needs more memory than is free.

    Counted are the images, the result of every operation, which the backward pass needs, and two gradients of the
    largest one; weights, gradients and the optimizer's state of the weights are not. A model that cannot be copied, or
    that fails on inputs without numbers, is not judged.

    Args:
        model: The model, on the CPU.
        shape: (C, H, W) of an image.
        batch_size: Images per step.

    Raises:
        DataError: it needs more memory than is free.
    """
    image = torch.empty(()).expand(batch_size, *shape)  # takes no memory
    if image.numel() < LARGE:
        return
    try:
        counter, outcome = TrialCopies(model).run_under(ResultBytes, [image], {})
    except Unrunnable:
        return
    if isinstance(outcome, Exception):
        return
    size = "x".join(map(str, shape))
    images = f"a batch of {batch_size} images" if batch_size > 1 else "one image"
    advice = "Use a smaller --batch-size or --size." if batch_size > 1 else "Use a smaller --size."
    needed = image.numel() * image.element_size() + counter.bytes + 2 * counter.largest
    check_bytes(f"the numbers of a training step on {images} of {size}", needed, advice)


class ResultBytes(CountingMode):
    """Adds up the bytes of the results that functions of torch allocate."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__(names)
        self.bytes = 0
        self.largest = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls += 1
        known = {id_ for id_, _ in _memories([*args, kwargs or {}])}
        for id_, size in _memories(result):
            if id_ not in known:  # else a view, or changed in place
                self.bytes += size
                self.largest = max(self.largest, size)
        return result


def _memories(value: Any) -> list[tuple[int, int]]:
    """The memories of all tensors in a structure: an identifier, which views share, and the number of bytes."""
    memories: list[tuple[int, int]] = []

    def collect(tensor: Tensor) -> Tensor:
        if tensor.layout is torch.strided:
            storage = tensor.untyped_storage()
            memories.append((storage._cdata, storage.nbytes()))
        return tensor

    in_structure(value, collect)
    return memories
