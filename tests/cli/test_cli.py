"""The command line as its users meet it: real processes, what they print, and how they fail."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from typer.main import get_command

import convscope as cs
from commands import Commands
from convscope.cards.card import Card, attach
from convscope.cli import COMMANDS, application, console, main, reference


def process(*arguments: str | Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A command as a process of its own."""
    command = [sys.executable, "-W", "error", "-m", "convscope", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1", **more}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "shapes"
    cs.train("shapes", seed=0, out=path)
    return path


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which commands run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    written = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert written == reference.page(), "docs/reference/cli.md is not what the commands say: `make docs-cli` writes it"
    for command in ("train", "plot kernels", "probe shift", "open", "filter"):
        assert f"## convscope {command}\n" in written
    assert "| `--layer, --step LAYER` | The convolution; by default the first. |" in written


LISTS = """
import sys
from convscope.__main__ import main

try:
    main()
except SystemExit:
    print(*sys.modules)
"""


def test_the_list_of_commands_has_the_first_sentence_of_each_and_imports_none() -> None:
    commands: Any = get_command(application())
    for name, command in commands.commands.items():
        assert COMMANDS[name].summary == " ".join(command.help.partition("\n\n")[0].split()), name
    for arguments in ([], ["-h"], ["--help"]):
        done = subprocess.run([sys.executable, "-c", LISTS, *arguments], capture_output=True, text=True, check=False)
        shown, _, modules = done.stdout.rstrip().rpartition("\n")
        rows = shown.partition("Commands")[2].splitlines()
        assert [row.split()[1] for row in rows if row[2:3].isalpha()] == [*COMMANDS], arguments
        assert "typer" in modules.split()
        assert not {"numpy", *(f"convscope.cli.{source.module}" for source in COMMANDS.values())} & {*modules.split()}


def test_a_shell_completes_commands_and_their_options() -> None:
    for line, expected in {"convscope ver": "verify", "convscope verify --model-a": "--model-arg"}.items():
        words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_CONVSCOPE_COMPLETE": "complete_bash"}
        program = "import sys; sys.argv[0] = 'convscope'; from convscope.__main__ import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False, env={**os.environ, **words}
        )
        assert done.stdout.split() == [expected], line


def test_the_catalogs_list_everything(convscope: Commands) -> None:
    datasets, models = convscope.said("datasets"), convscope.said("models")
    for name in ("crosses", "shapes", "color-shapes", "square", "mnist", "fashion-mnist", "kmnist", "folder:", "npz:"):
        assert name in datasets
    for parameters in ("10", "64", "669,706", "187,349", "13,610", "15,742", "40", "1,538", "132"):
        assert f" {parameters} " in models
    assert {entry["name"] for entry in json.loads(convscope.said("models", "--json"))} >= {"shapes-cnn", "mnist-small"}
    assert {entry["name"] for entry in json.loads(convscope.said("datasets", "--json"))} >= {"shapes", "mnist"}


