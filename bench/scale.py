"""What docs/how-to/several-machines.md calculates with: `python bench/scale.py [section ...]`.

Sections: read, scan, train, start.

Images are JPEG files of 500x375, as ImageNet's typically are, brought to 224x224; the network is ResNet-18.
"""

import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import convscope as cs
from convscope.probe.support.batching import batch_size, feeder
from convscope.probe.support.scan import Batch, scan
from measure import header, in_turn, ratio, spread

IMAGES, CLASSES = 216, 10


def photos(folder: Path) -> str:
    """A parquet file of JPEG files: smooth colours with some texture, about 40 kB each."""
    import datasets

    rng = np.random.default_rng(0)
    files: list[bytes] = []
    for _ in range(32):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(
            (500, 375), Image.Resampling.BICUBIC
        )
        noisy = np.clip(np.asarray(coarse, np.int16) + rng.normal(0, 10, (375, 500, 1)).astype(np.int16), 0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(file := io.BytesIO(), "JPEG", quality=85)
        files.append(file.getvalue())
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    table = {
        "image": [{"bytes": files[i % 32], "path": None} for i in range(IMAGES)],
        "label": [i % CLASSES for i in range(IMAGES)],
    }
    datasets.Dataset.from_dict(table, features=features).save_to_disk(folder / "photos")
    print(f"{IMAGES} photos, {sum(map(len, files)) / 32 / 1000:.0f} kB each\n")
    return f"hub:{folder / 'photos'}"


def resnet18() -> nn.Module:
    """ResNet-18 with fresh weights: 11.7 million parameters."""
    import transformers

    config = transformers.ResNetConfig(
        depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic", num_labels=1000
    )
    model: nn.Module = transformers.ResNetForImageClassification(config)
    return model.eval()


def opened(place: str) -> Any:
    return cs.load_dataset(place, split="all", image_size=(224, 224))


def read(place: str) -> None:
    """Decoding and resizing."""
    header("Reading: images decoded and brought to 224x224, per second of one core")
    data = opened(place)
    seconds = in_turn({"read": lambda: worked(lambda: void(data.images[:64]))}, 5)["read"]
    print(spread([64 / s for s in seconds], 0, "images/s"))


def worked(job: Callable[[], None]) -> float:
    """The processor's seconds, of all threads: what else the machine does changes them little."""
    start = time.process_time()
    job()
    return time.process_time() - start


def void(_: object) -> None:
    """Nothing."""


def per_image(batch: Batch, model: nn.Module) -> dict[str, Any]:
    logits = model(batch.images).logits
    return {"hits": (logits.argmax(1) == batch.labels).sum().numpy()}


def scanned(place: str) -> None:
    """A scan against the loop that reads a batch, runs the model and counts."""
    header("Scan: images/s through ResNet-18")
    data, model = opened(place), resnet18()
    size = batch_size(data)

    def bare() -> None:
        feed = feeder(data, model)
        with torch.no_grad():
            for start in range(0, len(data), size):
                labels = torch.tensor(data.labels[start : start + size])
                (model(feed(data.images[start : start + size])).logits.argmax(1) == labels).sum()

    def ours() -> None:
        scan(data, [model], lambda batch: per_image(batch, model), add, what="counting")

    seconds = in_turn({"bare loop": bare, "scan": ours}, 3)
    for name, values in seconds.items():
        print(f"{name}: {spread([len(data) / s for s in values], 1, 'images/s')}")
    print(f"scan / bare loop: {ratio(seconds['bare loop'], seconds['scan'])}")


def add(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    return {name: one[name] + two[name] for name in one}


def train(_: str) -> None:
    """Forward, and forward with backward, without reading."""
    header("ResNet-18: images through it in float32, without reading, per second of one core")
    model, images = resnet18().train(), torch.rand(16, 3, 224, 224)
    labels = torch.randint(0, 1000, (16,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        loss: Tensor = F.cross_entropy(model(images).logits, labels)
        torch.autograd.backward(loss)
        optimizer.step()

    def forward() -> None:
        with torch.no_grad():
            model(images)

    jobs = {"forward": lambda: worked(forward), "training step": lambda: worked(step)}
    for name, seconds in in_turn(jobs, 4).items():
        print(f"{name}: {spread([16 / s for s in seconds[1:]], 1, 'images/s')}")
    gradients = sum(value.numel() * 4 for value in model.parameters())
    print(f"gradients: {gradients / 1e6:.1f} MB a step; a snapshot: {3 * gradients / 1e6:.0f} MB with momentum")


def start(_: str) -> None:
    """What it costs to be two processes rather than one."""
    header("Starting: `convscope train crosses --epochs 1`, seconds")
    with tempfile.TemporaryDirectory() as folder:

        def job(count: int) -> Callable[[], None]:
            command = [sys.executable, "-m", "convscope", "train", "crosses", "--epochs", "1", "--devices", str(count)]
            return lambda: void(
                subprocess.run([*command, "--out", f"{folder}/{count}-{time.time()}"], capture_output=True, check=True)
            )

        seconds = in_turn({"one process": job(1), "two processes": job(2)}, 3)
    for name, values in seconds.items():
        print(f"{name}: {spread(values, 1)}")


SECTIONS = {"read": read, "scan": scanned, "train": train, "start": start}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        where = photos(Path(place))
        for section in sys.argv[1:] or SECTIONS:
            SECTIONS[section](where)
