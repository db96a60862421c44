"""Training, side by side with the loops people write: `python bench/training.py [section ...]`.

Sections: convnet (time to the tutorial's accuracy), speed (images/s and overhead), small (time to 99.0 and 99.3 %),
data (generating and reading), busy (one epoch beside a busy program, pinned to a core). MNIST is found
through CONVSCOPE_DATA.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data import Dataset as TorchDataset

import convscope as cs
from convscope.training.batches import epoch_order, trained_channels_last
from measure import header, in_turn, ratio, spread

Pair = tuple[Tensor, int]


class PilMnist(TorchDataset[Pair]):
    """MNIST as the tutorial reads it: image by image, through PIL."""

    def __init__(self, split: str) -> None:
        data = cs.load_dataset("mnist", split=split)
        self.images, self.labels = data.images[:, 0], data.labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Pair:
        picture = Image.fromarray(self.images[index])
        values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(1, 28, 28)
        return values.float().div(255), int(self.labels[index])


def tutorial_loop() -> tuple[float, float]:
    """The third tutorial's own training; its seconds and test accuracy."""
    start = time.perf_counter()
    torch.manual_seed(42)
    train = DataLoader(PilMnist("train"), batch_size=10, shuffle=True, num_workers=1)
    test = DataLoader(PilMnist("test"), batch_size=10, num_workers=1)
    model = cs.load_model("mnist-convnet", seed=42).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    for _ in range(5):
        for images, labels in train:
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(model(images), labels))
            optimizer.step()
    model.eval()
    with torch.no_grad():
        right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in test)
    return time.perf_counter() - start, right / 10_000


def train_here(model: str, **settings: Any) -> tuple[float, float]:
    """`cs.train` on MNIST, reading the data included; its seconds and test accuracy."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run = cs.train("mnist", model, out=Path(folder) / "run", **settings)
        return time.perf_counter() - start, run.metrics["test_accuracy"]


def convnet(repeats: int = 3) -> None:
    """Time to the tutorial's accuracy."""
    header("MNIST with mnist-convnet: time to the tutorial loop's test accuracy, reading the data included")
    accuracy: dict[str, list[float]] = {"the tutorial's loop": [], "cs.train, recipe fast": []}

    def job(name: str, run: Callable[[], tuple[float, float]]) -> Callable[[], float]:
        def timed() -> float:
            seconds, reached = run()
            accuracy[name].append(reached)
            return seconds

        return timed

    seeds = iter(range(repeats))
    here = job("cs.train, recipe fast", lambda: train_here("mnist-convnet", seed=next(seeds)))
    seconds = in_turn(
        {"the tutorial's loop": job("the tutorial's loop", tutorial_loop), "cs.train, recipe fast": here}, repeats
    )
    for name, values in seconds.items():
        print(f"- {name}: {spread(values)}, accuracy {', '.join(f'{a:.2%}' for a in accuracy[name])}")
    print(f"- times faster: {ratio(*seconds.values())}")


def equal_batches(model: nn.Module, steps: int, batch: int) -> float:
    """A plain loop over a TensorDataset in the order that convscope takes; its seconds."""
    data = cs.load_dataset("mnist")
    order = epoch_order(len(data), None, 0, 0)[: steps * batch].tolist()
    loader = DataLoader(TensorDataset(torch.from_numpy(data.scaled()), torch.tensor(data.labels)), batch, sampler=order)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    start = time.perf_counter()
    for images, labels in loader:
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(images), labels))
        optimizer.step()
    return time.perf_counter() - start


def loop_seconds(model: nn.Module, steps: int, batch: int) -> float:
    """The same steps by `cs.train`: the seconds its loop reports."""
    data = cs.load_dataset("mnist")
    order = epoch_order(len(data), None, 0, 0)[: steps * batch].numpy()
    part = cs.Dataset("mnist", data.images[order], data.labels[order], data.classes, data.preprocess)
    with tempfile.TemporaryDirectory() as folder:
        run = cs.train(
            part,
            model,
            out=Path(folder) / "run",
            epochs=1,
            batch_size=batch,
            optimizer="adam",
            lr=1e-3,
            schedule="constant",
        )
        return float(run.metrics["seconds"])


