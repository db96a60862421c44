"""Scan: the one way through a data set: fixed batches, in one process or many, resumable, with the same answer.

Every process cuts the same batches and works on its share; the results of the batches are merged in the same order
everywhere. So one, two and three processes give identical answers, as long as each runs with the same number of
threads. Memory does not grow with the number of images.

A scan that may be continued appends the result of each batch to a file. The file holds records, each a length, a
checksum, and arrays as safetensors; a record that was cut short by a kill is ignored, and nothing is pickled.
"""

import json
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor, nn

from convscope.cards.card_inference import card_of
from convscope.data.dataset import Dataset
from convscope.data.lazy_images import LazyImages
from convscope.errors import ConvscopeError, DataError, ModelError
from convscope.files import make_folder, open_own, open_to_read, read_file, write_file
from convscope.json_values import parse_json
from convscope.probe.support.batching import batch_size, feeder, kind_of
from convscope.progress import Progress, silent
from convscope.training.batches import prefetch
from convscope.training.outputs import in_eval_mode
from convscope.training.processes import agree, gathered
from convscope.training.reproducibility import quick_digest, weights_digest
from convscope.training.runtime import Runtime, make_runtime
from convscope.training.threads import threads_of_pass
from convscope.typing import Array

Arrays = Mapping[str, Array]
_HEAD = struct.Struct("<qqI")  # the batch, the bytes that follow, their checksum
KEY = "scan.json"


class Partial:
    """The partial results of one scan in a folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     partial = Partial(Path(folder), {"probe": "dead"}, rank=0)
    ...     partial.append(3, {"sum": np.ones(2)})
    ...     again = Partial(Path(folder), {"probe": "dead"}, rank=0)
    ...     again.batches, again.read(3)["sum"].tolist()
    ({3}, [1.0, 1.0])
    """

    def __init__(self, folder: Path, key: Mapping[str, object], rank: int) -> None:
        """Open a folder, or make it.

        Args:
            key: What the scan is; a folder of another scan is refused.
            rank: Which process appends; each has a file of its own.

        Raises:
            DataError: the folder holds another scan, is damaged, or one of its files is a link.
        """
        self._folder = folder
        self._path = folder / f"part-{rank}.bin"
        self._places: dict[int, tuple[Path, int, int]] = {}
        identity = json.dumps(key, sort_keys=True)
        with self._refusing():
            make_folder(folder)
            if not (folder / KEY).exists() and rank == 0:
                write_file(folder / KEY, identity.encode())
            self._check(identity)
            for path in sorted(folder.glob("part-*.bin")):
                self._index(path, is_own=path == self._path)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Within it, what the system refuses is a sentence."""
        try:
            yield
        except OSError as error:
            path = error.filename or self._folder
            raise DataError(f"{path} cannot be used for partial results: {error.strerror or error}.") from None

    def _check(self, identity: str) -> None:
        path = self._folder / KEY
        text = read_file(path) if path.exists() else identity.encode()
        if text == identity.encode():
            return
        try:
            stored_key = parse_json(text)
        except ValueError as error:
            stored_key = str(error)
        if not isinstance(stored_key, dict):
            raise DataError(f"{path} is damaged, or not written by a scan; remove the folder, or name another one.")
        current_key = json.loads(identity)
        changed = [name for name in current_key if stored_key.get(name) != current_key[name]]
        raise DataError(
            f"{self._folder} holds the partial results of another scan (its {', '.join(changed) or 'key'} differ); "
            "name another folder, or remove it."
        )

    def _index(self, path: Path, *, is_own: bool) -> None:
        """Find the whole records of a file; what a kill left behind them is cut off by the file's own process."""
        end = 0
        with open_own(path) if is_own else open_to_read(path) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(0)
            while len(head := file.read(_HEAD.size)) == _HEAD.size:
                batch, length, checksum = _HEAD.unpack(head)
                body = file.read(length) if 0 <= length <= size - end - _HEAD.size else b""
                if batch < 0 or len(body) != length or zlib.crc32(body) != checksum:
                    break
                self._places[batch] = (path, end + _HEAD.size, length)
                end = file.tell()
            if is_own and size > end:
                file.truncate(end)

    @property
    def batches(self) -> set[int]:
        """The batches whose results are here."""
        return set(self._places)

    def read(self, batch: int) -> dict[str, Array]:
        """What a batch gave.

        Raises:
            DataError: its record is damaged.
        """
        path, start, length = self._places[batch]
        with self._refusing(), open_to_read(path) as file:
            file.seek(start)
            try:
                result: dict[str, Array] = load(file.read(length))
            except (SafetensorError, ValueError, KeyError, OverflowError):
                raise DataError(f"{path} is damaged; remove it, and its batches are computed again.") from None
            return result

    def append(self, batch: int, arrays: Arrays) -> None:
        """Write what a batch gave."""
        body = save({name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()})
        with self._refusing(), open_own(self._path) as file:
            start = file.seek(0, os.SEEK_END) + _HEAD.size
            file.write(_HEAD.pack(batch, len(body), zlib.crc32(body)) + body)
        self._places[batch] = (self._path, start, len(body))

    def remove(self) -> None:
        """The scan is done: take away this process' file, and the key."""
        self._path.unlink(missing_ok=True)
        for path in {path for path, _, _ in self._places.values()}:
            path.unlink(missing_ok=True)
        (self._folder / KEY).unlink(missing_ok=True)


