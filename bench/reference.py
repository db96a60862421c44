"""The NumPy reference against the loop of the fourth tutorial and against PyTorch: `python bench/reference.py`."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from convscope.reference.functional import conv2d
from convscope.reference.table import OPERATIONS
from measure import header, in_turn, ratio, spread

Array = NDArray[np.float64]
Job = Callable[[], float | None]


def triple_loop(image: Array, kernels: Array) -> Array:
    """Kernels, rows, columns, and the sum of each window times the kernel: the convolution of the tutorial."""
    rows, columns = image.shape[0] - kernels.shape[1] + 1, image.shape[1] - kernels.shape[2] + 1
    out = np.zeros((len(kernels), rows, columns))
    for k in range(len(kernels)):
        for row in range(rows):
            for column in range(columns):
                window = image[row : row + kernels.shape[1], column : column + kernels.shape[2]]
                out[k, row, column] = np.sum(window * kernels[k])
    return out


def against_the_loop() -> None:
    header("NumPy convolution of a 256x256 image against the tutorial's triple loop, float64, one thread")
    rng = np.random.default_rng(0)
    for size in (2, 3, 5):
        image, kernel = rng.normal(size=(256, 256)), rng.normal(size=(1, size, size))
        assert np.allclose(triple_loop(image, kernel), conv2d(image[None], kernel[:, None]))
        loop, ours = partial(triple_loop, image, kernel), partial(conv2d, image[None], kernel[:, None])
        found = in_turn({"loop": timed(loop), "ours": timed(ours, 20)}, 30)
        print(
            f"{size}x{size}: loop {milliseconds(found['loop'])}, ours {milliseconds(found['ours'])}: "
            f"{ratio(found['loop'], found['ours'])} times"
        )


def against_pytorch() -> None:
    header("Layers of ResNet-18 recomputed in float64, and their bounds, against PyTorch's float32, one thread")
    rng = np.random.default_rng(0)
    compute, bound = OPERATIONS["convolution"].compute, OPERATIONS["convolution"].bound
    for channels, kernels, size, stride, side in ((3, 64, 7, 2, 224), (64, 64, 3, 1, 56), (512, 512, 3, 1, 7)):
        x, weight = rng.normal(size=(1, channels, side, side)), rng.normal(size=(kernels, channels, size, size))
        how = {"input": x, "weight": weight, "bias": None, "stride": [stride] * 2, "padding": [size // 2] * 2}
        single, weights = torch.from_numpy(x).float(), torch.from_numpy(weight).float()
        jobs: dict[str, Job] = {
            "compute": timed(partial(compute, **how), 3),
            "bound": timed(partial(bound, u=2.0**-24, result=compute(**how), **how), 3),  # type: ignore[arg-type]
            "PyTorch": timed(partial(F.conv2d, single, weights, None, stride, size // 2), 3),
        }
        found = in_turn(jobs, 30)
        each = ", ".join(f"{name} {milliseconds(values)}" for name, values in found.items())
        print(f"{channels} to {kernels} channels, {size}x{size}, stride {stride}, {side}x{side}: {each}")


def milliseconds(values: list[float]) -> str:
    """Median and range of seconds."""
    return spread([1e3 * value for value in values], 2, "ms")


def timed(job: Callable[[], object], repeats: int = 1) -> Callable[[], float]:
    """Seconds of one of `repeats` runs."""

    def run() -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            job()
        return (time.perf_counter() - start) / repeats

    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    against_the_loop()
    against_pytorch()
