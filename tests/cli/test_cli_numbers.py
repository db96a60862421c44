"""The commands trace, explain and verify as their users meet them: what they print, and how they fail."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convscope as cs
from commands import Commands
from convscope.reference.operation import Operation
from convscope.reference.table import OPERATIONS

MODEL = '''
import torch
from torch import nn


class Net(nn.Module):
    """A convolution, a ReLU in place, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(1, 2, 3)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(2 * 6 * 6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.relu(self.conv1(x)).flatten(1))


class Odd(Net):
    """The same with an operation that has no witness."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.i0(self.conv1(x))
'''


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("numbers") / "net.py"
    path.write_text(MODEL)
    return path


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("numbers") / "small.png"
    Image.frombytes("L", (8, 8), bytes(range(0, 256, 4))).save(path)
    return path


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference that gets ReLU wrong."""
    wrong = Operation(lambda x: np.maximum(x, 0.0) + 0.5, OPERATIONS["relu"].error)
    monkeypatch.setitem(OPERATIONS, "relu", wrong)


def test_trace_lists_the_steps(convscope: Commands, net: Path, image: Path) -> None:
    listed = convscope("trace", f"{net}:Net", image)
    assert listed.status == 0
    lines = [re.split(r"  +", line.strip()) for line in listed.out.splitlines()]
    assert [line[1:4] for line in lines[1:5]] == [
        ["conv1", "convolution 3x3", "1x2x6x6"],
        ["relu", "relu", "1x2x6x6"],
        ["flatten", "flatten to 72", "1x72"],
        ["fc", "linear 72 to 3", "1x3"],
    ]
    assert "conv1.weight 2x1x3x3, conv1.bias 2" in listed.out
    assert "fc.weight 3x72, fc.bias 3" in listed.out
    assert "not listed: 1 hidden" in listed.out
    every = convscope("trace", f"{net}:Net", image, "--hidden").out
    assert "fc.t" in every
    assert "not listed" not in every


def test_trace_as_json(convscope: Commands, net: Path, image: Path) -> None:
    plain = json.loads(convscope("trace", f"{net}:Net", image, "--json").out)
    first = plain["steps"][0]
    assert (first["name"], first["op"], first["shape"], first["dtype"]) == (
        "conv1",
        "convolution",
        [1, 2, 6, 6],
        "float32",
    )
    assert first["parameters"] == {"weight": "conv1.weight", "bias": "conv1.bias"}
    assert float(first["min"]) < float(first["max"])


def test_trace_and_verify_say_where_numbers_left(convscope: Commands, image: Path, tmp_path: Path) -> None:
    net = tmp_path / "leaving.py"
    net.write_text(
        "import torch\nfrom torch import nn\n\n\nclass Leaving(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.conv = nn.Conv2d(1, 2, 3)\n\n    def forward(self, x):\n"
        "        return self.conv(x) / x.abs().max().item()\n"
    )
    for command in ("trace", "verify"):
        out = convscope(command, f"{net}:Leaving", image).out
        assert "hain to the image is broken at div" in " ".join(out.split())
    result = json.loads(convscope("trace", f"{net}:Leaving", image, "--json").out)
    assert "broken at div" in result["notes"][0]


def test_explain_prints_the_sum(convscope: Commands, net: Path, image: Path) -> None:
    message = convscope("explain", f"{net}:Net", image, "--at", "conv1:1,2,3")
    assert message.status == 0
    assert message.out.startswith("conv1 (1, 2, 3) = ")
    assert "conv1.bias[1]" in message.out
    assert "✓ proved" in message.out
    brief = convscope("explain", f"{net}:Net", image, "--at", "conv1:1,2,3", "--short").out
    assert brief.splitlines()[0].endswith("   ✓ proved")
    assert "recorded" not in brief
    assert brief.splitlines()[1] == message.out.splitlines()[1]
    deeper = convscope("explain", f"{net}:Net", image, "--at", "relu:1,2,3", "--depth", "2").out
    assert "where these numbers come from" in deeper
    assert "conv1 (1, 2, 3) = " in deeper


def test_explain_as_json_and_back_to_the_input(convscope: Commands, net: Path, image: Path) -> None:
    plain = json.loads(convscope("explain", f"{net}:Net", image, "--at", "fc:2", "--json").out)
    assert plain["cell"] == [0, 2]
    assert plain["proved"] is True
    assert convscope("explain", f"{net}:Net", image, "--at", "fc:2", "--to-input").status == 0


@pytest.mark.parametrize(
    ("at", "says"),
    [
        ("conv1:5,0,0", "its shape is (2, 6, 6), its cells are 0 to 1 x 0 to 5 x 0 to 5"),
        ("conv2:0,0,0", "conv1"),
        ("conv1:a,b", "a cell is written STEP:CHANNEL,ROW,COLUMN or STEP:UNIT, not 'conv1:a,b'."),
    ],
)
def test_a_wrong_place_gets_a_sentence(convscope: Commands, net: Path, image: Path, at: str, says: str) -> None:
    message = convscope("explain", f"{net}:Net", image, "--at", at)
    assert message.status == 2
    assert says in message.err.replace("\n", " ")
    assert not message.out