BatchResult = dict[str, Array]
"""What a batch gave, and what batches gave together: arrays by name."""
READ = "images read"
"""How many images a result is of; among what batches gave."""
AHEAD = 8
"""How many batches a process works on before the processes exchange what they found."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some images of a data set, as the models take them."""

    number: int
    indices: NDArray[np.intp]
    """Indices of its images in the data set, shape (n,); those that cannot be read are left out."""
    images: Tensor = field(repr=False)
    """As the first model takes them, shape (n, C, H, W), on its device."""
    labels: Tensor = field(repr=False)
    """int64, shape (n,)."""
    others: tuple[Tensor, ...] = field(default=(), repr=False)
    """As the second, third, ... model takes them."""

    def __len__(self) -> int:
        return len(self.labels)


def scan(
    data: Dataset,
    models: Sequence[nn.Module],
    work: Callable[[Batch], BatchResult],
    merge: Callable[[BatchResult, BatchResult], BatchResult],
    *,
    what: str,
    settings: Mapping[str, object] | None = None,
    folder: str | Path | None = None,
    progress: Progress = silent,
) -> BatchResult:
    """Go through a data set once and merge what its batches gave, in order.

    >>> from convscope.data.catalog import load_dataset
    >>> def bright(batch: Batch) -> BatchResult:
    ...     return {"sum": batch.images.double().sum().numpy()}
    >>> def added(one: BatchResult, two: BatchResult) -> BatchResult:
    ...     return {"sum": one["sum"] + two["sum"]}
    >>> data = load_dataset("shapes", split="test")
    >>> int(scan(data, [nn.Flatten()], bright, added, what="adding")["sum"]) == int((data.images > 0).sum())
    True

    Args:
        data: The images.
        models: What `work` runs; meanwhile they evaluate, without gradients, on the device of this process.
        work: From a batch to arrays; the same whichever process calls it.
        merge: Two results as one: of the batches so far, and of the next.
        what: What progress calls it; part of the scan's identity.
        settings: What else distinguishes this scan from another one over the same data: settings of the probe.
        folder: Where partial results are kept, so that an interrupted scan goes on; emptied when it is done.
        progress: Receives how many images are done, after each batch of this process and each exchange.

    Returns:
        The merged result, the same in every process, and under `READ` how many images it is of.

    Raises:
        DataError: processes disagree on the data or the models, `folder` holds another scan, or no image can be read.
        ModelError: a model fails on a batch.
        ShapeError: a model cannot take these images.
    """
    runtime = make_runtime(str(kind_of(models[0])[0]))
    digests = {"data": quick_digest(data), "models": list(map(weights_digest, models))}
    key = {"scan": what, "settings": dict(settings or {}), **digests}
    agree("scan", lambda: key)
    partial = None if folder is None else Partial(Path(folder), key, runtime.rank)
    size = batch_size(data)
    starts = range(0, len(data), size)
    progress(what, 0, len(data))
    results: BatchResult | None = None
    alone = runtime.world == 1 and runtime.device.type == "cpu"
    with at_work(models, runtime), threads_of_pass(choose=alone) as threads:
        feeders = [feeder(data, model) for model in models]

        def worked(batch: Batch) -> BatchResult:
            result = threads.run(lambda: _worked(work, batch, models))
            progress(what, min(batch.number * size + size, len(data)), len(data))
            return result

        reader = _Reader(data, feeders, [kind_of(model)[1] for model in models], runtime.device, size)
        for first in range(0, len(starts), runtime.world * AHEAD):
            block = range(first, min(first + runtime.world * AHEAD, len(starts)))
            for result in _block(runtime, block, partial, reader, worked):
                if len(result) > 1:  # else none of its images could be read
                    results = result if results is None else _merged(merge, results, result)
            progress(what, min(block.stop * size, len(data)), len(data))
    runtime.meet()
    if partial is not None:
        partial.remove()
    if results is None:
        raise DataError(f"no image of {data.name}:{data.split} can be read.")
    return results


