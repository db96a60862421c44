"""Batches: a data set's images as tensors, sliced in memory or prefetched from disk, in the faster memory format."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from convscope.data.dataset import Dataset
from convscope.data.lazy_images import LazyImages
from convscope.training.outputs import in_eval_mode

Item = TypeVar("Item")
Made = TypeVar("Made")

DEPTH = 3


def prefetch(make: Callable[[Item], Made], items: Iterable[Item], depth: int = DEPTH) -> Generator[Made, None, None]:
    """`make(item)` for every item in order, computing up to `depth` of them in advance.

    >>> list(prefetch(str, [1, 2, 3]))
    ['1', '2', '3']
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    waiting: deque[Future[Made]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


Stream = Generator[tuple[Tensor, Tensor], None, None]
"""Images (n, C, H, W) and labels (n,), batch after batch; close it when leaving early.

Unreadable images on disk are left out: a batch may have fewer than requested, or none."""

FLOAT_BYTES = 1 << 30
"""Data sets up to this size are normalized once; larger ones stay as they are and are normalized batch by batch."""

GROUP_BYTES = 4 << 20
"""Small batches are gathered in groups of up to this size, which halves the time per batch of small images."""


class Batches(Protocol):
    """A data set as training and evaluation use it: batches on one device, in the model's memory format and dtype."""

    @property
    def labels(self) -> Tensor:
        """The class of each image, shape (N,)."""

    @property
    def data(self) -> Dataset:
        """The data set that the batches come from."""

    @property
    def window(self) -> int | None:
        """Size of the windows within which an epoch is shuffled; None: the whole data set."""

    def __len__(self) -> int:
        """Number of images."""

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The images (n, C, H, W), normalized, and labels (n,) at `indices`."""

    def taken(self, parts: Sequence[Tensor]) -> Stream:
        """The batches with the indices `parts`, one by one."""

    def in_order(self, size: int, first: int = 0, every: int = 1) -> Stream:
        """All batches in order; or every `every`-th, starting at batch `first`."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldBatches:
    """Batches of a data set in memory.

    Images are stored as (N, H, W, C), so that a permuted view of a batch is channels-last; `channels_last` decides
    whether the model receives that view or a contiguous copy (N, C, H, W).
    """

    images: Tensor
    labels: Tensor
    data: Dataset
    ready: bool
    channels_last: bool
    dtype: torch.dtype = torch.float32
    window: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """See `Batches`."""
        return self._shown(self.images.index_select(0, indices)), self.labels.index_select(0, indices)

    def taken(self, parts: Sequence[Tensor]) -> Stream:
        """See `Batches`; small batches are gathered several at once."""
        together = max(1, GROUP_BYTES // max(1, 4 * self.images[0].numel() * max(map(len, parts), default=1)))
        for start in range(0, len(parts), together):
            group = parts[start : start + together]
            images, labels = self.take(torch.cat(list(group)))
            sizes = [len(part) for part in group]
            yield from zip(torch.split(images, sizes), torch.split(labels, sizes), strict=True)

    def in_order(self, size: int, first: int = 0, every: int = 1) -> Stream:
        """See `Batches`."""
        for start in range(first * size, len(self), every * size):
            images = self.images[start : start + size].clone()  # a model may modify its input in place
            yield self._shown(images), self.labels[start : start + size]

    def _shown(self, images: Tensor) -> Tensor:
        """Images (n, H, W, C) as the model receives them: (n, C, H, W) in its memory format."""
        values = images.permute(0, 3, 1, 2)
        if not self.ready:
            values = normalized(values, self.data, self.dtype)
        # With one channel, contiguous() takes channels-last strides for contiguous ones; a convolution does not.
        return values if self.channels_last else values.contiguous().view(-1).view(values.shape)


@dataclass(frozen=True, slots=True, eq=False)
class StoredBatches:
    """Batches of a data set on disk: read and decoded in background threads while the model works on earlier ones."""

    labels: Tensor
    data: Dataset
    channels_last: bool
    dtype: torch.dtype = torch.float32
    window: int | None = None

    def __len__(self) -> int:
        return len(self.data)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """See `Batches`."""
        pixels, read_indices = self.data.readable(indices.cpu().numpy())
        raw = torch.from_numpy(pixels).to(self.labels.device)
        values = normalized(raw, self.data, self.dtype)
        if self.channels_last:  # explicitly: with one channel, contiguous() would keep the strides
            rows = values.permute(0, 2, 3, 1)
            values = rows.reshape(-1).view(rows.shape).permute(0, 3, 1, 2)
        return values, self.labels[torch.from_numpy(read_indices).to(self.labels.device)]

    def taken(self, parts: Sequence[Tensor]) -> Stream:
        """See `Batches`."""
        return prefetch(self.take, parts)

    def in_order(self, size: int, first: int = 0, every: int = 1) -> Stream:
        """See `Batches`."""
        starts = range(first * size, len(self), every * size)
        return prefetch(self.take, (torch.arange(start, min(start + size, len(self))) for start in starts))


def normalized(values: Tensor, data: Dataset, dtype: torch.dtype) -> Tensor:
    """Raw values (n, C, H, W) normalized for the model: the arithmetic of `Preprocess.normalize`, on tensors."""
    preprocess = data.preprocess
    values = values.to(dtype)
    if preprocess.scale != 1:
        values = values / preprocess.scale
    if preprocess.plain:
        return values
    mean, std = (
        torch.tensor(v, dtype=dtype, device=values.device)[:, None, None] for v in (preprocess.mean, preprocess.std)
    )
    return (values - mean) / std


def as_batches(
    data: Dataset, device: torch.device, dtype: torch.dtype = torch.float32, *, channels_last: bool
) -> Batches:
    """Put a data set on the device, normalized once if it is small enough; a data set on disk stays there."""
    if isinstance(data.images, LazyImages):
        labels = torch.tensor(data.labels, device=device)
        return StoredBatches(labels, data, channels_last, dtype, data.images.window)
    images = torch.tensor(data.images.transpose(0, 2, 3, 1), device=device).contiguous()
    raw = HeldBatches(images, torch.tensor(data.labels, device=device), data, False, channels_last, dtype)
    if data.images.size * 4 > FLOAT_BYTES:
        return raw
    values = normalized(images.permute(0, 3, 1, 2), data, dtype).permute(0, 2, 3, 1).contiguous()
    return replace(raw, images=values, ready=True)


def shifted(images: Tensor, limit: int) -> Tensor:
    """The batch (N, C, H, W) shifted by up to `limit` pixels each way, drawn from PyTorch's random state."""
    down, right = torch.randint(-limit, limit + 1, (2,)).tolist()
    return torch.roll(images, (down, right), (2, 3))


def batch_count(images: int, size: int, *, join_last: bool = False) -> int:
    """Number of batches in an epoch.

    >>> batch_count(33, 32), batch_count(33, 32, join_last=True), batch_count(20, 32, join_last=True)
    (2, 1, 1)
    """
    full, remainder = divmod(images, size)
    return max(1, full) if join_last else full + (remainder > 0)


def batch_parts(order: Tensor, size: int, *, join_last: bool = False) -> tuple[Tensor, ...]:
    """An epoch's indices (N,) in batches; with `join_last`, an incomplete last batch joins the one before.

    >>> [len(part) for part in batch_parts(torch.arange(9), 4)]
    [4, 4, 1]
    >>> [len(part) for part in batch_parts(torch.arange(9), 4, join_last=True)]
    [4, 5]
    """
    parts = torch.split(order, size)
    if join_last and len(parts) > 1 and len(parts[-1]) < size:
        return (*parts[:-2], order[(len(parts) - 2) * size :])
    return parts


def epoch_order(length: int, draws: int | None, seed: int, epoch: int, window: int | None = None) -> Tensor:
    """The order of an epoch's images: a function of seed and epoch alone, so that a resumed training repeats it.

    >>> sorted(epoch_order(4, None, seed=0, epoch=1).tolist())
    [0, 1, 2, 3]
    >>> sorted(epoch_order(5, None, seed=0, epoch=1, window=2)[:2].tolist())
    [0, 1]
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % (1 << 63))
    if draws is not None:
        return torch.randint(length, (draws,), generator=generator)
    if window is not None:
        starts = range(0, length, window)
        return torch.cat([start + torch.randperm(min(window, length - start), generator=generator) for start in starts])
    return torch.randperm(length, generator=generator)


POOLS = (nn.MaxPool2d, nn.AvgPool2d)


@contextmanager
def trained_channels_last(model: nn.Module, data: Dataset, *, requested: bool) -> Iterator[bool]:
    """Train in channels_last memory format if requested and supported; yields whether it is active.

    PyTorch's CPU pooling is several times faster in this format (bench/training.py).
    """
    if not (requested and _convolves(model)):
        yield False
        return
    _lay_out(model, torch.channels_last)
    runs = _runs(model, data)
    if not runs:
        _lay_out(model, torch.contiguous_format)
    hooks = [m.register_forward_hook(_ask_channels_last) for m in model.modules() if runs and isinstance(m, POOLS)]
    try:
        yield runs
    finally:
        for hook in hooks:
            hook.remove()
        _lay_out(model, torch.contiguous_format)


def _convolves(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


def _runs(model: nn.Module, data: Dataset) -> bool:
    """Whether the model accepts two images in this format; a `view` in the model would fail."""
    first = data.first(2)
    sample_data = replace(data, images=first, labels=data.labels[: len(first)], names=())
    sample = as_batches(sample_data, torch.device("cpu"), channels_last=True).take(torch.arange(len(first)))[0]
    parameter = next(model.parameters())
    try:
        with torch.no_grad(), in_eval_mode(model):
            model(sample.to(parameter.dtype))
    except RuntimeError:
        return False
    return True


def _ask_channels_last(_module: nn.Module, _inputs: object, output: Tensor) -> None:
    """Give the gradient of a pooling result the result's memory format: else backward copies the whole map twice."""
    if output.requires_grad and output.dim() == 4:
        output.register_hook(_channels_last)  # type: ignore[no-untyped-call]  # torch ships this one without types


def _channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)


def _lay_out(model: nn.Module, layout: torch.memory_format) -> None:
    """Convert all four-dimensional weights to the memory format `layout`; their values do not change."""
    for weight in model.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=layout)
