"""Workbooks: formulas that give the network's numbers, follow a change, and name what they cannot write."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import convscope as cs
from commands import Commands
from convscope.cards.card import Card, attach
from convscope.export.formulas import FORMULAS, rectangles
from convscope.export.workbook import Workbook
from convscope.expr.primitives import PRIMITIVES
from spreadsheet import Spreadsheet, name


class Layers(nn.Module):
    """Every kind of formula that the built-in networks lack, in one small network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, (3, 2), stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2, bias=False)
        self.norm = nn.GroupNorm(3, 6)
        self.up = nn.ConvTranspose2d(6, 3, 2)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Linear(3, 4, bias=False)
        self.fc2 = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2, H, W) to (N, 3)."""
        x = nn.functional.leaky_relu(self.bn1(self.conv1(x)), 0.2)
        y = torch.sigmoid(self.norm(self.conv2(x))) * 0.5 + 0.25
        x = nn.functional.hardswish(self.up(y))
        x = nn.functional.silu(self.pool(x)) - nn.functional.elu(-self.pool(x))
        x = nn.functional.layer_norm(torch.flatten(self.mean(x), 1), (3,))
        return torch.log_softmax(self.fc2(torch.tanh(self.fc1(x))), 1)


@pytest.fixture(scope="module")
def layers() -> nn.Module:
    torch.manual_seed(2)
    model = Layers().eval()
    model.load_state_dict({**model.state_dict(), "bn1.running_mean": torch.full((4,), 0.3)})
    return model


def saved(model: Any, image: Any, folder: Path, **options: Any) -> tuple[Workbook, Spreadsheet]:
    book = cs.workbook(model, image, **options)
    book.save(folder / "net.xlsx")
    return book, Spreadsheet(folder / "net.xlsx")


def values_of(book: Workbook, sheet: Spreadsheet, key: Any) -> Any:
    """What the formulas of one tensor give."""
    index, block = book.layout.blocks[key]
    page = book.layout.names[index]
    cells = zip(block.rows.tolist(), block.columns.tolist(), strict=True)
    return np.array([sheet.get(page, name(row, column)) for row, column in cells])


def assert_follows(book: Workbook, sheet: Spreadsheet) -> None:
    """Every formula gives what the chain of calculations gives, and is as near to PyTorch's number as it may be."""
    assert not book.beyond
    for numbers in book.chain.calculated:
        values = values_of(book, sheet, numbers.key)
        np.testing.assert_allclose(values, numbers.live, rtol=1e-9, atol=1e-12, err_msg=numbers.key.name)
        assert (np.abs(values - numbers.recorded) <= numbers.bound).all(), numbers.key.name


@pytest.fixture(scope="module")
def colors(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workbook, Spreadsheet]:
    model = cs.load_model("color-cnn", seed=3)
    return saved(model, "color-shapes:test/3", tmp_path_factory.mktemp("colors"))


def test_formulas_give_the_numbers_of_a_network(colors: tuple[Workbook, Spreadsheet]) -> None:
    book, sheet = colors
    assert_follows(book, sheet)
    assert [len(book.chain.tensors[key]) for key in book.chain.tensors if key.name in {"conv1", "input"}] == [
        2352,
        1568,
    ]
    assert len(sheet.formulas) == 2 * book.formulas + 3  # the differences, the answer's two, and the count
    assert sheet.get("differences", "B4") == book.formulas


