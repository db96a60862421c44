"""Stored images that cannot be read: named, left out and counted wherever the data are used; an error when strict."""

import io
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file
from torch import nn
from typer.testing import CliRunner

import convscope as cs
from convscope.cli import app
from convscope.data.dataset import overlap, shared
from convscope.errors import DataError, DataWarning
from launching import SEVERAL, run, torchrun

datasets = pytest.importorskip("datasets", reason="hub: data need Hugging Face datasets")

pytestmark = pytest.mark.usefixtures("own_cache")
Pixels = NDArray[np.uint8]
COUNT, BAD = 60, {0: b"no picture", 7: None, 41: b""}
"""Of so many images these are damaged, missing, empty."""
GOOD = np.setdiff1d(np.arange(COUNT), list(BAD))
UNREAD = pytest.mark.filterwarnings("ignore:.*Until then it is skipped:convscope.errors.DataWarning")


def pictures() -> tuple[Pixels, NDArray[np.int64]]:
    """Dark and light noise, (N, 1, 12, 12)."""
    rng = np.random.default_rng(0)
    labels = np.arange(COUNT) % 2
    noise = rng.integers(0, 150, (COUNT, 1, 12, 12), np.uint8)
    return np.asarray(noise + 100 * labels[:, None, None, None], np.uint8), labels


