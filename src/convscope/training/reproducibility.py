"""Reproducibility: digests of data and weights, random state, and the environment that results depend on."""

import hashlib
import platform
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import convscope
from convscope.data.dataset import Dataset
from convscope.data.lazy_images import LazyImages
from convscope.models.run_config import EnvironmentPart
from convscope.training.processes import launch_id
from convscope.training.runtime import Runtime

SAMPLE = 256


def whole_digest(data: Dataset) -> str:
    """SHA-256 of images, labels, classes and scaling; for images on disk, the quick digest.

    >>> data = Dataset("one", np.zeros((1, 1, 2, 2), np.uint8), np.array([0]), ("black",))
    >>> whole_digest(data) == whole_digest(data.part(slice(0, 1)))
    True
    """
    if isinstance(data.images, LazyImages):
        return quick_digest(data)
    summed = hashlib.sha256(np.ascontiguousarray(data.images).data)
    summed.update(data.labels.data)
    summed.update(repr((data.images.shape, str(data.images.dtype), data.classes, data.preprocess)).encode())
    return summed.hexdigest()


def quick_digest(data: Dataset) -> str:
    """SHA-256 of size, labels, classes, scaling, and up to 256 images spread over a data set.

    >>> data = Dataset("one", np.zeros((1, 1, 2, 2), np.uint8), np.array([0]), ("black",))
    >>> quick_digest(data) == quick_digest(data.part(slice(0, 1)))
    True
    """
    digest = hashlib.sha256(f"{data.images.shape} {data.images.dtype} {data.classes} {data.preprocess}".encode())
    digest.update(data.labels.tobytes())
    spread = range(0, len(data), max(1, len(data) // SAMPLE))
    for index in data.images.marks() if isinstance(data.images, LazyImages) else spread:
        digest.update(np.ascontiguousarray(data.readable([index])[0]).tobytes())
    return digest.hexdigest()


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of a model's class, parameters and buffers.

    >>> weights_digest(nn.Conv2d(1, 1, 3)) == weights_digest(nn.Conv2d(1, 1, 3))
    False
    """
    digest = hashlib.sha256(type(model).__qualname__.encode())
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor):  # extra state of a module
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def own_random_state(seed: int) -> Iterator[None]:
    """Within it all random numbers follow from `seed`; the caller's state and thread count are restored afterwards."""
    threads = torch.get_num_threads()
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002  # models may draw from it
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        torch.set_num_threads(threads)


def random_state() -> dict[str, Any]:
    """All random state as tensors and plain values, which `torch.load(weights_only=True)` reads."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    name, keys, *position = np.random.get_state()  # noqa: NPY002
    legacy = (str(name), [int(key) for key in keys], *(float(value) for value in position))
    return {"cpu": torch.get_rng_state(), "cuda": cuda, "python": random.getstate(), "numpy": legacy}


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Restore a state from `random_state`; a snapshot of an earlier version may hold only PyTorch's."""
    torch.set_rng_state(state["cpu"])
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for device, saved in zip(range(devices), state["cuda"], strict=False):  # the number of devices may have changed
        torch.cuda.set_rng_state(saved, device)
    if "python" in state:
        random.setstate(state["python"])
        name, keys, position, has_gauss, gauss = state["numpy"]
        np.random.set_state((name, np.array(keys, np.uint32), int(position), int(has_gauss), gauss))  # noqa: NPY002


SMALL = 5_000
"""Models up to this many parameters train as fast on one thread, and are less disturbed by other programs."""


def environment(threads: int, runtime: Runtime) -> EnvironmentPart:
    """Versions, processor, device, processes, and the number of threads with which a training starts."""
    return {
        "convscope": convscope.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "processor": _processor(),
        "device": str(runtime.device),
        "processes": runtime.world,
        "launch": launch_id(),
        "threads": threads,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def differences(stored: Mapping[str, object], current: Mapping[str, object]) -> tuple[str, ...]:
    """Notes on what has changed since a training began, so that resumed weights may differ in the last bit."""
    return tuple(
        f"resumed with {name} {current[name]}, started with {stored[name]}: the last bits of the weights may differ."
        for name in ("torch", "numpy", "processor", "device", "processes")
        if name in stored and current[name] != stored[name]
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