def test_formulas_of_many_layers_give_their_numbers(layers: nn.Module, tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(size=(2, 9, 10)).astype(np.float32)
    book, sheet = saved(layers, image, tmp_path)
    assert {"up", "norm", "leaky_relu", "sigmoid", "hardswish", "elu", "log_softmax"} <= {*sheet.names}
    assert_follows(book, sheet)


def test_a_changed_pixel_and_a_changed_weight_change_the_answer_as_in_pytorch(
    layers: nn.Module, tmp_path: Path
) -> None:
    image = np.random.default_rng(1).normal(size=(2, 9, 10)).astype(np.float32)
    book, sheet = saved(layers, image, tmp_path)
    changes = (("input", (1, 4, 5), 2.5), ("conv2.weight", (5, 1, 1, 2), -1.25))
    for tensor, cell, value in changes:
        key = next(key for key in book.layout.blocks if key.name == tensor)
        index, block = book.layout.blocks[key]
        at = int(np.flatnonzero((block.numbers.cells[:, -len(cell) :] == cell).all(axis=1))[0])
        sheet.set(book.layout.names[index], name(int(block.rows[at]), int(block.columns[at])), value)
    image[1, 4, 5] = 2.5
    weight = layers.state_dict()["conv2.weight"].numpy().copy()
    weight[5, 1, 1, 2] = -1.25
    other = cs.workbook(cs.trace(layers, image, overrides={"conv2.weight": weight}))
    other.save(tmp_path / "other.xlsx")
    before = np.concatenate([numbers.recorded for numbers in book.chain.calculated])
    after = np.concatenate([numbers.recorded for numbers in other.chain.calculated])
    assert np.abs(before - after)[-3:].min() > 1e-4
    for numbers in other.chain.calculated:
        values = values_of(book, sheet, numbers.key)
        assert (np.abs(values - numbers.recorded) <= numbers.bound).all(), numbers.key.name


def test_stored_results_are_the_recorded_numbers(colors: tuple[Workbook, Spreadsheet]) -> None:
    book, sheet = colors
    listed = iter(range(7, 7 + book.formulas))
    for numbers in book.chain.calculated:
        index, block = book.layout.blocks[numbers.key]
        page = book.layout.names[index]
        for row, column, value in zip(block.rows, block.columns, numbers.recorded, strict=True):
            assert sheet.stored[page, name(int(row), int(column))] == value
            assert sheet.stored["recorded", f"C{next(listed)}"] == pytest.approx(value, rel=1e-15)
    first = book.chain.calculated[0]
    assert sheet.stored["differences", "C7"] == pytest.approx(first.live[0] - first.recorded[0], abs=1e-20)


def test_a_workbook_has_plain_references_and_reaches_for_nothing(colors: tuple[Workbook, Spreadsheet]) -> None:
    _, sheet = colors
    assert not [member for member in sheet.members if re.search("vba|external|connection|macro", member, re.IGNORECASE)]
    assert b"TargetMode" not in b"".join(part for member, part in sheet.members.items() if member.endswith(".rels"))
    text = " ".join(sheet.formulas.values())
    assert not re.search(r"INDIRECT|OFFSET|\[|\{|_xlfn|http", text)
    calls = {*re.findall(r"([A-Z.]+)\(", text)}
    assert calls <= {"SUM", "SUMPRODUCT", "TANH", "MAX", "ABS", "ISNUMBER", "INDEX", "MATCH"}


def test_a_window_of_a_convolution_is_one_rectangle(colors: tuple[Workbook, Spreadsheet]) -> None:
    _, sheet = colors
    inner = next(text for at, text in sheet.formulas.items() if at == ("conv1", "AA20"))
    assert re.fullmatch(r"(SUMPRODUCT\('input'!\w+:\w+,\w+:\w+\)\+){3}\w+", inner), inner


def test_the_part_below_one_number_is_its_receptive_field(tmp_path: Path) -> None:
    model = cs.load_model("mnist-convnet", seed=0)
    image = np.random.default_rng(0).random((1, 28, 28)).astype(np.float32)
    book, sheet = saved(model, image, tmp_path, at=("conv2", (0, 12, 12)))
    assert {numbers.key.name: len(numbers) for numbers in book.chain.tensors.values()} == {
        "input": 25, "conv2.weight": 90, "conv2.bias": 1, "conv1.weight": 90, "conv1.bias": 10,
        "conv1": 90, "relu1": 90, "conv2": 1,
    }  # fmt: skip
    assert_follows(book, sheet)


@pytest.mark.parametrize(("at", "size"), [(None, "210,495"), (("fc3", (7,)), r"18\d,\d\d\d or more")])
def test_a_network_that_is_too_large_is_refused_with_its_size(at: Any, size: str) -> None:
    model = cs.load_model("mnist-convnet", seed=0)
    with pytest.raises(
        cs.UsageError, match=rf"{size} numbers, and a workbook holds 125,000; choose .* --at conv1:0,0,0"
    ):
        cs.workbook(model, np.ones((1, 28, 28), np.float32), at=at)


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


class Positions(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x > 2.5).sum(1)


class Named(nn.Module):
    """A network of steps that bear the names of formulas."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        for step in names:
            self.add_module(step, nn.Conv2d(1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """One step after the other."""
        for step in self.children():
            x = step(x)
        return x.flatten(1)


HOSTILE = [
    "=cmd|' _C calc'!A0", "+1", "-2+3", "@SUM(A1)", "A1", "recorded", "x" * 40, "x" * 39 + "y", "it's", "[other]a",
    "UNIQUE(", "<b>&amp;", "HISTORY", "tab\tline\nend\x00", "{0}", "a,b",
]  # fmt: skip


def test_hostile_names_are_text(tmp_path: Path) -> None:
    model = Named(HOSTILE)
    trace = cs.trace(model, np.ones((1, 1, 1), np.float32))
    book = cs.workbook(trace, name='=HYPERLINK("http://x")')
    book.save(tmp_path / "net.xlsx")
    sheet = Spreadsheet(tmp_path / "net.xlsx")
    assert_follows(book, sheet)
    assert len({page.lower() for page in sheet.names}) == len(sheet.names)
    assert all(0 < len(page) <= 31 and not re.search(r"[\[\]:*?/\\]|^'|'$", page) for page in sheet.names)
    own = r"'(?:[^']|'')+'![A-Z]+\d+|[A-Z]+\d+(:[A-Z]+\d+)?|recorded!C\d+|[-+*()<=,]|SUMPRODUCT|ISNUMBER|ABS"
    assert not [text for text in sheet.formulas.values() if not re.fullmatch(f"(?:{own})+", text)]
    assert '=HYPERLINK("http://x")' in str(sheet.stored["network", "A1"])


@pytest.mark.parametrize(
    ("layer", "image", "says"),
    [
        (nn.Softplus(), [[1.0]], r"softplus.* \(softplus\) cannot be written .* no formula is written for 'softplus'"),
        (Attention(), np.ones((1, 1, 3, 4)), r"attention.* cannot be written as a formula: .* intermediate numbers"),
        (Positions(), [[2.0, 3.0]], r"cannot be written as a formula: it calculates in int64"),
        (nn.ReLU(), [[np.inf]], r"relu contains nan or infinity, which spreadsheets lack"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_written_is_named(layer: nn.Module, image: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(cs.UsageError, match=says):
        cs.workbook(layer, np.asarray(image, np.float32), out=tmp_path / "net.xlsx")
    assert not [*tmp_path.iterdir()]


def test_every_formula_is_of_a_primitive() -> None:
    assert FORMULAS.keys() <= PRIMITIVES.keys()


def test_a_wrong_number_is_found_beyond_its_bound(tmp_path: Path) -> None:
    book = cs.workbook("crosses", "crosses:plus")
    conv = book.chain.calculated[0]
    conv.recorded[4] += 1e-4
    assert book.beyond == ["conv1 (0, 1, 1)"]
    book.save(tmp_path / "net.xlsx")
    assert book.beyond == ["conv1 (0, 1, 1)"]
    assert (
        book.summary()
        == "1 of 11 numbers calculated from the image are beyond their bounds, the first is conv1 (0, 1, 1)"
    )
    assert Spreadsheet(tmp_path / "net.xlsx").get("differences", "B4") == 10


class Sign(nn.Module):
    """A jump at numbers that are not exact."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3) to (N, 2)."""
        return torch.sign(self.fc(x))


def test_a_number_without_a_bound_is_not_called_within_it(tmp_path: Path) -> None:
    trace = cs.trace(Sign(), np.ones((1, 3), np.float32), batched=True)
    book = cs.workbook(trace)
    assert book.summary() == "2 of 4 numbers calculated from the image have no bound, the others are within theirs"
    book.save(tmp_path / "net.xlsx")
    sheet = Spreadsheet(tmp_path / "net.xlsx")
    assert sheet.stored["differences", "D10"] == "no bound"
    assert sheet.stored["differences", "B4"] == 2


def test_a_near_tie_is_listed(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 1), nn.ReLU())
    values = {"0.weight": torch.tensor([[0.1, 0.2]]), "0.bias": torch.tensor([-0.3 + 4e-8])}
    model.load_state_dict(values)
    book, sheet = saved(cs.trace(model, np.ones((1, 2), np.float32), batched=True), None, tmp_path)
    tie = book.ties[0]
    assert tie.name == "1 (0)"
    assert 0 < tie.apart <= tie.allowed < 1e-6
    assert sheet.stored["differences", "F7"] == "1 (0)"
    assert sheet.stored["differences", "G7"] == pytest.approx(tie.apart, rel=1e-15)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(1, 3), st.integers(0, 1)), max_size=20))
