"""One model of the sweep: built with random weights, traced and verified; prints one JSON object.

    python sweep_model.py NAME             one model: torchvision/resnet18, timm/resnet:resnet10t, zoo/ConvNeXt
    python sweep_model.py --list LIBRARY   the names of a library's models: zoo, torchvision or timm

`sweep.py` runs this once per model, so that nothing that a model does reaches the next.
"""

import contextlib
import json
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import convscope as cs
from convscope.errors import ConvscopeError
from proving import fused_transformers
from zoo import ZOO
from zoo_studies import STUDIED

SIDES = (64, 96, 128)
"""Image sizes that are tried before the one that a model names."""


def declare_operators() -> torch.library.Library:
    """Declare the two operators that a torchvision built for CUDA expects of a torch built without; keep the result."""
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    return library


def importable(library: str) -> Any:
    """Import torchvision or timm, with the two operators declared where the plain import needs them."""
    try:
        return __import__(library)
    except (RuntimeError, AttributeError):
        for name in [name for name in sys.modules if name.split(".")[0] in {"torchvision", "timm"}]:
            del sys.modules[name]
        KEPT.append(declare_operators())
        return __import__(library)


KEPT: list[torch.library.Library] = []
"""A declaration ends with its library object."""


def torchvision_names() -> list[str]:
    """The classification models of torchvision, the smallest first."""
    models = importable("torchvision").models
    enums = {name: models.get_model_weights(name) for name in models.list_models(module=models)}
    sizes = {name: min(weights.meta["num_params"] for weights in enum) for name, enum in enums.items()}
    return sorted(sizes, key=lambda name: (sizes[name], name))


def timm_names() -> list[str]:
    """The smallest model of each family of timm, as `family:model`, the smallest first."""
    timm = importable("timm")
    smallest = list[tuple[int, str]]()
    for family in timm.list_modules():
        sizes = [(parameters(name), name) for name in timm.list_models(module=family)]
        if sizes:
            count, name = min(sizes)
            smallest.append((count, f"{family}:{name}"))
    return [name for _, name in sorted(smallest)]


def parameters(name: str) -> int:
    """How many parameters a model of timm has, without memory for them where it can be built so."""
    timm = importable("timm")
    for device in ("meta", "cpu"):
        with contextlib.suppress(Exception), torch.device(device):  # some read numbers while they are built
            return sum(parameter.numel() for parameter in timm.create_model(name).parameters())
    return sys.maxsize


def build(name: str) -> tuple[nn.Module, Iterator[tuple[int, ...]]]:
    """A model with random weights, and the image shapes to try."""
    library, _, rest = name.partition("/")
    if library == "zoo":
        with contextlib.suppress(ImportError):  # transformers imports it where it is installed
            importable("torchvision")
        animal = {**ZOO, **STUDIED}[rest]
        return animal.build(), iter([animal.shape])
    if library == "torchvision":
        model = importable(library).models.get_model(rest, weights=None)
        return model, iter((3, side, side) for side in (*SIDES, 224, 299, 224 * 2))
    model = importable(library).create_model(rest.partition(":")[2], pretrained=False)
    own = tuple(model.pretrained_cfg["input_size"])
    return model, iter([*((own[0], side, side) for side in SIDES if side < own[1]), own])


def unsettle(model: nn.Module) -> None:
    """Move what starts constant (biases, scales, statistics) off 0 and 1, where errors would not show."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point() and parameter.numel() and parameter.min() == parameter.max():
                parameter.add_(0.1 * torch.randn(parameter.shape))
        for path, buffer in model.named_buffers():
            if path.endswith("running_mean"):
                buffer.add_(0.1 * torch.randn(buffer.shape))
            elif path.endswith("running_var"):
                buffer.mul_(0.5 + torch.rand(buffer.shape))


def accepted(model: nn.Module, shapes: Iterator[tuple[int, ...]], batched: Callable[..., Any]) -> tuple[Tensor, Any]:
    """The first image that the model takes, and its untraced output."""
    error: Exception | None = None
    for shape in shapes:
        image = batched(shape)
        try:
            with fused_transformers(False), torch.no_grad():  # as in a trace
                torch.manual_seed(1)
                return image, model(image.clone())
        except Exception as caught:  # any model raises its own
            error = caught
    assert error is not None
    raise error


def arrays(value: Any) -> list[Any]:
    """The arrays in what a model returned, in order."""
    if isinstance(value, Tensor):
        return [value.detach().numpy()]
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [array for part in value for array in arrays(part)]
    return []


def studied(name: str) -> dict[str, Any]:
    """What came of one model."""
    torch.manual_seed(0)
    try:
        model, shapes = build(name)
        model.eval()
        unsettle(model)
        image, plain = accepted(model, shapes, lambda shape: torch.randn(shape if shape[0] == 2 else (1, *shape)))
    except Exception as error:
        return {"outcome": "not built", "error": f"{type(error).__name__}: {error}"[:400]}
    record: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "image": list(image.shape),
    }
    try:
        start = time.perf_counter()
        torch.manual_seed(1)
        trace = cs.trace(model, image)
        record["trace_s"] = round(time.perf_counter() - start, 2)
        got, expected = arrays(trace.output), arrays(plain)
        record["same_bits"] = len(got) == len(expected) and all(map(np.array_equal, got, expected))
        start = time.perf_counter()
        report = cs.verify(trace)
        record["verify_s"] = round(time.perf_counter() - start, 2)
    except ConvscopeError as error:
        return record | {"outcome": "refused", "error": str(error)[:400]}
    except Exception as error:  # that is what is looked for
        where = traceback.extract_tb(error.__traceback__)[-1]
        line = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
        return record | {"outcome": "traceback", "error": line[-400:]}
    return record | described(report)


def described(report: Any) -> dict[str, Any]:
    """A report as a few plain values."""
    operations = {
        key: sorted({step.op for step in report.steps if step.finding == finding})
        for key, finding in (
            ("unsupported", "unsupported"),
            ("unexplained", "recomputed"),
            ("normwise", "proved normwise"),
        )
    }
    return {
        "outcome": "mismatch" if report.wrong else "proved" if report.proved else "partly proved",
        "steps": len(report.steps),
        "numbers": report.numbers,
        "proved": report.share,
        "recomputed": report.recomputed,
        "worst": None if report.worst is None else round(report.worst.worst, 4),
        **operations,
        "unresolved": [f"{step.name}: {step.op} {step.resolution:.2g}" for step in report.unresolved],
        "mismatches": [f"{step.name}: {step.op} {step.mismatch}" for step in report.mismatches],
        "reasons": list(report.reasons),
    }


LISTS: dict[str, Callable[[], list[str]]] = {
    "zoo": lambda: [*ZOO, *STUDIED],
    "torchvision": torchvision_names,
    "timm": timm_names,
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    given = sys.argv[1:]
    with contextlib.redirect_stdout(sys.stderr):  # models print
        if given[0] == "--list":
            answer: Any = [f"{given[1]}/{name}" for name in LISTS[given[1]]()]
        else:
            answer = studied(given[0])
    print(json.dumps(answer))
