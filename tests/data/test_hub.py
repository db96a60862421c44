"""Data sets in the formats of Hugging Face `datasets`: read where they are, never loaded whole."""

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file

import convscope as cs
from convscope.data.lazy_images import BlockShuffle, LazyImages
from convscope.errors import DataError, DownloadError, UnknownName
from convscope.training.batches import as_batches, epoch_order, prefetch
from launching import environment

datasets = pytest.importorskip("datasets", reason="hub: data need Hugging Face datasets")

pytestmark = pytest.mark.usefixtures("own_cache")
Pixels = NDArray[np.uint8]


def encoded(pixels: Pixels) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def rows(images: list[Pixels], labels: list[Any], kind: Any = None) -> Any:
    kind = kind or datasets.ClassLabel(names=["dark", "light"])
    features = datasets.Features({"image": datasets.Image(), "label": kind})
    return datasets.Dataset.from_dict({"image": list(map(encoded, images)), "label": labels}, features=features)


def pictures(count: int, seed: int = 0) -> tuple[list[Pixels], list[int]]:
    """Dark and light noise, 12x12."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    return [rng.integers(100 * label, 100 * label + 150, (12, 12), np.uint8) for label in labels], labels.tolist()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same 130 training and 40 test images, in every form."""
    root = tmp_path_factory.mktemp("places")
    parts = {"train": pictures(130), "test": pictures(40, seed=1)}
    made = {split: rows(*part) for split, part in parts.items()}
    (root / "parquet").mkdir()
    for split, part in made.items():
        part.to_parquet(root / "parquet" / f"{split}-00000-of-00001.parquet", batch_size=32)
    datasets.DatasetDict(made).save_to_disk(root / "arrow")
    for split, (images, labels) in parts.items():
        for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            folder = root / "imagefolder" / split / ("dark", "light")[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{number:03}.png")
    forms = {"parquet": "parquet", "arrow": "arrow", "imagefolder": "imagefolder", "stream": "parquet?stream"}
    return {name: f"hub:{root}/{form}" for name, form in forms.items()}


@pytest.mark.parametrize("form", ["parquet", "arrow", "imagefolder", "stream"])
@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_every_form_gives_the_same_images(places: dict[str, str], form: str, split: str) -> None:
    data = cs.load_dataset(places[form], split=split)
    images, labels = pictures(130) if split == "train" else pictures(40, seed=1)
    if split == "all":
        images, labels = [*pictures(130)[0], *images], [*pictures(130)[1], *labels]
    assert isinstance(data.images, LazyImages)
    assert (data.shape, data.classes, data.split) == ((1, 12, 12), ("dark", "light"), split)
    expected = np.stack(images)[:, None]
    order = np.lexsort(expected.reshape(len(expected), -1).T)
    result = data.images[:]
    if form == "imagefolder":  # in the order of its files
        mine = np.lexsort(result.reshape(len(result), -1).T)
        result, labels_found = result[mine], data.labels[mine]
        expected, labels = expected[order], np.array(labels)[order].tolist()
    else:
        labels_found = data.labels
    np.testing.assert_array_equal(result, expected)
    assert labels_found.tolist() == labels


@pytest.mark.parametrize("form", ["parquet", "stream"])
def test_any_index_reads_as_an_array_would(places: dict[str, str], form: str) -> None:
    data = cs.load_dataset(places[form])
    held = np.stack(pictures(130)[0])[:, None]
    chosen = np.random.default_rng(0).permutation(130)[:50]
    for which in (7, -1, slice(3, 90, 7), chosen, np.arange(130) % 3 == 0, [5], slice(4, 4)):
        np.testing.assert_array_equal(data.images[which], held[which])
    part = data.part(slice(10, 20))
    assert isinstance(part.images, LazyImages)
    np.testing.assert_array_equal(part.images[2:4], held[12:14])
    np.testing.assert_array_equal(data.scaled([1, 0]), held[[1, 0]] / np.float32(255))
    with pytest.raises(IndexError):
        data.images[130]
    with pytest.raises(cs.UsageError, match="is never loaded completely"):
        np.asarray(data.images)


@pytest.mark.parametrize("form", ["arrow", "stream"])
def test_training_is_that_of_the_same_images_in_memory(places: dict[str, str], form: str, tmp_path: Path) -> None:
    """Bit for bit; a stream of less than a window is mixed as a whole, so it too."""
    held = cs.Dataset("held", np.stack(pictures(130)[0])[:, None], np.array(pictures(130)[1]), ("dark", "light"))
    tested = cs.Dataset("held", np.stack(pictures(40, 1)[0])[:, None], np.array(pictures(40, 1)[1]), ("dark", "light"))
    runs = {}
    for name, train, test in (("stored", places[form], None), ("held", held, tested)):
        runs[name] = cs.train(
            train,
            "mnist-small",
            recipe="fast",
            epochs=2,
            batch_size=32,
            seed=3,
            device="cpu",
            test=test,
            out=tmp_path / name,
        )
    one, two = (load_file(runs[name].path / "weights.safetensors") for name in ("stored", "held"))
    for key in one:
        np.testing.assert_array_equal(one[key], two[key], err_msg=key)
    assert cs.evaluate(runs["stored"]).to_json()["loss"] == cs.evaluate(runs["held"], tested).to_json()["loss"]


@pytest.mark.parametrize("form", ["parquet", "stream"])
def test_a_fifth_is_held_out_where_there_is_no_test(tmp_path: Path, form: str) -> None:
    rows(*pictures(50)).to_parquet(tmp_path / "train.parquet")
    name = f"hub:{tmp_path}{'?stream' if form == 'stream' else ''}"
    train, test = (cs.load_dataset(name, split=split, seed=4) for split in ("train", "test"))
    assert len(train) + len(test) == 50
    assert 8 <= len(test) <= 12
    together = np.concatenate([train.images[:], test.images[:]])
    assert len({image.tobytes() for image in together}) == 50


def test_pictures_become_one_size_and_colour_when_asked(tmp_path: Path) -> None:
    images = [np.full((8, 6, 3), 200, np.uint8), np.full((5, 9), 100, np.uint8)]
    rows(images, [0, 1]).to_parquet(tmp_path / "mixed.parquet")
    name = f"hub:{tmp_path}/mixed.parquet"
    assert cs.load_dataset(name, split="all", image_size=(4, 4)).images[:].shape == (2, 3, 4, 4)
    assert cs.load_dataset(name, split="all", image_size=(4, 4), grey=True).images[:].shape == (2, 1, 4, 4)
    with pytest.raises(DataError, match=r"differ in size .* the first has 8x6 pixels, image 1 5x9; .*--size 8x6"):
        cs.load_dataset(name, split="all").images[1]


def test_one_picture_says_what_was_done_to_it(tmp_path: Path) -> None:
    images = [np.full((8, 6, 3), 200, np.uint8), np.full((5, 9), 100, np.uint8)]
    rows(images, [0, 1]).to_parquet(tmp_path / "mixed.parquet")
    for form, index in ((":all", 1), ("?stream:all", 0)):
        message = cs.prepare(f"hub:{tmp_path}/mixed.parquet{form}/{index}", like=cs.Preprocess(size=(4, 4), channels=1))
        before, grey = (("5x9", ()), ("8x6", ("turned to grey",)))[index == 0]
        assert message.notes == (f"resized from {before} to 4x4", *grey)
        assert message.array.shape == (1, 4, 4)


def write(rows: Any, path: Path) -> str:
    rows.to_parquet(path / "all.parquet")
    return f"hub:{path}/all.parquet"


def unlabelled(path: Path) -> str:
    return write(rows(pictures(6)[0], [0, 1, -1, 0, -1, 1]), path)


def outside(path: Path) -> str:
    return write(
        rows(pictures(3)[0], [0, 5, 1], datasets.Value("int64")).cast_column("label", datasets.Value("string")), path
    )


def without_label(path: Path) -> str:
    return write(rows(*pictures(3)).rename_column("label", "kind").cast_column("kind", datasets.Value("int64")), path)


def without_image(path: Path) -> str:
    return write(datasets.Dataset.from_dict({"label": [0, 1]}), path)


def two_images(path: Path) -> str:
    both = datasets.Features(
        {name: datasets.Image() for name in ("image", "mask")} | {"label": datasets.Value("int64")}
    )
    table = {name: list(map(encoded, pictures(2)[0])) for name in ("image", "mask")} | {"label": [0, 1]}
    return write(datasets.Dataset.from_dict(table, features=both), path)


def corrupt(path: Path) -> str:
    table = datasets.Dataset.from_dict(
        {"image": [{"bytes": b"no picture", "path": None}] * 2, "label": [0, 1]},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")}),
    )
    return write(table, path)


def remote(path: Path) -> str:
    row = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    features = datasets.Features({"image": row, "label": datasets.Value("int64")})
    table = {"image": [{"bytes": None, "path": "https://nowhere.invalid/x.png"}], "label": [0]}
    return write(datasets.Dataset.from_dict(table, features=features), path)


REFUSED: dict[str, Callable[[Path], str]] = {
    r"2 of 6 images of .* have no class, the first is image 2": unlabelled,
    r"has no column that is the label; of image, kind, name it: hub:.*\?label=COLUMN": without_label,
    r"has no column that is the image; of label, name it": without_image,
    r"has several columns that can be the image; of image, mask, label, name it": two_images,
    r"no image of hub:.* can be read. image 0 of hub:.* is not an image that can be read.* Remove it": corrupt,
    r"is stored at https://nowhere.invalid/x.png; convscope reads only files here and on the Hub": remote,
    r"there is no folder or file .*nothing/here": lambda path: f"hub:{path}/nothing/here",
    r"cannot be opened as a data set": lambda path: f"hub:{path}",
    r"no option of .* is called 'lable'; did you mean 'label'": lambda path: f"hub:{path}?lable=x",
    r"is a file; hub: takes .parquet and .arrow files, and folders": lambda _: f"hub:{__file__}",
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_cannot_be_used_is_refused_in_a_sentence(said: str, tmp_path: Path) -> None:
    with pytest.raises((DataError, cs.UsageError), match=said):
        cs.load_dataset(REFUSED[said](tmp_path), split="all")


def test_classes_are_words_or_numbers(tmp_path: Path) -> None:
    data = cs.load_dataset(outside(tmp_path), split="all")
    assert (data.classes, data.labels.tolist()) == (("0", "1", "5"), [0, 2, 1])
    with pytest.raises(UnknownName, match=r"no column of .* is called 'kind'"):
        cs.load_dataset(f"hub:{tmp_path}?label=kind", split="all")


def test_a_name_that_cannot_be_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach 'owner/name' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(DownloadError, match=r"hub:owner/name is not a folder or file here, and cannot be reached"):
        cs.load_dataset("hub:owner/name")


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'convscope\[hub\]'"):
        cs.load_dataset("hub:owner/name")


@given(st.integers(1, 200), st.integers(1, 50), st.integers(0, 3))
def test_a_streamed_epoch_mixes_neighbours_and_misses_none(length: int, window: int, epoch: int) -> None:
    order = epoch_order(length, None, 7, epoch, window).numpy()
    assert sorted(order) == list(range(length))
    assert (order // window == np.arange(length) // window).all()
    assert (order == epoch_order(length, None, 7, epoch, window).numpy()).all()


@given(st.lists(st.lists(st.integers(0, 39), min_size=1, max_size=6), max_size=12), st.integers(1, 9))
def test_a_stream_gives_what_it_is_asked_for(asked: list[list[int]], window: int) -> None:
    begun: list[int] = []

    def begin(start: int) -> Any:
        begun.append(start)
        return iter(range(start, 40))

    windows = BlockShuffle(begin, window)
    for indices in asked:
        assert windows(np.array(indices)) == indices
        assert len(windows._kept) <= 3 + len(indices)
    assert begun[0] == 0


def test_what_is_made_ahead_comes_in_order_and_ends_with_its_user() -> None:
    made: list[int] = []

    def make(item: int) -> int:
        made.append(item)
        return item * item

    stream = prefetch(make, iter(range(1000)), depth=2)
    assert [next(stream), next(stream)] == [0, 1]
    stream.close()
    assert len(made) <= 5
    with pytest.raises(ZeroDivisionError):
        list(prefetch(lambda item: 1 // item, [1, 0]))


def test_batches_of_stored_images_have_the_layout_that_is_asked_for(places: dict[str, str]) -> None:
    data = cs.load_dataset(places["arrow"])
    for channels_last in (True, False):
        batches = as_batches(data, torch.device("cpu"), torch.float64, channels_last=channels_last)
        images, labels = batches.take(torch.tensor([4, 2]))
        assert (images.shape, images.dtype, labels.tolist()) == (
            (2, 1, 12, 12),
            torch.float64,
            data.labels[[4, 2]].tolist(),
        )
        np.testing.assert_allclose(images.numpy(), data.images[[4, 2]] / 255)
        every = [batch[1].tolist() for batch in batches.in_order(50, 1, 2)]
        assert every == [data.labels[50:100].tolist()]


MEASURED = """
import sys, threading, time
import numpy as np
from torch import nn
import convscope as cs
from convscope.probe.support.scan import scan

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))

peak = [0]
def watch():
    while True:
        peak[0] = max(peak[0], resident())
        time.sleep(0.002)

net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
threading.Thread(target=watch, daemon=True).start()
for name in (sys.argv[1], *sys.argv[1:]):
    run = cs.train(name, net, epochs=1, batch_size=64, device="cpu", out=f"{len(name)}-{time.time()}")
    data = cs.load_dataset(name, split="all")
    scan(data, [net], lambda batch: {"sum": batch.images.sum().numpy()}, lambda a, b: {"sum": a["sum"] + b["sum"]},
         what="adding")
    print(name, peak[0], flush=True)
    peak[0] = 0
"""


@pytest.mark.study
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured where /proc says it")
@pytest.mark.parametrize("form", ["arrow", "stream"])
def test_memory_does_not_grow_with_the_number_of_images(form: str, tmp_path: Path) -> None:
    """10,000 against 40,000 colour images of 32x32: in memory they would be 31 and 123 MB, normalized 4 times that."""
    shades = [encoded(np.full((32, 32, 3), shade, np.uint8)) for shade in range(256)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    for count in (10_000, 40_000):
        made = {"image": [shades[i % 256] for i in range(count)], "label": [i % 256 // 128 for i in range(count)]}
        table = datasets.Dataset.from_dict(made, features=features)
        if form == "arrow":
            table.save_to_disk(tmp_path / f"{count:06}")
        else:
            (tmp_path / f"{count:06}").mkdir()
            table.to_parquet(tmp_path / f"{count:06}" / "train.parquet", batch_size=500)
    (tmp_path / "measure.py").write_text(MEASURED)
    names = [f"hub:{tmp_path}/{count}{'?stream' if form == 'stream' else ''}" for count in ("010000", "040000")]
    result = subprocess.run(
        [sys.executable, "measure.py", *names], cwd=tmp_path, env=environment(MALLOC_ARENA_MAX="1"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    small, large = (int(line.split()[-1]) / 1000 for line in result.stdout.splitlines()[-2:])
    assert large < small + 15, f"{small:.0f} MB became {large:.0f} MB"