def test_rectangles_hold_every_position_once_and_in_order(runs: list[tuple[int, ...]]) -> None:
    rows: list[list[list[int]]] = []
    row, other = 0, 7
    for down, column, width, leap in runs:
        row, other = row + down, other + down + leap
        rows += [[[0, row, column + i], [1, other, 4 + i]] for i in range(width)]
    positions = np.array(rows, np.int64).reshape(-1, 2, 3)
    parts = [*rectangles(positions)]
    read = [
        part.corners + np.array([0, down, across])
        for part in parts
        for down in range(part.height)
        for across in range(part.width)
    ]
    np.testing.assert_array_equal(np.array(read, np.int64).reshape(-1, 2, 3), positions)


def test_without_xlsxwriter_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xlsxwriter", None)
    with pytest.raises(cs.UsageError, match=r"install it with `pip install 'convscope\[workbook\]'`"):
        cs.workbook("crosses", "crosses:plus")


def test_the_command_states_the_size_and_what_it_wrote(convscope: Commands, tmp_path: Path) -> None:
    out = tmp_path / "net.xlsx"
    lines = convscope.said("workbook", "crosses", "crosses:plus", "-o", out).splitlines()
    assert lines[0] == "crosses on crosses:plus: 30 numbers on 7 sheets, 11 of them formulas"
    assert re.fullmatch(
        rf"wrote {out} \(\d+ kB\): 11 numbers calculated from the image, all within their bounds", lines[1]
    )
    assert Spreadsheet(out).stored["network", "A1"] == "crosses on crosses:plus"


