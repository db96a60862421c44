"""Data sets by their name on the Hub: the real client library against a small Hub on loopback."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hub_server import NAME, Hub, hub_of
from launching import environment, run

datasets = pytest.importorskip("datasets", reason="hub: data need Hugging Face datasets")

COUNTS = {"train": 60, "test": 20}
ASK = """
import json, sys
import convscope as cs
found = {}
for place in sys.argv[1:]:
    try:
        parts = {split: cs.load_dataset(place, split=split) for split in ("train", "test")}
    except cs.ConvscopeError as error:
        found[place] = str(error)
        continue
    found[place] = {
        split: {"labels": part.labels.tolist(), "sums": [int(part.images[k].sum()) for k in range(len(part))]}
        for split, part in parts.items()
    }
print(json.dumps(found))
"""
"""Opens places, and says what images and labels they have, or the error."""


def pictures(split: str) -> tuple[NDArray[np.uint8], list[int]]:
    """Noise, (N, 12, 12), and classes."""
    rng = np.random.default_rng(COUNTS[split])
    labels = rng.integers(0, 2, COUNTS[split], np.uint8)
    return rng.integers(0, 150, (len(labels), 12, 12), np.uint8) + 100 * labels[:, None, None], labels.tolist()


def encoded(pixels: Any) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is on the Hub: two parquet files, and a program that must not run."""
    folder = tmp_path_factory.mktemp("hub")
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["dark", "light"])})
    (folder / "data").mkdir()
    for split in COUNTS:
        images, labels = pictures(split)
        rows = {"image": [encoded(pixels) for pixels in images], "label": labels}
        made = datasets.Dataset.from_dict(rows, features=kinds)
        made.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    (folder / "program.py").write_text("raise SystemExit('a program of the data set ran')\n")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder


def expected() -> dict[str, Any]:
    result = {}
    for split in COUNTS:
        images, labels = pictures(split)
        result[split] = {"labels": labels, "sums": images.astype(int).sum(axis=(1, 2)).tolist()}
    return result


def ask(hub: Hub, home: Path, *places: str, **more: str) -> dict[str, Any]:
    """What another process finds, with a cache of its own."""
    own = environment(HF_ENDPOINT=hub.address, HF_HOME=str(home), HF_HUB_DISABLE_XET="1", **more)
    done = run(sys.executable, "-c", ASK, *places, cwd=home, env=own)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_name_gives_the_images_mapped_and_streamed_and_then_without_a_connection(files: Path, tmp_path: Path) -> None:
    mapped, streamed, wrong = f"hub:{NAME}", f"hub:{NAME}?stream", "hub:somebody/else"
    with hub_of(files) as hub:
        result = ask(hub, tmp_path, mapped, streamed, wrong)
    assert result[mapped] == result[streamed] == expected()
    assert result[wrong].startswith(f"{wrong} is not a folder or file here, and cannot be reached by name: ")
    assert any(each.startswith("GET ") and each.endswith("/data/train-00000-of-00001.parquet") for each in hub.asked)
    assert not [each for each in hub.asked if "program.py" in each]

    away = ask(hub, tmp_path, mapped, HF_HUB_OFFLINE="1")
    assert away[mapped] == expected(), "what was downloaded is there without a connection"
