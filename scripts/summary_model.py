"""Models of the study of `summary`: built with random weights, summarized, compared; prints one JSON object for each.

    python summary_model.py [--gigabytes 8] NAME...    torchvision/resnet18, timm/resnet:resnet10t, zoo/ConvNeXt

`summary_study.py` runs this. The counts to compare with are PyTorch's: `numel()` and FlopCounterMode, which counts two
operations per multiply-add. It knows no fused attention of the CPU, so its pass computes attention as matrix products.
"""

import argparse
import contextlib
import json
import resource
import sys
import time
import warnings
from typing import Any

import torch
from sweep_model import accepted, build
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import convscope as cs
from convscope.errors import ConvscopeError

UNCOUNTED = ("mkldnn_rnn_layer", "mv", "dot", "addmv")
"""Operations whose multiply-adds FlopCounterMode does not count."""


def studied(name: str) -> dict[str, Any]:
    """What came of one model."""
    torch.manual_seed(0)
    try:
        model, shapes = build(name)
        model.eval().requires_grad_(False)  # FlopCounterMode follows modules by hooks that want a graph or none
        image, _ = accepted(model, shapes, lambda shape: torch.randn(1, *shape))
    except MemoryError:
        return {"model": name, "outcome": "out of memory"}
    except Exception as error:
        return {"model": name, "outcome": "not built", "error": described(error)}
    try:
        return {"model": name, **summarized(model, image)}
    except ConvscopeError as error:
        return {"model": name, "outcome": "refused", "error": str(error)[:300]}
    except MemoryError:
        return {"model": name, "outcome": "out of memory"}
    except Exception as error:  # that is what is looked for
        return {"model": name, "outcome": "failed", "error": described(error)}


def described(error: Exception) -> str:
    """An exception in a line."""
    return f"{type(error).__name__}: {error}"[:300]


def summarized(model: nn.Module, image: torch.Tensor) -> dict[str, Any]:
    """A summary's counts beside PyTorch's."""
    start = time.perf_counter()
    result = cs.summary(model, tuple(image.shape[1:]))
    seconds = round(time.perf_counter() - start, 2)
    if result.failure is not None:
        return {"outcome": "refused", "error": result.failure.error[:300]}
    differences = compared(model, result, operations(model, image))
    return {
        "outcome": "unequal" if differences else "equal",
        "error": "; ".join(differences)[:300],
        "image": list(image.shape[1:]),
        "seconds": seconds,
        "parameters": result.parameters,
        "multiply_adds": result.multiply_adds,
        "layers": len(result.layers),
        "sizes": sum(len(layer.size) for layer in result.layers),
        "fields": sum(layer.field is not None for layer in result.layers),
        "unread": sum(result.unread.values()),
    }


def operations(model: nn.Module, image: torch.Tensor) -> int:
    """Multiplications and additions of a pass, as PyTorch counts them; transformer layers are not fused."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return int(counter.get_total_flops())


def compared(model: nn.Module, result: cs.Summary, counted: int) -> list[str]:
    """Where a summary differs from PyTorch's own counts."""
    numel = sum(parameter.numel() for parameter in model.parameters())
    by_layer = sum(layer.parameters.value for layer in result.layers) + sum(result.unread.values())
    own = 2 * sum(layer.multiply_adds.value for layer in result.layers if layer.op not in UNCOUNTED)
    return [
        *([f"{result.parameters:,} parameters, numel {numel:,}"] if result.parameters != numel else []),
        *([f"{by_layer:,} parameters in layers, numel {numel:,}"] if by_layer != numel else []),
        *([f"{own:,} operations, FlopCounterMode {counted:,}"] if own != counted else []),
        *(f"{layer.name}: {layer.size} for {layer.shape}" for layer in result.layers if not layer.consistent),
    ]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="+")
    parser.add_argument("--gigabytes", type=float, default=8)
    options = parser.parse_args()
    limit = int(options.gigabytes * 10**9)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    torch.set_num_threads(1)
    for asked in options.names:
        with contextlib.redirect_stdout(sys.stderr):  # models print
            record = studied(asked)
        print(json.dumps(record), flush=True)
