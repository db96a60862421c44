"""Batches from tensors in memory: no Python per image, and the memory layout that convolutions like. No files."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from convscope.data.dataset import Dataset
from convscope.training.modes import in_eval_mode

FLOAT_BYTES = 1 << 30
"""Data sets up to this size are normalized once; larger ones stay as they are and are normalized batch by batch."""


@dataclass(frozen=True, slots=True, eq=False)
class Batches:
    """A data set as tensors on one device.

    Images lie as (N, H, W, C), so that a batch is channels-last by a mere change of view; `channels_last` says
    whether the model gets it so or copied to (N, C, H, W).
    """

    images: Tensor
    labels: Tensor
    data: Dataset
    ready: bool
    channels_last: bool
    dtype: torch.dtype = torch.float32

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The images (n, C, H, W), normalized, and labels (n,) at `indices`."""
        return self._shown(self.images.index_select(0, indices)), self.labels.index_select(0, indices)

    def in_order(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All batches from first to last."""
        for start in range(0, len(self), size):
            yield self._shown(self.images[start : start + size]), self.labels[start : start + size]

    def _shown(self, images: Tensor) -> Tensor:
        """Images (n, H, W, C) as the model gets them: (n, C, H, W) in its layout."""
        values = images.permute(0, 3, 1, 2)
        if not self.ready:
            values = self._normalized(values)
        # With one channel, contiguous() takes channels-last strides for contiguous ones; a convolution does not.
        return values if self.channels_last else values.contiguous().view(-1).view(values.shape)

    def _normalized(self, values: Tensor) -> Tensor:
        """The same arithmetic as `Preprocess.normalize`, on tensors."""
        preprocess = self.data.preprocess
        values = values.to(self.dtype)
        if preprocess.scale != 1:
            values = values / preprocess.scale
        if preprocess.plain:
            return values
        mean, std = (
            torch.tensor(v, dtype=self.dtype, device=values.device)[:, None, None]
            for v in (preprocess.mean, preprocess.std)
        )
        return (values - mean) / std


def as_batches(
    data: Dataset, device: torch.device, dtype: torch.dtype = torch.float32, *, channels_last: bool
) -> Batches:
    """Put a data set on the device, normalized once if it is small enough."""
    images = torch.tensor(data.images.transpose(0, 2, 3, 1), device=device).contiguous()
    raw = Batches(images, torch.tensor(data.labels, device=device), data, False, channels_last, dtype)
    if data.images.size * 4 > FLOAT_BYTES:
        return raw
    values = raw._normalized(images.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()
    return replace(raw, images=values, ready=True)


def shifted(images: Tensor, most: int) -> Tensor:
    """The batch (N, C, H, W) moved up to `most` pixels each way, drawn from PyTorch's random state."""
    down, right = torch.randint(-most, most + 1, (2,)).tolist()
    return torch.roll(images, (down, right), (2, 3))


def make_channels_last(model: nn.Module, data: Dataset) -> bool:
    """Lay the model's weights out channels-last if it convolves images and then runs on them (a `view` would not).

    On CPUs PyTorch's max pooling is several times faster so (bench/training.py).
    """
    if not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return False
    set_layout(model, torch.channels_last)
    sample = as_batches(data.part(slice(0, 2)), torch.device("cpu"), channels_last=True).take(torch.tensor([0, 1]))[0]
    parameter = next(model.parameters())
    try:
        with torch.no_grad(), in_eval_mode(model):
            model(sample.to(parameter.dtype))
    except RuntimeError:
        set_layout(model, torch.contiguous_format)
        return False
    return True


def set_layout(model: nn.Module, layout: torch.memory_format) -> None:
    """Lay out all weights of four axes as `layout`; their values stay."""
    model.to(memory_format=layout)  # type: ignore[call-overload]  # documented, and missing from torch's own types


def epoch_order(length: int, draws: int | None, seed: int, epoch: int) -> Tensor:
    """The order of an epoch's images: a function of seed and epoch alone, so that a resumed training repeats it.

    >>> sorted(epoch_order(4, None, seed=0, epoch=1).tolist())
    [0, 1, 2, 3]
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % (1 << 63))
    if draws is not None:
        return torch.randint(length, (draws,), generator=generator)
    return torch.randperm(length, generator=generator)