def png(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Sixty images in a parquet file, three of them no pictures."""
    images, labels = pictures()
    encoded = [{"bytes": BAD[k] if k in BAD else png(image[0]), "path": None} for k, image in enumerate(images)]
    row = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    features = datasets.Features({"image": row, "label": datasets.ClassLabel(names=["dark", "light"])})
    path = tmp_path_factory.mktemp("damaged") / "all.parquet"
    datasets.Dataset.from_dict({"image": encoded, "label": labels}, features=features).to_parquet(path)
    return f"hub:{path}"


def held() -> cs.Dataset:
    """Those that can be read, in memory."""
    images, labels = pictures()
    return cs.Dataset("held", images[GOOD], labels[GOOD], ("dark", "light"), split="all")


def stored(place: str, **options: Any) -> cs.Dataset:
    return cs.load_dataset(place, split="all", **options)


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(300, 2)).eval()


@pytest.mark.parametrize("how", ["", "?stream"])
def test_they_are_named_once_and_left_out(place: str, how: str) -> None:
    data = stored(place + how)
    with pytest.warns(DataWarning) as warned:
        images, indices = data.readable()
    assert [str(warning.message)[:9].strip() for warning in warned] == ["image 0 o", "image 7 o", "image 41"]
    assert "is not an image that can be read; save it as PNG, JPEG, WebP, GIF, BMP, TIFF or PPM. " in str(
        warned[0].message
    )
    assert str(warned[0].message).endswith("Remove it from the data set. Until then it is skipped.")
    assert "its row holds neither bytes nor a file" in str(warned[1].message)
    np.testing.assert_array_equal(indices, GOOD)
    np.testing.assert_array_equal(images, pictures()[0][GOOD])
    again, of = data.part([7, 8, 41, 5]).readable()  # nothing is told a second time
    np.testing.assert_array_equal(again, pictures()[0][[8, 5]])
    assert of.tolist() == [1, 3]
    np.testing.assert_array_equal(data.first(2), pictures()[0][[1]])
    with pytest.raises(DataError, match=r"image 7 of hub:.* is missing"):
        data.images[7]


def test_many_are_counted_rather_than_named(tmp_path: Path) -> None:
    encoded = [{"bytes": b"x" if k else png(pictures()[0][0, 0]), "path": None} for k in range(20)]
    table = datasets.Dataset.from_dict({"image": encoded, "label": [k % 2 for k in range(20)]})
    table.cast_column("image", datasets.Image()).to_parquet(tmp_path / "all.parquet")
    data = stored(f"hub:{tmp_path}/all.parquet")
    with pytest.warns(DataWarning) as warned:
        assert data.readable()[1].tolist() == [0]
    assert len(warned) == 6
    assert "more images of hub:" in str(warned[-1].message)
    with pytest.raises(DataError, match=r"^no image of .*:all can be read\.$"):
        data.part(slice(1, 20)).first()


def test_strict_refuses_them(place: str) -> None:
    with pytest.raises(DataError, match=r"image 0 of hub:.* is not an image that can be read"):
        stored(place, strict=True)
    images, labels = pictures()
    rows = {"image": [{"bytes": png(images[0, 0]), "path": None}] * 20 + [{"bytes": b"", "path": None}]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    path = Path(place.partition(":")[2]).parent / "late.parquet"
    datasets.Dataset.from_dict({**rows, "label": labels[:21]}, features=features).to_parquet(path)
    late = stored(f"hub:{path}", strict=True)  # the first ones are whole
    with pytest.raises(DataError, match="image 20 of hub:"):
        late.readable()


@UNREAD
def test_scores_are_those_of_the_others_and_count_them(place: str, tmp_path: Path) -> None:
    trained = cs.train(held(), net(), epochs=1, batch_size=20, device="cpu", out=tmp_path / "run", test=held())
    whole, damaged = cs.evaluate(trained, held()), cs.evaluate(trained, stored(place))
    np.testing.assert_array_equal(damaged.confusion, whole.confusion)
    assert damaged.loss == pytest.approx(whole.loss, rel=1e-6)
    assert (whole.skipped, damaged.skipped, damaged.to_json()["skipped"]) == (0, 3, 3)


@UNREAD
def test_training_is_that_in_which_they_have_no_weight(place: str, tmp_path: Path) -> None:
    """A batch of all images: 57 of 60 count, so the gradient is 57/60 of that of the others alone."""
    same: dict[str, Any] = {"recipe": "fast", "optimizer": "sgd", "epochs": 3, "device": "cpu"}
    damaged = cs.train(stored(place), net(), batch_size=60, lr=0.2, out=tmp_path / "damaged", test=held(), **same)
    whole = cs.train(held(), net(), batch_size=57, lr=0.2 * 57 / 60, out=tmp_path / "whole", test=held(), **same)
    one, two = (load_file(path.path / "weights.safetensors") for path in (damaged, whole))
    for name, value in one.items():
        np.testing.assert_allclose(value, two[name], atol=1e-5, err_msg=name)
    epochs = [json.loads(line) for line in (damaged.path / "metrics.jsonl").read_text().splitlines()]
    assert [event["skipped"] for event in epochs if event["event"] == "epoch"] == [3, 3, 3]


@UNREAD
@pytest.mark.parametrize("engine", ["torch", "numpy"])
def test_a_batch_of_which_none_can_be_read_changes_nothing(place: str, tmp_path: Path, engine: str) -> None:
    """Batches of one: a step on a black image without weight leaves the weights of plain gradient descent alone."""
    none = stored(place).part([7, 0, 41, 1, 2])  # one of each class can be read
    optimizer = {"torch": "sgd", "numpy": "adam"}[engine]
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 2))
    trained = cs.train(
        none, model, recipe="fast", optimizer=optimizer, epochs=2, batch_size=1, device="cpu", engine=engine,
        out=tmp_path / "run", test=held(),
    )  # fmt: skip
    assert all(np.isfinite(value).all() for value in load_file(trained.path / "weights.safetensors").values())
    events = [json.loads(line) for line in (trained.path / "metrics.jsonl").read_text().splitlines()]
    assert [event["skipped"] for event in events if event["event"] == "epoch"] == [3, 3]


@UNREAD
def test_scans_are_those_of_the_others_and_count_them(place: str) -> None:
    model, other, data, whole = net(), net(1), stored(place), held()
    for one, two in (
        (cs.probe.dead(model, data), cs.probe.dead(model, whole)),
        (cs.probe.compare([model, other], data), cs.probe.compare([model, other], whole)),
        (cs.probe.shift(model, data, reach=1), cs.probe.shift(model, whole, reach=1)),
        (cs.probe.patches(model, data, "0"), cs.probe.patches(model, whole, "0")),
    ):
        assert (one.images, one.skipped, two.skipped) == (57, 3, 0)
        assert "57 images (3 more cannot be read)" in str(one)
        assert one.to_json()["skipped"] == 3
    dead, alive = cs.probe.dead(model, data).steps[0], cs.probe.dead(model, whole).steps[0]
    np.testing.assert_array_equal(dead.high, alive.high)
    compared = [cs.probe.compare([model, other], part) for part in (data, whole)]
    assert compared[0].models[0].accuracy == compared[1].models[0].accuracy
    assert [result.image for result in compared[0].disagreements] == [
        int(GOOD[result.image]) for result in compared[1].disagreements
    ]
    best = [cs.probe.patches(model, part, "0").most[1][0] for part in (data, whole)]
    assert (best[0].image, best[0].value) == (int(GOOD[best[1].image]), best[1].value)
    np.testing.assert_array_equal(best[0].picture, best[1].picture)


@UNREAD
def test_lint_and_shortcut_leave_them_out(place: str) -> None:
    model, data = net(), stored(place)
    assert len(shared(data, held())) == overlap(data, held()) == 57
    result = cs.probe.lint(model, data, test=stored(place).part(slice(0, 30)))
    assert result.images == 57
    message = next(finding for finding in result.findings if finding.check == "test-in-training")
    assert message.evidence.startswith("28 of the 30 test images occur among the 60 training images; the model gets ")
    simple = cs.probe.shortcut(data, held())
    assert (simple.trained_on, simple.skipped, simple.guess.n) == (57, 3, 57)
    assert "; 3 more cannot be read" in str(simple)


@UNREAD
def test_pictures_leave_them_out(place: str) -> None:
    data = stored(place).part(slice(0, 10))
    chosen = cs.plot.spread(data, 5)
    assert sorted(chosen) == [1, 2, 3, 4, 5, 6, 8, 9]
    assert len(cs.plot.samples(data, per_class=5).axes[0].images) == 8


COUNTING = """
import sys, warnings
import torch
import convscope as cs
from torch import nn
warnings.simplefilter("ignore")
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(300, 2)).eval()
found = cs.probe.dead(model, cs.load_dataset(sys.argv[1], split="all"))
run = cs.train(cs.load_dataset(sys.argv[1], split="all"), model, epochs=2, batch_size=7, device="cpu", out=sys.argv[2],
               recipe="fast", optimizer="sgd", test=None)
