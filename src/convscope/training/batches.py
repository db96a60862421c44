"""Batches from tensors in memory: no Python per image. No files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from convscope.data.dataset import Dataset

FLOAT_BYTES = 1 << 30
"""Data sets up to this size are normalized once; larger ones stay as they are and are normalized batch by batch."""

AHEAD_BYTES = 4 << 20
"""Batches that fit into this together are read together: half the time per batch of small images."""


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

    def taken(self, parts: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches at `parts`, one by one; small ones are read several at once."""
        together = max(1, AHEAD_BYTES // max(1, 4 * self.images[0].numel() * max(map(len, parts), default=1)))
        for start in range(0, len(parts), together):
            group = parts[start : start + together]
            images, labels = self.take(torch.cat(list(group)))
            sizes = [len(part) for part in group]
            yield from zip(torch.split(images, sizes), torch.split(labels, sizes), strict=True)

    def in_order(self, size: int, first: int = 0, every: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """All batches from first to last; or each `every`-th, from batch `first`."""
        for start in range(first * size, len(self), every * size):
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


def epoch_order(length: int, draws: int | None, seed: int, epoch: int) -> Tensor:
    """The order of an epoch's images: a function of seed and epoch alone, so that a resumed training repeats it.

    >>> sorted(epoch_order(4, None, seed=0, epoch=1).tolist())
    [0, 1, 2, 3]
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % (1 << 63))
    if draws is not None:
        return torch.randint(length, (draws,), generator=generator)
    return torch.randperm(length, generator=generator)
