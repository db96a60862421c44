"""Random state: a training has its own for PyTorch, NumPy and Python, so it is reproducible and has no side effects."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


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