def test_verify_proves_with_an_image_and_with_noise(convscope: Commands, net: Path, image: Path) -> None:
    for arguments in ([f"{net}:Net", image], ["crosses"]):
        message = convscope("verify", *arguments)
        assert message.status == 0, message.err
        assert "✓ " in message.out
        assert "100 % recomputed, 100 % proved" in message.out
        assert "exact" in message.out
        assert "fc.t" not in message.out  # layout is hidden where it is proved


def test_verify_as_json(convscope: Commands, net: Path, image: Path) -> None:
    plain = json.loads(convscope("verify", f"{net}:Net", image, "--cells", "10", "--json").out)
    assert plain["proved"] is True
    assert {step["finding"] for step in plain["steps"]} == {"proved"}
    assert plain["steps"][0]["explained"] < 30


def test_a_mismatch_ends_with_status_1_and_shows_its_worst_cell(
    convscope: Commands, net: Path, image: Path, broken: Any
) -> None:
    message = convscope("verify", f"{net}:Net", image)
    assert message.status == 1
    assert "✗ relu at (0, " in message.out
    assert "✗ mismatch" in message.out
    assert "✓ " not in message.out.splitlines()[-1]
    plain = json.loads(convscope("verify", f"{net}:Net", image, "--json").out)
    assert plain["proved"] is False
    assert [step["name"] for step in plain["steps"] if step["mismatch"]] == ["relu"]


def test_what_has_no_witness_is_named_and_is_no_failure(convscope: Commands, net: Path, image: Path) -> None:
    message = convscope("verify", f"{net}:Odd", image)
    assert message.status == 0
    assert "unsupported" in message.out
    assert message.out.rstrip().endswith("without a witness: i0")
    assert "✓ " not in message.out.splitlines()[-1]


def test_a_step_of_many_numbers_wants_one_of_them_named(convscope: Commands, net: Path, image: Path) -> None:
    message = convscope("explain", f"{net}:Net", image, "--at", "conv1")
    assert message.status == 2
    assert (
        "conv1 has 2x6x6 numbers; name one of them, counted from 0, such as --at conv1:0,0,0."
        in message.err.replace("\n", " ")
    )


def test_fresh_weights_are_said_to_be_random(convscope: Commands, net: Path, image: Path) -> None:
    message = convscope("trace", f"{net}:Net", image)
    assert "is not trained: its weights are as initialized by its code" in message.err.replace("\n", " ")
    assert "not trained" not in convscope("trace", "crosses", "crosses:plus", "--model-arg", "published=True").err
    assert "its weights are random" in convscope("trace", "crosses", "crosses:plus").err.replace("\n", " ")


def test_explain_asks_for_a_number_and_open_for_a_folder_that_is_there(convscope: Commands) -> None:
    assert "name a number by --at STEP:CELL" in convscope("explain", "crosses", "crosses:plus").err
    assert "there is no run folder runs/nope" in convscope("trace", "runs/nope", "crosses:plus").err


def test_explain_repeats_the_notes_of_its_trace(convscope: Commands, tmp_path: Path) -> None:
    (tmp_path / "breaks.py").write_text(
        "import torch\nfrom torch import nn\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.conv = nn.Conv2d(1, 2, 3)\n"
        "    def forward(self, x):\n        return torch.from_numpy(self.conv(x).detach().numpy() * 2) + 1\n"
    )
    arguments = ("explain", f"{tmp_path / 'breaks.py'}:Net", "shapes:test/3", "--at", "add:0,0,0")
    assert "note: the chain to the image is broken at" in convscope(*arguments).out
    assert "the chain to the image is broken at" in json.loads(convscope(*arguments, "--json").out)["notes"][0]


def test_printing_a_verification_shows_what_the_command_prints(convscope: Commands, net: Path, image: Path) -> None:
    for name in ("Net", "Odd"):
        source = f"{net}:{name}"
        report = cs.verify(cs.trace(cs.load_model(source), cs.load_image(image)))
        assert "".join(str(report).split()) == "".join(convscope("verify", source, str(image)).out.split())


def test_reports_and_workbooks_without_a_name_replace_none(
    convscope: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command, name in (("report", "report.html"), ("workbook", "network.xlsx")):
        Path(name).write_text("mine")
        numbered = Path(name).with_stem(f"{Path(name).stem}-2").name
        assert f"wrote {numbered} (" in convscope.said(command, "crosses", "crosses:plus")
        assert Path(name).read_text() == "mine"
        assert f"wrote {name} (" in convscope.said(command, "crosses", "crosses:plus", "--out", name)
