"""Folders as people download them: which are splits and which are classes, and what is said of it."""

import logging
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import convscope as cs
from commands import Commands
from convscope.data.dataset import overlap
from convscope.errors import DataError, UnknownName, UsageError

HELD = r"a fifth of each class of train/, chosen by the seed, is held out as the test split: "
LAYOUTS: dict[str, tuple[list[str], list[str], list[str], str, str]] = {
    "annotations beside": (
        ["train/cat", "train/dog", "test/cat", "test/dog", "annotations"],
        ["train/cat", "train/dog"],
        ["test/cat", "test/dog"],
        "the training split is read from train/, the test split from test/; passed over: annotations/.",
        "has pictures in annotations/, which are not used: they are in neither split",
    ),
    "other names": (
        ["train_set/cat", "train_set/dog", "test_set/cat", "test_set/dog"],
        ["train_set/cat", "train_set/dog"],
        ["test_set/cat", "test_set/dog"],
        "the training split is read from train_set/, the test split from test_set/.",
        "",
    ),
    "years": (
        ["train2017/cat", "train2017/dog", "val2017/cat", "val2017/dog"],
        ["train2017/cat", "train2017/dog"],
        ["val2017/cat", "val2017/dog"],
        "the training split is read from train2017/, the test split from val2017/.",
        "",
    ),
    "twice": (
        ["seg_train/seg_train/cat", "seg_train/seg_train/dog", "seg_test/seg_test/cat", "seg_test/seg_test/dog",
         "seg_pred/seg_pred"],
        ["seg_train/seg_train/cat", "seg_train/seg_train/dog"],
        ["seg_test/seg_test/cat", "seg_test/seg_test/dog"],
        "from seg_train/seg_train/, the test split from seg_test/seg_test/; passed over: seg_pred/.",
        "has pictures in seg_pred/, which are not used",
    ),
    "wrapped": (
        ["pets/cat", "pets/dog"],
        ["pets/cat", "pets/dog"],
        ["pets/cat", "pets/dog"],
        "the data set is read from pets/, the only folder in ",
        "",
    ),
    "splits wrapped": (
        ["data/train/cat", "data/train/dog", "data/val/cat", "data/val/dog"],
        ["data/train/cat", "data/train/dog"],
        ["data/val/cat", "data/val/dog"],
        "the data set is read from data/, the only folder in ",
        "",
    ),
    "flat test": (
        ["train/cat", "train/dog", "test"],
        ["train/cat", "train/dog"],
        ["train/cat", "train/dog"],
        HELD + "test/ has no class folders like it.",
        "the pictures of .*test are not used: they are not in class folders such as those of train/",
    ),
    "unlabelled test in one folder": (
        ["train/cat", "train/dog", "test/test"],
        ["train/cat", "train/dog"],
        ["train/cat", "train/dog"],
        HELD + "test/ has no class folders like it.",
        "the pictures of .*test are not used",
    ),
    "flat test and val": (
        ["train/cat", "train/dog", "val/cat", "val/dog", "test"],
        ["train/cat", "train/dog"],
        ["val/cat", "val/dog"],
        "the training split is read from train/, the test split from val/.",
        "the pictures of .*test are not used",
    ),
    "train alone": (
        ["train/cat", "train/dog"],
        ["train/cat", "train/dog"],
        ["train/cat", "train/dog"],
        HELD + "no test/ or val/ is beside it.",
        "",
    ),
    "the plain form": (["train/cat", "train/dog", "test/cat", "test/dog"], ["train/cat", "train/dog"],
                       ["test/cat", "test/dog"], "", ""),
    "deep classes": (["cat/images", "dog/images"], ["cat/images", "dog/images"], ["cat/images", "dog/images"], "", ""),
}  # fmt: skip