def _merged(
    merge: Callable[[BatchResult, BatchResult], BatchResult], first: BatchResult, second: BatchResult
) -> BatchResult:
    merged = merge(*({name: array for name, array in part.items() if name != READ} for part in (first, second)))
    return {**merged, READ: first[READ] + second[READ]}


@dataclass(frozen=True, slots=True, eq=False)
class _Reader:
    """Batches by number."""

    data: Dataset
    feeders: Sequence[Callable[[Array], Tensor]]
    dtypes: Sequence[torch.dtype]
    device: torch.device
    size: int

    def __call__(self, number: int) -> Batch:
        raw, indices = self.data.readable(slice(number * self.size, (number + 1) * self.size))
        fed = [
            (feed(raw) if len(raw) else torch.empty(0)).to(
                self.device, dtype if dtype.is_floating_point else torch.float32
            )
            for feed, dtype in zip(self.feeders, self.dtypes, strict=True)
        ]
        labels = torch.tensor(self.data.labels[indices], device=self.device)
        return Batch(number, indices, fed[0], labels, tuple(fed[1:]))

    def read(self, numbers: Iterable[int]) -> Iterator[Batch]:
        """The batches in order; stored ones are read and decoded ahead of their use."""
        return prefetch(self, numbers) if isinstance(self.data.images, LazyImages) else map(self, numbers)


def _worked(work: Callable[[Batch], BatchResult], batch: Batch, models: Sequence[nn.Module]) -> BatchResult:
    if not len(batch):
        return {READ: np.array(0)}
    try:
        return {**work(batch), READ: np.array(len(batch))}
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, ConvscopeError):
            raise
        names = ", ".join(card_of(model).name for model in models)
        shape = "x".join(map(str, batch.images.shape))
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{names} failed on images {batch.indices[0]} to {batch.indices[-1]} ({shape}): {reason}"
        ) from error


def _block(
    runtime: Runtime, block: range, partial: Partial | None, reader: _Reader, worked: Callable[[Batch], BatchResult]
) -> Iterator[BatchResult]:
    """The results of some batches, in order, each calculated or read by one process and sent to all."""
    local_batches = partial.batches & set(block) if partial is not None else set()
    holders = gathered(sorted(local_batches))
    holder_of = {number: rank for rank in reversed(range(runtime.world)) for number in holders[rank]}
    missing = [number for number in block if number not in holder_of]
    owners = holder_of | {number: i % runtime.world for i, number in enumerate(missing)}
    own_batches = [number for number in block if owners[number] == runtime.rank]
    results: dict[int, BatchResult] = {
        number: partial.read(number) for number in own_batches if partial is not None and number in local_batches
    }
    for batch in reader.read(number for number in own_batches if number not in local_batches):
        results[batch.number] = worked(batch)
        if partial is not None:
            partial.append(batch.number, results[batch.number])
    answers = gathered(results)
    for number in block:
        yield answers[owners[number]][number]


@contextmanager
def at_work(models: Sequence[nn.Module], runtime: Runtime) -> Iterator[None]:
    """Within it the models evaluate without gradients on this process' device; afterwards they are as they were."""
    places = [kind_of(model)[0] for model in models]
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for model in models:
            stack.enter_context(in_eval_mode(model.to(runtime.device)))
        try:
            yield
        finally:
            for model, position in zip(models, places, strict=True):
                model.to(position)
