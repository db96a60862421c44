"""Install PyTorch, as its CPU build on a machine without an NVIDIA GPU: `python scripts/install_torch.py CPU_INDEX`.

The builds of PyTorch that pip installs by default on Linux bring CUDA, which needs about 4 GB more. If the CPU index
cannot be reached, pip installs what its own index has.
"""

import argparse
import platform
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
PATIENCE = 5.0
"""Seconds to wait for the index."""


def is_reachable(index: str) -> bool:
    """Whether the index answers in time."""
    try:
        with urlopen(f"{index.rstrip('/')}/torch/", timeout=PATIENCE):
            return True
    except (URLError, OSError, ValueError):
        return False


def wants_cpu_build(forced: bool) -> bool:
    """Whether the CPU build is right: on Linux, where pip's default has CUDA, without an NVIDIA GPU or if forced."""
    return platform.system() == "Linux" and (forced or shutil.which("nvidia-smi") is None)


def main() -> int:
    """Install PyTorch if it is missing; the exit status is pip's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", help="PyTorch's index of CPU builds")
    parser.add_argument("--cpu", action="store_true", help="the CPU build also on a machine with a GPU")
    options = parser.parse_args()
    if find_spec("torch") is not None:
        return 0
    command = [sys.executable, "-m", "pip", "install", "-c", str(CONSTRAINTS), "torch"]
    if not wants_cpu_build(options.cpu):
        print("Installing PyTorch with pip's default build; with CUDA about 5 GB on disk, some minutes.", flush=True)
    elif is_reachable(options.index):
        print("Installing PyTorch's CPU build: about 200 MB to download, 1.1 GB on disk, some minutes.", flush=True)
        command += ["--extra-index-url", options.index]  # its version, such as 2.13.0+cpu, is preferred to 2.13.0
    else:
        print(
            f"{options.index} cannot be reached, so pip's own index is used: PyTorch may come with CUDA, about 5 GB on "
            "disk, some minutes.",
            flush=True,
        )
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