if run is not None and found.images:
    sys.stdout.write(f"{found.images} {found.skipped} {found.steps[0].high.sum()!r}\\n")
"""
"""Says what it counted in one piece: two processes speak at once."""


@SEVERAL
@UNREAD
def test_two_processes_skip_the_same(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "counting.py").write_text(COUNTING)
    result = torchrun(2, "counting.py", place, "two", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["counting.py", place, "one"])
    runpy.run_path("counting.py")
    message = capsys.readouterr().out
    assert message.startswith("57 3 ")
    assert set(result.stdout.splitlines()) == set(message.splitlines())
    one, two = (load_file(tmp_path / name / "weights.safetensors") for name in ("one", "two"))
    for name, value in one.items():
        np.testing.assert_allclose(value, two[name], atol=1e-5, err_msg=name)


@UNREAD
def test_the_commands_name_and_count_them(place: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef net():\n"
        "    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(300, 2))\n"
    )
    command = (sys.executable, "-m", "convscope", "train", place, "--model", f"{tmp_path}/net.py:net", "--epochs", "1")
    trained = run(*command, "--out", "r", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "warning: image 0 of hub:" in trained.stderr
    assert " skipped)" in trained.stdout

    def said(*arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments, "--split", "all"])
        assert result.exit_code == 0, result.output
        return result.output

    assert "; 3 more cannot be read" in said("evaluate", f"{tmp_path}/r")
    assert "57 images (3 more cannot be read)" in said("probe", "dead", f"{tmp_path}/r")
    again = [*command[3:], "--out", f"{tmp_path}/s"], ["evaluate", f"{tmp_path}/r"], ["probe", "dead", f"{tmp_path}/r"]
    for words in again:
        refused = CliRunner().invoke(app, [*words, "--strict"])
        assert isinstance(refused.exception, DataError)
        assert "image 0 of hub:" in str(refused.exception)