@pytest.mark.parametrize("file", ["net.xls", "missing/net.xlsx"])
def test_a_path_that_cannot_be_is_refused_before_any_work(convscope: Commands, tmp_path: Path, file: str) -> None:
    done = convscope("workbook", "no-such-model", "crosses:plus", "-o", tmp_path / file)
    assert done.status == 2
    assert ("is a file .xlsx" if file == "net.xls" else "is not a folder") in done.err


def test_a_file_that_cannot_be_written_is_a_sentence(convscope: Commands, tmp_path: Path) -> None:
    (tmp_path / "net.xlsx").mkdir()
    done = convscope("workbook", "crosses", "crosses:plus", "-o", tmp_path / "net.xlsx")
    assert done.status == 2
    assert done.err.splitlines()[-1] == (
        f"error: {tmp_path / 'net.xlsx'} is a folder; name a file in it, or choose another path."
    )


@pytest.mark.parametrize(
    ("model", "image", "at"),
    [
        ("crosses", "crosses:damaged-plus", "conv1:0,0,1"),
        ("crosses", "crosses:plus", "pool:0,0,0"),
        ("shapes-cnn", "shapes:test/3", "tanh1:0,4,4"),
        ("shapes-cnn", "shapes:test/3", "pool1:0,3,3"),
        ("shapes-cnn", "shapes:test/3", "fc:1"),
        ("mnist-small", "shapes:test/3", "bn1:3,4,5"),
    ],
)
def test_an_explanation_is_written_as_a_sum(
    convscope: Commands, tmp_path: Path, model: str, image: str, at: str
) -> None:
    out = tmp_path / "sum.xlsx"
    assert f"wrote {out}" in convscope.said("explain", model, image, "--at", at, "--out", out)
    sheet = Spreadsheet(out)
    lines = {text: cell[1:] for (_, cell), text in sheet.stored.items() if cell[0] == "A"}
    calculated, recorded, difference, allowed = (
        sheet.get("sum", f"B{lines[label]}") for label in ("calculated", "recorded by PyTorch", "difference", "allowed")
    )
    assert difference == recorded - calculated
    assert abs(difference) <= allowed
    assert sheet.stored["sum", f"B{lines['calculated']}"] == pytest.approx(calculated, rel=1e-12)


def test_the_scores_are_named_by_their_classes_where_the_model_knows_them(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    image = np.random.default_rng(2).random((1, 4, 4), np.float32)
    _, plain = saved(model, image, tmp_path)
    assert [plain.get("2", f"A{row}") for row in (5, 6, 7)] == [0, 1, 2]
    unnamed = "The model does not name its classes."
    assert any(str(text).startswith(unnamed) for text in plain.stored.values())

    attach(model, Card("named", classes=("=cat", "dog", "owl")))
    _, named = saved(model, image, tmp_path)
    assert [named.get("2", f"A{row}") for row in (5, 6, 7)] == ["0 =cat", "1 dog", "2 owl"]
    assert not any(str(text).startswith(unnamed) for text in named.stored.values())
    assert [named.get("2", f"B{row}") for row in (5, 6, 7)] == [plain.get("2", f"B{row}") for row in (5, 6, 7)]
    _, one = saved(model, image, tmp_path, at=("2", (1,)))
    assert one.get("2", "A5") == "1 dog"
    cs.workbook(cs.trace(model, np.stack([image, image])), out=tmp_path / "both.xlsx")
    both = Spreadsheet(tmp_path / "both.xlsx")
    assert both.get("2", "A2") == "0 is =cat, 1 is dog, 2 is owl"
