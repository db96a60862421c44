"""Runtime: where a training computes, in which precision, and with how many processes.

One process is plain PyTorch. More (under torchrun) go through Lightning Fabric, imported only then.
"""

import contextlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from convscope.errors import TrainingError, UnknownName, UsageError
from convscope.training.objectives import Stepper, stepper_of
from convscope.training.processes import FABRIC, join, number_of, rank, world

PRECISIONS: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
"""`bfloat16` computes convolutions and matrix products in bfloat16 and keeps float32 weights (autocast)."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """One process of a training.

    >>> make_runtime("cpu").world
    1
    """

    device: torch.device
    precision: str = "float32"
    rank: int = 0
    world: int = 1
    fabric: Any = None

    @property
    def dtype(self) -> torch.dtype:
        """The type of weights and images; under autocast they stay float32."""
        return torch.float64 if self.precision == "float64" else torch.float32

    def setup(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Stepper]:
        """The model and its stepper; with several processes, wrapped for distributed training."""
        if self.fabric is None:
            return model, stepper_of(optimizer)
        joined, stepped = self.fabric.setup(model, optimizer)
        return joined, stepped

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context a forward pass runs in."""
        if self.precision == "bfloat16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def mine(self, batch: Tensor) -> Tensor:
        """This process' share of a batch of indices; a placeholder that does not count if the batch is too small."""
        return batch if self.world == 1 else batch[min(self.rank, len(batch) - 1) :: self.world]

    def count(self, batch: Tensor) -> int:
        """The number of indices in this process' share."""
        return len(range(self.rank, len(batch), self.world))

    def backward(self, loss: Tensor, share: float) -> None:
        """Add the gradients of a mean over a share of the batch, weighted by its size."""
        if self.fabric is not None:
            with warnings.catch_warnings():  # kernels of one channel have other strides channels last: it costs nothing
                warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
                self.fabric.backward(loss * (share * self.world))
        else:
            torch.autograd.backward(loss if share == 1 else loss * share)

    def notes(self, model: nn.Module) -> list[str]:
        """Differences between a training in several processes and one in a single process."""
        layers = [module for module in model.modules() if self.world > 1 and _normalizes_batches(module)]
        if not layers:
            return []
        return [
            f"{layers[0].__class__.__name__} sees only each process' share of a batch, so these weights differ from "
            "those of one process."
        ]

    def share_buffers(self, model: nn.Module) -> None:
        """Copy the first process' buffers, such as batch norm's running statistics, to every process."""
        if self.world > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)

    def meet(self) -> None:
        """Wait for all processes (a barrier)."""
        if self.fabric is not None:
            self.fabric.barrier()

    def total(self, sums: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.fabric is None:
            return sums
        summed: Tensor = self.fabric.all_reduce(sums, reduce_op="sum")
        return summed


def _normalizes_batches(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, nn.SyncBatchNorm)


def choose_device(name: str = "auto") -> torch.device:
    """The device by name; "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        UsageError: this machine or this build of PyTorch does not have the device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise UsageError(
            f"device {name!r} is not available; PyTorch {torch.__version__} finds {', '.join(_devices())}."
        ) from None
    return device


def _devices() -> list[str]:
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]


def make_runtime(device: str = "auto", precision: str = "float32") -> Runtime:
    """The runtime of this process: alone, or one of `WORLD_SIZE` that torchrun started.

    Raises:
        UnknownName: unknown precision.
        UsageError: the device is not available.
        TrainingError: several processes without Lightning Fabric installed.
    """
    if precision not in PRECISIONS:
        raise UnknownName("precision", precision, PRECISIONS)
    join()
    if world() == 1:
        return Runtime(choose_device(device), precision)
    try:
        from lightning_fabric import Fabric  # noqa: PLC0415  # 1.6 s of import that one process does not need
        from lightning_fabric.utilities.exceptions import MisconfigurationException  # noqa: PLC0415
    except ImportError:
        raise TrainingError(FABRIC) from None
    local_processes = number_of("LOCAL_WORLD_SIZE", 1, least=1)
    hosts = number_of("GROUP_WORLD_SIZE", 1, least=1)
    kind = choose_device(device).type
    try:
        fabric = Fabric(accelerator=kind, strategy="ddp", devices=local_processes, num_nodes=hosts)
    except MisconfigurationException as error:
        raise UsageError(f"{local_processes} processes cannot have a {kind} device each: {error}") from None
    fabric.launch()
    return Runtime(fabric.device, precision, rank(), world(), fabric)
