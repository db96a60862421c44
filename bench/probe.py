"""Probes, side by side with what people write instead: `python bench/probe.py [section ...]`.

Sections: scan (a pass over 60,000 images against a bare loop), patches (of all channels, time and memory), shift
(21x21 translations of 10,000 images). MNIST is found through CONVSCOPE_DATA.
"""

import resource
import sys
import time
from functools import partial

import numpy as np
import torch

import convscope as cs
from convscope.probe.support.batching import batch_size
from convscope.probe.support.scan import scan as scanned
from measure import header, in_turn, ratio, spread


def scan(repeats: int = 7) -> None:
    """A scan's throughput against a bare batched loop that prepares and answers the same batches."""
    header("a scan: simple-cnn, 60,000 training images of MNIST, its outputs added up")
    data, model = cs.load_dataset("mnist", split="train"), cs.load_model("simple-cnn").eval()
    size = batch_size(data)

    def bare() -> float:
        start, total = time.perf_counter(), np.zeros(10)
        with torch.no_grad():
            for first in range(0, len(data), size):
                images = torch.from_numpy(data.scaled(slice(first, first + size)))
                total = total + model(images).double().sum(0).numpy()
        return time.perf_counter() - start

    def here() -> float:
        start = time.perf_counter()
        scanned(
            data,
            [model],
            lambda batch: {"sum": model(batch.images).double().sum(0).numpy()},
            lambda one, two: {"sum": one["sum"] + two["sum"]},
            what="adding",
        )
        return time.perf_counter() - start

    seconds = in_turn({"bare loop": bare, "scan": here}, repeats)
    for name, values in seconds.items():
        print(f"- {name}: {spread(values, 2)}")
    print(f"- throughput of the loop that the scan reaches: {ratio(*seconds.values())}")


def patches(repeats: int = 3) -> None:
    """Patches of every channel of every step with maps, over 60,000 images."""
    header("cs.probe.patches: simple-cnn, 60,000 training images of MNIST")
    data, model = cs.load_dataset("mnist", split="train"), cs.load_model("simple-cnn")
    steps = ("conv1", "relu1", "pool", "fc1")

    def one(step: str) -> float:
        start = time.perf_counter()
        cs.probe.patches(model, data, step)
        return time.perf_counter() - start

    seconds = in_turn({step: partial(one, step) for step in steps}, repeats)
    for name, values in seconds.items():
        print(f"- all channels of {name}: {spread(values, 1)}")
    print(f"- most memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def naive_shift(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, batch: int) -> list[int]:
    """A plain loop: move all images, run the model on them in batches, count."""
    right = []
    with torch.no_grad():
        for down in range(-10, 11):
            for across in range(-10, 11):
                moved = torch.zeros_like(images)
                rows = slice(max(0, down), 28 + min(0, down)), slice(max(0, -down), 28 - max(0, down))
                columns = slice(max(0, across), 28 + min(0, across)), slice(max(0, -across), 28 - max(0, across))
                moved[:, :, rows[0], columns[0]] = images[:, :, rows[1], columns[1]]
                parts = zip(torch.split(moved, batch), torch.split(labels, batch), strict=True)
                right.append(sum(int((model(part).argmax(1) == wanted).sum()) for part, wanted in parts))
    return right


def shift(repeats: int = 3) -> None:
    """Shift over 21x21 translations of 10,000 images."""
    header("cs.probe.shift: simple-cnn, 441 translations of the 10,000 test images of MNIST")
    data = cs.load_dataset("mnist", split="test")
    images, labels = torch.from_numpy(data.scaled()), torch.tensor(data.labels)
    model = cs.load_model("simple-cnn")
    counts: dict[str, list[int]] = {}

    def naive(batch: int) -> float:
        start = time.perf_counter()
        counts["naive"] = naive_shift(model, images, labels, batch)
        return time.perf_counter() - start

    def here() -> float:
        start = time.perf_counter()
        counts["here"] = cs.probe.shift(model, data).models[0].right.tolist()
        return time.perf_counter() - start

    seconds = in_turn({"plain loop, batches of 100": lambda: naive(100), "cs.probe.shift": here}, repeats)
    for name, values in seconds.items():
        print(f"- {name}: {spread(values, 1)}")
    print(f"- times faster: {ratio(*seconds.values())}")
    apart = [abs(one - other) for one, other in zip(counts["naive"], counts["here"], strict=True)]
    print(
        f"- translations of 441 whose counts of right answers differ: {sum(map(bool, apart))}, by {max(apart)} at most"
    )


if __name__ == "__main__":
    sections = {"scan": scan, "patches": patches, "shift": shift}
    for section in sys.argv[1:] or sections:
        sections[section]()
