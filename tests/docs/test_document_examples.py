"""Every example of the documents runs, in a folder with the files that the pages speak of."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import convscope as cs
from commands import Commands
from documents import LANGUAGES, ROOT, blocks, parse, run

ELSEWHERE = {
    "docs/how-to/check-your-own-convolution.md": "tests/check/test_check_page.py",
    "docs/how-to/own-operation.md": "tests/ops/test_own_operations.py",
    "docs/how-to/write-a-lesson.md": "tests/lessons",
}
"""Pages with a test of their own, which says more than that their code runs."""
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if page.relative_to(ROOT).as_posix() not in ELSEWHERE]


def photo(path: Path, size: tuple[int, int], seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the pages: a network and its weights, pictures, folders of pictures, runs."""
    folder = tmp_path_factory.mktemp("files")
    (own,) = [b for b in blocks(ROOT / "docs/how-to/own-model.md") if b.title == "net.py"]
    (folder / "net.py").write_text(own.body + "\n\nclass Small(Net):\n    pass\n\n\nclass Large(Net):\n    pass\n")
    (wrong,) = [
        b
        for b in blocks(ROOT / "docs/how-to/check-your-own-convolution.md")
        if "conv2d(image" in b.body and b.language == "python"
    ]
    (folder / "mine.py").write_text(wrong.body)
    network = cs.load_model(f"{folder / 'net.py'}:Net")
    weights = network.state_dict()
    averaged = {name: 0.5 * tensor for name, tensor in weights.items()}
    torch.save(weights, folder / "net.pt")
    torch.save({"epoch": 3, "state_dict": weights, "state_dict_ema": averaged}, folder / "checkpoint.pth.tar")
    from safetensors.torch import save_file

    save_file(weights, folder / "net.safetensors")
    for number, name in enumerate(("dog.jpg", "photo.jpg", "a.png", "b.png")):
        photo(folder / name, (48, 64), number)
    for name in ("drawing.png", "digit.png"):
        Image.fromarray(cs.load_dataset("shapes", split="test").images[3, 0]).save(folder / name)
    np.save(folder / "scan.npy", np.random.default_rng(0).random((1, 8, 8, 8), np.float32))
    for data in ("pets", "photos"):
        for label in ("cat", "dog"):
            (folder / data / label).mkdir(parents=True)
            for number in range(6):
                photo(folder / data / label / f"{label}-{number:02}.jpg", (40, 40), number)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for model in ("shapes-cnn", "shapes-mlp"):
            cs.train("shapes", model=model, epochs=1)
        cs.train("crosses", recipe="tutorial")
        shutil.copytree("runs/shapes-cnn", "demo/run")
    return folder


@pytest.fixture
def folder(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, in which the examples of one page run."""
    copy = tmp_path / "folder"
    shutil.copytree(files, copy)
    monkeypatch.chdir(copy)
    monkeypatch.syspath_prepend(copy)
    return copy


def identity(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_every_block_says_what_it_is(page: Path) -> None:
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block}: {block.language!r}"
        if block.reason:
            parse(block)


RUNNING = [
    page for page in PAGES if any(b.language in {"python", "sh", "console"} and not b.reason for b in blocks(page))
]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("page", RUNNING, ids=identity)
def test_the_examples_of_a_page_run(page: Path, convscope: Commands, request: pytest.FixtureRequest) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.language in {"python", "json", "sh", "console"} and not block.reason:
            if re.search(r"\bmnist:", block.body):
                request.getfixturevalue("shared_data")
            run(block, names, convscope)
