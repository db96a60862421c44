"""The good, odd and damaged files that generated command lines are about."""

import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

import convscope as cs

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))

class Empty(Net):
    def forward(self, x):
        y = self.conv(x)
        return self.head(y.mean((2, 3))) + y[:, :, :0].relu().sum()

class Nothing(Net):
    def forward(self, x):
        return self.conv(x)[:, :0]

class One(Net):
    def forward(self, x):
        return self.conv(x).mean()

class Maps(Net):
    def forward(self, x):
        return self.conv(x)

class Volume(Net):
    def forward(self, x):
        return self.conv(x)[:, :, None].repeat(1, 1, 2, 1, 1).tanh()

class Complex(Net):
    def forward(self, x):
        return torch.fft.fft2(self.conv(x)).abs().mean((2, 3))[:, :2]

class Strange(Net):
    def forward(self, x):
        y = self.conv(x) / 0
        return {"a\x1b[31m": y.isnan(), "b": (y * 0).flatten(1)[:, :2], "c": y.argmax()}

class Broken(nn.Module):
    def forward(self, x):
        raise KeyError("broken")

def fails():
    raise OSError("fails")

Number = 7
"""
OWN = """
import numpy as np

def relu(x):
    return np.maximum(x, 0)

def conv2d(x, weight, bias=None):
    raise MemoryError("no room")

def softmax(x):
    return "no array"

def linear(*anything):
    return np.zeros((2, 2)) / 0

relu6 = 6
"""
LESSON = """---
title: Sums
minutes: 5
needs: nothing
---
One and one are {{1 + 1}}.

```python
a = 2
```

```question sum
ask: How much is it?
answer: a
because: str(a)
```
"""


def make_files(root: Path) -> None:
    """What commands are about: good files, odd ones and damaged ones."""
    rng = np.random.default_rng(0)
    for name, size in (
        ("pets/cat", 6),
        ("pets/dog", 6),
        ("split/train/cat", 4),
        ("split/train/dog", 4),
        ("split/test", 3),
    ):
        (root / name).mkdir(parents=True)
        for number in range(size):
            Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(root / name / f"{number}.png")
    Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8)).save(root / "photo.jpg")
    Image.fromarray(rng.random((8, 8), np.float32)).save(root / "float.tif")
    Image.fromarray(rng.random((8, 8), np.float32) * 7).save(root / "unclear.tif")
    Image.new("RGBA", (5, 3), (1, 2, 3, 4)).save(root / "clear.png")
    Image.new("L", (1, 1)).save(root / "dot.png")
    (root / "ünïcode ☃ \x1b[31m.png").write_bytes((root / "dot.png").read_bytes())
    (root / "pointer.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    (root / "empty.png").touch()
    (root / "cut.png").write_bytes((root / "photo.jpg").read_bytes()[:300])
    (root / "net.py").write_text(NET)
    (root / "wrong.py").write_text("class Net(:\n")
    (root / "mine.py").write_text(OWN)
    (root / "mine.md").write_text(LESSON)
    (root / "broken.md").write_text(LESSON.replace("answer: a", "answer: no"))
    (root / "cut.md").write_text(LESSON[:90])
    (root / "net.json").write_text(json.dumps(cs.blocks.template("shapes-cnn")))
    (root / "wrong.json").write_text('[{"block": "conv", "kernels": -1}, {"block": "softmax"}]')
    np.save(root / "one.npy", rng.random((1, 8, 8), np.float32))
    np.save(root / "objects.npy", np.array([{}]), allow_pickle=True)
    np.savez(root / "data.npz", images=rng.integers(0, 256, (12, 8, 8), np.uint8), labels=np.arange(12) % 2)
    np.savez(root / "bands.npz", images=np.zeros((12, 8, 8, 13), np.uint8), labels=np.arange(12) % 2)
    np.savez(root / "unclear.npz", images=np.full((12, 8, 8), 3.5), labels=np.arange(12) % 2)
    (root / "cut.npz").write_bytes((root / "data.npz").read_bytes()[:200])
    os.mkfifo(root / "pipe.png")
    os.mkfifo(root / "pipe.npz")
    os.mkfifo(root / "pipe.md")
    (root / "loop").symlink_to("loop")
    (root / "nobody").mkdir()
    cs.train("crosses", epochs=2, out=root / "run")
    cs.train("folder:pets", "net.py:Net", epochs=1, out=root / "own")
    whole = (root / "run" / "config.json").read_text()
    for name, config in (("torn", whole[:200]), ("odd", whole.replace('"plus"', '"\\u001b[31m"'))):
        (root / name).mkdir()
        for file in ("config.json", "weights.safetensors", "metrics.jsonl"):
            (root / name / file).write_bytes((root / "run" / file).read_bytes())
        (root / name / "config.json").write_text(config)