def bare_seconds(model: nn.Module, steps: int, batch: int) -> float:
    """Nothing but forward, backward and step on prepared batches, in the layout and with the optimizer of convscope."""
    images = torch.rand(batch, 28, 28, 1).permute(0, 3, 1, 2)
    labels = torch.arange(batch) % 10
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    with trained_channels_last(model, cs.load_dataset("mnist", split="test"), requested=True):
        start = time.perf_counter()
        for _ in range(steps):
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        return time.perf_counter() - start


def speed(repeats: int = 9, steps: int = 900, batch: int = 64) -> None:
    """Images per second and the loop's overhead."""
    header(f"simple-cnn, batch {batch}, {steps} steps: images/s")
    jobs = {
        "plain loop over a TensorDataset": lambda: equal_batches(cs.load_model("simple-cnn").train(), steps, batch),
        "cs.train": lambda: loop_seconds(cs.load_model("simple-cnn"), steps, batch),
        "bare forward, backward, step": lambda: bare_seconds(cs.load_model("simple-cnn").train(), steps, batch),
    }
    seconds = in_turn(jobs, repeats)
    for name, values in seconds.items():
        print(f"- {name}: {spread([steps * batch / value for value in values], 0, 'images/s')}")
    plain, here, bare = seconds.values()
    print(f"- cs.train is faster than the plain loop by {ratio(plain, here)}")
    print(f"- cs.train takes {ratio(here, bare)} times the bare steps")


def small(seeds: int = 5) -> None:
    """Time to 99.0 and 99.3 %."""
    header("mnist-small: time to a test accuracy on MNIST, reading the data included")
    for goal, settings in GOALS.items():
        results = [train_here("mnist-small", seed=seed, **settings) for seed in range(seeds)]
        reached = [accuracy for _, accuracy in results]
        print(f"- {goal:.1%} with {settings}: {spread([seconds for seconds, _ in results])}")
        print(f"  accuracies {', '.join(f'{accuracy:.2%}' for accuracy in sorted(reached))}")


GOALS: dict[float, dict[str, Any]] = {0.99: {"epochs": 1}, 0.993: {}}


@contextmanager
def busy(core: int) -> Iterator[None]:
    """Within it another program keeps one core busy."""
    code = f"import os\nos.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as other:
        try:
            yield
        finally:
            other.kill()


def beside(repeats: int = 5, models: Sequence[str] = ("mnist-convnet", "mnist-small", "simple-cnn", "mlp-512")) -> None:
    """An epoch of MNIST, quiet and beside a busy program, with fixed numbers of threads and with the choice."""
    header("Training beside a busy program")

    def epoch(model: str, threads: int | None, *, quiet: bool) -> float:
        with nullcontext() if quiet else busy(core=1), tempfile.TemporaryDirectory() as folder:
            run = cs.train("mnist", model, epochs=1, threads=threads, out=Path(folder) / "run", watch=lambda _: None)
            return float(run.metrics["seconds"])

    for model in models:
        jobs = {
            f"{threads or 'chosen'} threads, {'quiet' if quiet else 'busy'}": partial(
                epoch, model, threads, quiet=quiet
            )
            for threads in (None, torch.get_num_threads(), 1)
            for quiet in (True, False)
        }
        for name, seconds in in_turn(jobs, repeats).items():
            print(f"- {model}, {name}: {spread(seconds)}")


def data(repeats: int = 9) -> None:
    """Generating and reading."""
    header("Data")
    jobs = {
        "10,000 shapes generated": lambda: bool(cs.load_dataset("shapes", size=10_000)) and None,
        "MNIST read (60,000 training images, gzip)": lambda: bool(cs.load_dataset("mnist")) and None,
    }
    for name, values in in_turn(jobs, repeats).items():
        print(f"- {name}: {spread(values, 3)}")


if __name__ == "__main__":
    sections = {"data": data, "speed": speed, "small": small, "convnet": convnet, "busy": beside}
    for section in sys.argv[1:] or sections:
        sections[section]()