def test_training_prints_plain_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    result = process("train", "crosses", "--epochs", "20", "--out", tmp_path / "run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "crosses (10 parameters) on crosses (2 images)" in result.stdout
    assert "epoch  20  loss" in result.stdout
    assert f"next: convscope evaluate {tmp_path / 'run'}" in result.stdout
    assert "\x1b" not in result.stdout + result.stderr


def test_evaluating_prints_tables_and_the_same_as_json(convscope: Commands, run: Path) -> None:
    table, values = convscope.said("evaluate", run), json.loads(convscope.said("evaluate", run, "--json"))
    assert np.sum(values["confusion"]) == 200
    assert f"{values['accuracy']:.2%}".replace("%", " %") in table
    assert "square" in table
    assert "circle" in table


def test_a_drawing_of_ones_own_is_scaled_inverted_and_recognised(
    convscope: Commands, run: Path, tmp_path: Path
) -> None:
    for name, draw in {"square": ImageDraw.ImageDraw.rectangle, "circle": ImageDraw.ImageDraw.ellipse}.items():
        picture = Image.new("RGB", (300, 300), "white")
        draw(ImageDraw.Draw(picture), (90, 100, 210, 220), fill="black")
        picture.save(tmp_path / f"{name}.png")
        result = convscope("predict", run, tmp_path / f"{name}.png")
        assert result.out.splitlines()[0] == f"{name}.png: {name}", result.out
        for word in ("resized from 300x300 to 28x28", "turned to grey", "inverted"):
            assert word in result.err


def test_a_network_of_ones_own_predicts_with_its_weights_its_classes_and_what_it_expects(
    convscope: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = "from torch import nn\ndef net(width: int = 2) -> nn.Module:\n"
    layers = "nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, width)"
    (tmp_path / "net.py").write_text(f"{code}    return nn.Sequential({layers})\n")
    model = cs.load_model(f"{tmp_path / 'net.py'}:net", args={"width": 3})
    torch.nn.init.eye_(model[2].weight)  # type: ignore[index]  # a Sequential: channel k is class k
    torch.nn.init.zeros_(model[2].bias)  # type: ignore[index]
    torch.save(model.state_dict(), tmp_path / "net.pt")
    Image.new("RGB", (90, 60), (10, 200, 30)).save(tmp_path / "green.png")
    options = ["--weights", "net.pt", "--model-arg", "width=3", "--classes", "red, green,blue"]
    expects = ["--preprocess", "size=8x8", "--preprocess", "mean=0.5", "--preprocess", "std=0.5,0.5,0.25"]
    result = convscope("predict", "net.py:net", "green.png", *options, *expects)
    assert result.out.splitlines()[0] == "green.png: green", result.err
    assert "resized from 60x90 to 8x8" in result.err
    assert "is not trained" not in result.err
    refused = convscope("predict", "net.py:net", "green.png", "--preprocess", "fit=croop")
    assert (refused.status, "must be 'stretch' or 'crop' or 'pad' or 'mnist'" in refused.err) == (2, True)


def test_a_note_that_concerns_all_pictures_is_printed_once(convscope: Commands) -> None:
    images = "crosses:damaged-plus", "crosses:damaged-x"
    untrained = convscope("predict", "crosses", *images).err
    assert untrained.count("note: the model has a single output and no class names") == 1
    assert "note: crosses:damaged" not in untrained
    published = convscope("predict", "crosses", *images, "--model-arg", "published=True")
    assert published.out.splitlines()[::2] == ["crosses:damaged-plus: plus (correct)", "crosses:damaged-x: x (correct)"]
    assert "class names" not in published.err


def test_an_answer_that_should_not_be_believed_says_so(tmp_path: Path) -> None:
    model = cs.load_model("shapes-cnn")
    attach(model, Card("net", cs.card_of(model).preprocess, classes=("square",)))
    message = cs.predict(model, "shapes:test/3")[0]
    assert (message.best, message.classes) == (0, ("square", "output 1"))
    assert message.notes[-1] == "the model has 2 outputs and 1 class names; the others are never predicted."
    with torch.no_grad():
        model.get_parameter("fc.bias")[0] = math.nan
    assert "values that are not finite, so this means nothing" in " ".join(cs.predict(model, "shapes:test/3")[0].notes)


def test_only_the_first_of_several_processes_prints_tables(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_table(["class"], [["square"]])
    assert "square" in capsys.readouterr().out
    console.hush()
    try:
        console.show_table(["class"], [["square"]])
    finally:
        console.out.quiet = False
    assert capsys.readouterr().out == ""


def test_predictions_as_json(convscope: Commands, run: Path) -> None:
    values = json.loads(convscope.said("predict", run, "shapes:test/0", "shapes:test/1", "--json"))
    assert [value["image"] for value in values] == ["shapes:test/0", "shapes:test/1"]
    assert all(abs(sum(value["probabilities"]) - 1) < 1e-9 for value in values)


def test_a_picture_that_cannot_be_read_does_not_keep_the_others_from_being_predicted(
    convscope: Commands, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.png").touch()
    result = convscope("predict", run, "shapes:test/0", tmp_path / "empty.png", "shapes:test/1")
    assert result.status == 1
    assert result.out.index("shapes:test/0: ") < result.out.index("shapes:test/1: ")
    assert "error: " in result.err
    assert "empty.png is not an image that can be read" in result.err
    as_json = convscope("predict", run, tmp_path / "empty.png", "shapes:test/1", "--json")
    assert (as_json.status, [value["image"] for value in json.loads(as_json.out)]) == (1, ["shapes:test/1"])


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["train", "shappes"], 2, "no data set is called 'shappes'; did you mean 'shapes'"),
        (["train"], 2, "name a data set to train on"),
        (["train", "shapes", "--model", "shapes-cn"], 2, "did you mean 'shapes-cnn'"),
        (["train", "shapes", "--optimizer", "adm"], 2, "did you mean 'adam'"),
        (["train", "shapes", "--epochs", "many"], 2, "Invalid value for '--epochs': write an integer"),
        (["train", "shapes", "--lr", "fast"], 2, "Invalid value for '--lr': write a number, such as 0.5"),
        (["probe", "gradients", "shapes-cnn", "--images", "0"], 2, "Invalid value for '--images': write 1 or more"),
        (["train", "shapes", "--size", "0x3"], 2, "a size is a number of pixels"),
        (["train", "folder:nowhere"], 2, "there is no folder nowhere"),
        (["evaluate", "nowhere"], 1, "nowhere does not exist"),
        (["predict", "shapes-cnn", "missing.png"], 1, "there is no file missing.png"),
        (["predict", "shapes-cnn", "shapes:test/999"], 2, "images 0 to 199, not 999"),
        (["predict", "shapes-cnn", "shapes:tset/3"], 2, "no split is called 'tset'; did you mean 'test'"),
        (["train", "shapes", "--model-arg", "kernels=x"], 2, "kernels of shapes-cnn must be 2 values"),
        (
            ["train", "crosses", "--model", "simple-cnn"],
            1,
            "fails: pool (MaxPool2d) has a kernel of 2, larger than its input",
        ),
        (["filter", "square", "--kernel", "sobelx"], 2, "did you mean 'sobel-x'"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_bad_input_gets_one_sentence(
    convscope: Commands, empty: Path, arguments: list[str], status: int, message: str
) -> None:
    text = convscope(*arguments)
    assert text.status == status, text.err
    assert message in text.err
    assert "Traceback" not in text.err
    assert not list(empty.iterdir())


def test_a_process_that_refuses_ends_with_a_sentence_and_its_status(tmp_path: Path) -> None:
    result = process("train", "shappes", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, ""), result.stderr
    assert "error: no data set is called 'shappes'; did you mean 'shapes'" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_too_little_memory_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise MemoryError("Unable to allocate 36.5 GiB")

    monkeypatch.setattr("convscope.data.generated.paint", refuse)
    monkeypatch.setattr(sys, "argv", ["convscope", "train", "shapes", "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert capsys.readouterr().err.startswith("error: not enough memory; use smaller batches")


def test_more_images_than_there_is_memory_for_are_refused_before_any_is_drawn(
    empty: Path, monkeypatch: pytest.MonkeyPatch, convscope: Commands
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("nothing is drawn")

    monkeypatch.setattr("convscope.data.generated.distinct", refuse)
    message = convscope("train", "shapes", "--images", str(10**13))
    assert message.status == 1
    assert message.err.startswith("error: 10,000,000,000,000 images of shapes need about 23,520,000 GB of memory, and ")
    assert message.err.endswith(" GB are free here. Ask for fewer.\n")
    assert not list(empty.iterdir())


def test_huge_losses_are_short(empty: Path, convscope: Commands) -> None:
    message = convscope.said("train", "shapes", "--lr", "1e30", "--epochs", "2", "--out", "run")
    message += convscope.said("evaluate", "run")
    losses = re.findall(r"loss (\S+?),?(?:\s|$)", message.split("cross-entropy", 1)[1])
    assert len(losses) == 5
    assert all(re.fullmatch(r"\d(\.\d+)?e\d\d", loss) for loss in losses), losses


def test_clumsy_words_get_a_sentence(run: Path, empty: Path, convscope: Commands) -> None:
    Image.new("L", (2, 2)).save("tiny.png")
    big = str(2**64)
    for command, status, sentence in (
        (["train", "shapes", "--seed", big, "--out", "r"], 2, f"seed must be at most {2**64 - 1}, not {big}."),
        (
            ["evaluate", f"{run}/config.json"],
            1,
            f"{run}/config.json is a file, and a run is a folder; did you mean {run}?",
        ),
        (["predict", run, "http://a.b/dog.png"], 2, "is an address, and nothing is downloaded; save the picture"),
        (["predict", run, "tiny.png", "--classes", "a,a"], 2, "have 'a' twice; each output needs a name of its own."),
        (
            ["predict", run, "tiny.png", "--classes", "a,"],
            2,
            "have an empty name; each output needs a name of its own.",
        ),
        (["filter", "tiny.png", "--kernel", "edge"], 2, 'a smaller kernel, or mode="same" (--same).'),
        (["plot", "kernels", run, "--most", "0"], 2, "--most"),
        (["probe", "lint", "shapes-cnn"], 2, "name the data set that shapes-cnn is trained on: shapes, mnist, folder:"),
    ):
        message = convscope(*command)
        assert message.status == status, command
        assert sentence in message.err, command
    assert [path.name for path in empty.iterdir()] == ["tiny.png"]
    message = convscope("predict", run, "tiny.png", "--classes", "a,b,c")
    assert "the model has 2 outputs and 3 class names; the last names have no output." in message.err


def test_offline_with_nothing_cached_says_where_to_put_the_files(
    convscope: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline = {"XDG_CACHE_HOME": str(tmp_path), "CONVSCOPE_DATA": "", "HTTPS_PROXY": "http://127.0.0.1:9"}
    for name, value in offline.items():
        monkeypatch.setenv(name, value)
    result = convscope("train", "kmnist", "--out", tmp_path / "run")
    assert result.status == 1
    assert "train-images-idx3-ubyte" in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "run").exists()


def test_the_demo_trains_shows_and_may_be_run_again(convscope: Commands, empty: Path) -> None:
    for _ in range(2):
        text = convscope.said("demo")
        assert "Try next:" in text
        pictures = list((empty / "demo").glob("*.png"))
        assert len(pictures) >= 4
        assert all(f"demo/{path.name}" in text for path in pictures)
    (empty / "mine").mkdir()
    (empty / "mine" / "thesis.txt").write_text("")
    refused = convscope("demo", "--out", "mine")
    assert refused.status == 2
    assert "is not an earlier demo" in refused.err
    assert (empty / "mine" / "thesis.txt").exists()


def test_mnist_by_the_first_tutorials_command(convscope: Commands, shared_data: Path, tmp_path: Path) -> None:
    convscope.said("train", "mnist", "--data-dir", shared_data / "mnist", "--epochs", "1", "--out", tmp_path / "run")
    values = json.loads(convscope.said("evaluate", tmp_path / "run", "--json"))
    assert values["accuracy"] > 0.96
    assert sum(c["images"] for c in values["classes"]) == 10_000


def test_every_command_takes_a_run_that_is_called_like_a_built_in_network_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, convscope: Commands
) -> None:
    monkeypatch.chdir(tmp_path)
    cs.train("crosses", epochs=1, out="crosses")
    for command in (
        ["explain", "crosses", "crosses:plus", "--at", "pool:0,0,0"],
        ["trace", "crosses", "crosses:plus"],
        ["verify", "crosses"],
        ["predict", "crosses", "crosses:plus"],
        ["plot", "kernels", "crosses"],
        ["probe", "dead", "crosses"],
        ["probe", "lint", "crosses"],
    ):
        named = convscope(*command)
        path = convscope(*("./crosses" if word == "crosses" else word for word in command))
        assert f"note: crosses is the run in {tmp_path / 'crosses'}, not the built-in network" in named.err, command
        assert "not trained" not in named.err, command
        assert (named.out, named.status) == (path.out, path.status), command
        assert "built-in" not in path.err, command
    assert "crosses is not trained" in convscope("verify", "crosses", "--model-arg", "published=False").err
    Path("shapes-cnn").mkdir()  # a folder that is no run
    assert "shapes-cnn is not trained" in convscope("verify", "shapes-cnn").err


WRITING = {
    "report": ("report", "no-such-model", "-o", ".html"),
    "workbook": ("workbook", "no-such-model", "-o", ".xlsx"),
    "explain": ("explain", "no-such-model", "no.png", "--at", "conv1:0,0,0", "--out", ".xlsx"),
    "probe": ("probe", "dead", "no-such-model", "shapes", "--out", ".png"),
    "filter": ("filter", "no.png", "--kernel", "blur", "--out", ".png"),
    **{f"plot {kind}": ("plot", kind, "no-such-model", "--out", ".png") for kind in ("kernels", "maps", "history")},
}
"""Commands that write a file; the last argument is its suffix."""


@pytest.mark.parametrize("name", WRITING)
@pytest.mark.parametrize("where", ["missing", "folder", "link", "file"])
def test_a_file_that_cannot_be_written_is_refused_before_any_work(
    convscope: Commands, empty: Path, name: str, where: str
) -> None:
    """The model does not exist either, which a command that started to work would say."""
    *arguments, suffix = WRITING[name]
    (empty / f"folder{suffix}").mkdir()
    (empty / f"link{suffix}").symlink_to(f"link{suffix}")
    (empty / "file").touch()
    out, words = {
        "missing": (f"missing/x{suffix}", "missing is not a folder; create it first"),
        "folder": (f"folder{suffix}", f"folder{suffix} is a folder; name a file in it"),
        "link": (f"link{suffix}", f"link{suffix} cannot be written: Too many levels"),
        "file": (f"file/x{suffix}", f"file/x{suffix} cannot be written: Not a directory"),
    }[where]
    said = convscope(*arguments, out)
    assert (said.status, said.out) == (2, "")
    assert words in said.err.replace("\n", " ")


def test_a_read_only_folder_is_refused_unless_the_file_in_it_may_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != tmp_path)  # root may write everywhere
    with pytest.raises(cs.UsageError, match=r"new\.html cannot be written: permission denied"):
        cs.report("crosses", "crosses:plus", out=tmp_path / "new.html")
    (tmp_path / "own.html").touch()
    assert cs.report("crosses", "crosses:plus", out=tmp_path / "own.html").size > 100_000
