"""NumPy archives for tests: writing one, and loading it as a data set."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from convscope.data.catalog import load_dataset
from convscope.data.dataset import Dataset
from convscope.typing import Array

IMAGES = np.arange(10 * 4 * 5, dtype=np.uint8).reshape(10, 4, 5)
LABELS = np.array([0, 1] * 5)


def write(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "own.npz", **arrays)
    return folder / "own.npz"


def load(path: Path, split: str = "all", seed: int = 0) -> Dataset:
    return load_dataset(f"npz:{path}", split=split, seed=seed)


def raw(descr: str = "'|u1'", shape: str = "(10, 4, 5)", content: bytes = bytes(200)) -> bytes:
    """An array whose header says what it likes."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode("latin-1")
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


def hostile(folder: Path, images: bytes, labels: Array | None = None, **more: Any) -> Path:
    """An archive with such an array of images."""
    path = folder / "hostile.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("images.npy", images)
        for name, array in {"labels": LABELS if labels is None else labels, **more}.items():
            content = io.BytesIO()
            np.save(content, array)
            file.writestr(f"{name}.npy", content.getvalue())
    return path
