"""Verifying every number against the bare forward pass, in turn, and the memory it takes: `python bench/verify.py`.

With `--before PATH` the sources of another state (a folder with a `convscope` in it) verify in turn with these. On a
busy machine `--processor` with `OMP_NUM_THREADS=1` counts the time of the processor, which neighbours change less.
"""

import argparse
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import torch
from torch import Tensor, nn

import convscope as cs
from measure import header, in_turn, ratio, spread

MEGABYTE = 1_000_000
Built = tuple[nn.Module, Tensor]


def resnet18() -> Built:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic")
    return ResNetForImageClassification(config), torch.rand(1, 3, 224, 224)


def resnet50() -> Built:
    from transformers import ResNetConfig, ResNetForImageClassification

    return ResNetForImageClassification(ResNetConfig()), torch.rand(1, 3, 224, 224)


def efficientnet_b0() -> Built:
    from transformers import EfficientNetConfig, EfficientNetForImageClassification

    config = EfficientNetConfig(image_size=224, width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280)
    return EfficientNetForImageClassification(config), torch.rand(1, 3, 224, 224)


def vit_b() -> Built:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(num_labels=1000)), torch.rand(1, 3, 224, 224)


def tutorial(model: str, dataset: str) -> Callable[[], Built]:
    """A network of the tutorials with an image of its data set."""

    def build() -> Built:
        network = cs.load_model(model)
        return network, torch.tensor(cs.load_image(dataset, like=network))[None]

    return build


NETWORKS: dict[str, Callable[[], Built]] = {
    "ResNet-18": resnet18,
    "ResNet-50": resnet50,
    "EfficientNet-B0": efficientnet_b0,
    "ViT-B": vit_b,
    "crosses": tutorial("crosses", "crosses:train/0"),
    "shapes-cnn": tutorial("shapes-cnn", "shapes:train/0"),
    "mnist-convnet": tutorial("mnist-convnet", "mnist:test/0"),
}


def built(name: str) -> Built:
    torch.manual_seed(0)
    model, image = NETWORKS[name]()
    return model.eval(), image


Clock = Callable[[], float]


def timed(job: Callable[[], object], clock: Clock) -> float:
    start = clock()
    job()
    return clock() - start


def speed(name: str, repeats: int, before: Path | None, clock: Clock) -> None:
    """Verify and the bare forward in turn; with `before`, the other state too, in a process of its own."""
    model, image = built(name)
    trace = cs.trace(model, image)
    report = cs.verify(trace)
    with torch.no_grad():
        model(image)

    @torch.no_grad()
    def bare() -> float:
        return timed(lambda: model(image), clock)

    jobs: dict[str, Callable[[], float | None]] = {
        "bare forward": bare,
        "verify": lambda: timed(lambda: cs.verify(trace), clock),
    }
    worker = None if before is None else _Other(name, before, clock)
    if worker is not None:
        jobs["verify, before"] = worker.seconds
    seconds = in_turn(jobs, repeats)
    count = sum(step.numbers for step in report.steps)
    print(f"\n{name}: {count:,} numbers in {len(report.steps)} steps, {', '.join(sorted(_findings(report)))}\n")
    for job, taken in seconds.items():
        times = "" if job == "bare forward" else f", {ratio(taken, seconds['bare forward'])} times the bare forward"
        print(f"- {job}: {spread(taken, 3)}{times}")
    if worker is not None:
        print(f"- before over now: {ratio(seconds['verify, before'], seconds['verify'])}")
        worker.end()


def _findings(report: cs.Verification) -> set[str]:
    return {step.finding for step in report.steps}


class _Other:
    """Another state of convscope, which verifies when a line arrives and answers with the seconds it took."""

    def __init__(self, name: str, source: Path, clock: Clock) -> None:
        environment = {**os.environ, "PYTHONPATH": f"{source.resolve()}{os.pathsep}{Path(__file__).parent}"}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", name, *(["--processor"] if clock is time.process_time else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._answer()

    def _answer(self) -> str:
        return _open(self._process.stdout).readline().strip()

    def seconds(self) -> float:
        """How long it takes to verify."""
        _open(self._process.stdin).write("verify\n")
        _open(self._process.stdin).flush()
        return float(self._answer())

    def end(self) -> None:
        """Let the process end."""
        _open(self._process.stdin).close()
        self._process.wait()


def _open(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def serve(name: str, clock: Clock) -> None:
    """Answer each line with the seconds that verifying takes."""
    trace = cs.trace(*built(name))
    cs.verify(trace)
    print("ready", flush=True)
    for _ in sys.stdin:
        print(timed(lambda: cs.verify(trace), clock), flush=True)


def resident() -> int:
    """Bytes of this process that are in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def memory(name: str) -> None:
    """What verify adds to the process, at its peak."""
    model, image = built(name)
    trace = cs.trace(model, image)
    cs.verify(cs.trace(nn.Conv2d(1, 1, 3), torch.rand(1, 1, 5, 5)))  # what is loaded once
    largest = max(sum(math.prod(r.shape) * 4 for r in step.results) for step in trace.all_steps)
    before = resident()
    seen, done = [before], threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            seen.append(resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    cs.verify(trace)
    done.set()
    watcher.join()
    allowed = 256 * MEGABYTE + 3 * largest
    print(
        f"- memory: {(max(seen) - before) / MEGABYTE:.0f} MB on top of the trace at its peak; the largest step has "
        f"{largest / MEGABYTE:.1f} MB, so at most {allowed / MEGABYTE:.0f} MB are allowed",
        flush=True,
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("networks", nargs="*", help=f"some of {', '.join(NETWORKS)}; all of them by default")
    options.add_argument("--repeats", type=int, default=10)
    options.add_argument("--before", type=Path, help="the sources of another state, which verifies in turn")
    options.add_argument("--processor", action="store_true", help="count the time of the processor, not of the wall")
    options.add_argument("--memory", metavar="NETWORK", help="only the memory, in this process")
    options.add_argument("--serve", metavar="NETWORK", help=argparse.SUPPRESS)
    given = options.parse_args()
    clock = time.process_time if given.processor else time.perf_counter
    if given.serve:
        serve(given.serve, clock)
    elif given.memory:
        memory(given.memory)
    else:
        header("Verify every number")
        for name in given.networks or NETWORKS:
            speed(name, given.repeats, given.before, clock)
            subprocess.run([sys.executable, __file__, "--memory", name], check=True)


if __name__ == "__main__":
    main()
