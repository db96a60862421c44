"""What a training's numbers depend on besides its settings: versions, processor, threads. Written into config.json."""

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
"""Up to so many parameters one thread is as fast as several, and is not held up by whatever else the machine does."""


def environment(parameters: int, runtime: Runtime) -> dict[str, Any]:
    """Versions, processor, device, processes, and the threads to train a model of so many parameters with."""
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
    """What is not as it was when a training began, so that resumed weights may differ in a last bit."""
    return tuple(
        f"resumed with {name} {here[name]}, begun with {stored[name]}: the last bits of the weights may differ."
        for name in ("torch", "numpy", "processor", "device", "processes")
        if name in stored and here[name] != stored[name]
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
