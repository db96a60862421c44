"""What a training's numbers depend on besides its settings: versions, processor, threads. Written into config.json."""

import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import convscope


def environment() -> dict[str, Any]:
    """Versions, processor and thread count of this process."""
    return {
        "convscope": convscope.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def restore_threads(stored: Mapping[str, Any]) -> tuple[str, ...]:
    """Take the stored thread count; says what else differs, since then the resumed weights may differ in a last bit."""
    torch.set_num_threads(stored["threads"])
    here = environment()
    return tuple(
        f"resumed with {name} {here[name]}, begun with {stored[name]}: the last bits of the weights may differ."
        for name in ("torch", "processor")
        if here[name] != stored[name]
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
