"""Tracing against the bare forward pass, plain forward hooks and TorchLens, all in turn: `python bench/trace.py`.

TorchLens is measured where it is installed (`pip install torchlens`).
"""
# ruff: noqa: A005 - the benchmark of tracing is called so; nothing here imports Python's own `trace`

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

import convscope as cs
from measure import header, ratio, spread


def resnet50() -> tuple[nn.Module, Tensor]:
    from transformers import ResNetConfig, ResNetForImageClassification

    return ResNetForImageClassification(ResNetConfig()).eval(), torch.randn(1, 3, 224, 224)


def simple_cnn() -> tuple[nn.Module, Tensor]:
    return cs.load_model("simple-cnn").eval(), torch.randn(1, 1, 28, 28)


def bare(model: nn.Module, image: Tensor) -> Any:
    with torch.no_grad():
        return model(image)


def hooks(model: nn.Module, image: Tensor) -> list[Any]:
    """What people write by hand: every module's output, as the module returned it."""
    kept: list[Any] = []
    handles = [module.register_forward_hook(lambda *given: kept.append(given[2])) for module in model.modules()]
    with torch.no_grad():
        model(image)
    for handle in handles:
        handle.remove()
    return kept


def torchlens(model: nn.Module, image: Tensor) -> Any:
    import torchlens

    with torch.no_grad():
        return torchlens.trace(model, image)  # every layer's output is saved unless told otherwise


def seconds_of(work: Callable[[], Any]) -> float:
    """One run; what it made is freed inside."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(
    one: Callable[[], Any], other: Callable[[], Any], pairs: int, times: int
) -> tuple[list[float], list[float]]:
    """Run two in turn, `pairs * times` times; each figure is the median of `times` runs where one is too short."""
    found: tuple[list[float], list[float]] = [], []
    for _ in range(pairs):
        turns = [(seconds_of(one), seconds_of(other)) for _ in range(times)]
        for figures, seconds in zip(found, zip(*turns, strict=True), strict=True):
            figures.append(statistics.median(seconds))
    return found


def compare(title: str, made: tuple[nn.Module, Tensor], pairs: int, times: int, unit: tuple[str, float]) -> None:
    header(title)
    tools: dict[str, tuple[Callable[..., Any], int, int]] = {
        "convscope": (cs.trace, pairs, times),
        "forward hooks": (hooks, pairs, times),
    }
    if find_spec("torchlens"):
        tools["TorchLens"] = (torchlens, max(3, pairs // 6), 1)
    else:
        print("TorchLens is not installed and was left out.\n")
    print("| | time | the bare forward beside it | times the bare forward |\n|---|---|---|---|")
    for name, (tool, count, each) in tools.items():
        alternate(partial(bare, *made), partial(tool, *made), 1, 1)
        without, values = alternate(partial(bare, *made), partial(tool, *made), count, each)
        print(f"| {name} | {shown(values, unit)} | {shown(without, unit)} | {ratio(values, without)} |", flush=True)


def shown(values: list[float], unit: tuple[str, float]) -> str:
    return spread([value * unit[1] for value in values], 1, unit[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    pairs = parser.parse_args().pairs
    torch.manual_seed(0)
    compare("Tracing ResNet-50 at 224x224, every result kept", resnet50(), pairs, 1, ("ms", 1e3))
    compare("Tracing simple-cnn at 28x28, every result kept", simple_cnn(), pairs, 50, ("us", 1e6))


if __name__ == "__main__":
    main()
