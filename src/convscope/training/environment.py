"""Environment: what results depend on besides the settings (versions, processor, threads), for config.json."""

import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import convscope
from convscope.training.rendezvous import launch_id
from convscope.training.runtime import Runtime

SMALL = 5_000
"""Models up to this many parameters train as fast on one thread, and are less disturbed by other programs."""


def environment(parameters: int, runtime: Runtime) -> dict[str, Any]:
    """Versions, processor, device, processes, and how many threads to train a model of `parameters` parameters with."""
    return {
        "convscope": convscope.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "processor": _processor(),
        "device": str(runtime.device),
        "processes": runtime.world,
        "launch": launch_id(),
        "threads": 1 if parameters <= SMALL else torch.get_num_threads(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def differences(stored: Mapping[str, Any], here: Mapping[str, Any]) -> tuple[str, ...]:
    """Notes on what has changed since a training began, so that resumed weights may differ in the last bit."""
    return tuple(
        f"resumed with {name} {here[name]}, started with {stored[name]}: the last bits of the weights may differ."
        for name in ("torch", "numpy", "processor", "device", "processes")
        if name in stored and here[name] != stored[name]
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