def tree(root: Path, folders: list[str], count: int = 5) -> Path:
    rng = np.random.default_rng(0)
    for name in folders:
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (6, 6), np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.mark.parametrize(("folders", "train", "test", "note", "warning"), LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.filterwarnings("always::convscope.errors.DataWarning")
def test_splits_and_classes_are_told_apart(  # noqa: PLR0917  # fixtures
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
    folders: list[str],
    train: list[str],
    test: list[str],
    note: str,
    warning: str,
) -> None:
    root = tree(tmp_path / "root", folders)
    with caplog.at_level(logging.INFO, "convscope.data"):
        data = {split: cs.load_dataset(f"folder:{root}", split=split) for split in ("train", "test", "all")}
    assert {part.classes for part in data.values()} == {("cat", "dog")}
    for split, expected in (("train", train), ("test", test)):
        assert sorted({str(Path(name).parent) for name in data[split].names}) == sorted(expected)
    assert overlap(data["train"], data["test"]) == 0
    assert len(data["train"]) + len(data["test"]) == len(data["all"])
    text = " ".join(data["train"].notes)
    assert re.search(note, text) if note else not text
    assert list(data["test"].notes) == [record.message for record in caplog.records][: len(data["test"].notes)]
    warned = [str(each.message) for each in recwarn]
    assert any(re.search(warning, each) for each in warned) if warning else not warned


@pytest.mark.filterwarnings("always::convscope.errors.DataWarning")
def test_the_command_line_says_each_assumption_once(convscope: Commands, tmp_path: Path) -> None:
    root = tree(tmp_path / "root", LAYOUTS["twice"][0])
    message = convscope("train", f"folder:{root}", "--epochs", "1", "--out", tmp_path / "run")
    assert message.status == 0, message.err
    assert message.err.count("note: the training split is read from seg_train/seg_train/, the test split from") == 1
    assert message.err.count("has pictures in seg_pred/") == 1
    message = convscope("evaluate", tmp_path / "run")
    assert message.err.count("note: the training split is read from seg_train/seg_train/") == 1
    assert "note: the training split" in convscope("predict", tmp_path / "run", f"folder:{root}:test/0").err


def test_options_decide(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", ["2019/cat", "2019/dog", "2020/cat", "2020/dog", "train/x"])
    with pytest.raises(DataError, match=r"read in two ways|hold folders of the same names"):
        cs.load_dataset(f"folder:{root}")
    flat = cs.load_dataset(f"folder:{root}?splits=none", split="all")
    assert (flat.classes, len(flat)) == (("2019", "2020", "train"), 25)
    named = cs.load_dataset(f"folder:{root}?train=2019&test=2020", split="test")
    assert (named.classes, len(named), named.names[0]) == (("cat", "dog"), 10, "2020/cat/0.png")
    alone = {split: cs.load_dataset(f"folder:{root}?train=2019", split=split) for split in ("train", "test")}
    assert [len(part) for part in alone.values()] == [8, 2]
    assert alone["test"].notes == (f"{HELD}no test= is given.".replace("train/", "2019/"),)
    picture = cs.prepare(f"folder:{root}?train=2019&test=2020:test/3")
    assert picture.name == f"folder:{root}?train=2019&test=2020:2020/cat/3.png"
    with pytest.raises(UsageError, match=r"there is no folder .*2021 for test=2021; check its name"):
        cs.load_dataset(f"folder:{root}?train=2019&test=2021")
    with pytest.raises(UnknownName, match=r"no option of .* is called 'trian'; did you mean 'train'"):
        cs.load_dataset(f"folder:{root}?trian=2019")
    with pytest.raises(UnknownName, match="no value of splits is called 'all'"):
        cs.load_dataset(f"folder:{root}?splits=all")


def test_a_name_with_a_question_mark_is_a_name(tmp_path: Path) -> None:
    root = tree(tmp_path / "pets?train=cat", ["cat", "dog"])
    assert cs.load_dataset(f"folder:{root}", split="all").classes == ("cat", "dog")


def test_links_that_go_round_are_left(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", ["cat", "dog"])
    (root / "cat" / "round").symlink_to(".")
    (root / "loop").symlink_to("loop")
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "round").symlink_to(".")
    assert cs.load_dataset(f"folder:{root}", split="all").classes == ("cat", "dog")
    with pytest.raises(DataError):
        cs.load_dataset(f"folder:{tmp_path / 'alone'}")
