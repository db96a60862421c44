"""Workbooks in LibreOffice: recalculated from the pixels, changed, and compared number by number."""

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convscope as cs
from convscope.export.workbook import Workbook
from office import Office, missing
from spreadsheet import name, position

NETWORKS = {
    "crosses": ("crosses:plus", None),
    "shapes-mlp": ("shapes:test/3", None),
    "shapes-cnn-1": ("shapes:test/3", None),
    "shapes-cnn": ("shapes:test/3", None),
    "color-cnn": ("color-shapes:test/3", None),
    "simple-cnn": ("shapes:test/3", None),
    "mnist-small": ("shapes:test/3", None),
    "mnist-convnet": ("shapes:test/3", ("conv2", (0, 12, 12))),
    "mlp-512": ("shapes:test/3", ("fc1", (7,))),
}


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    if missing():
        pytest.skip(missing())
    with Office(tmp_path_factory.mktemp("office")) as running:
        yield running


def with_wrong_results(path: Path) -> Path:
    """A copy of a workbook in which every formula's stored result is 12345."""
    wrong = path.with_name("wrong.xlsx")
    changed = 0
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(wrong, "w", zipfile.ZIP_DEFLATED) as copy:
        for member in source.namelist():
            text = source.read(member)
            if member.startswith("xl/worksheets/sheet"):
                text, count = re.subn(rb"(</f><v>)[^<]*(</v>)", rb"\g<1>12345\g<2>", text)
                changed += count
            copy.writestr(member, text)
    assert changed
    return wrong


def numbers_of(office: Office, book: Workbook) -> dict[Any, Any]:
    """What LibreOffice has in the cells of every calculated tensor."""
    pages: dict[str, list[list[float | str]]] = {}
    result = {}
    for numbers in book.chain.calculated:
        index, block = book.layout.blocks[numbers.key]
        page = book.layout.names[index]
        rows = pages.setdefault(page, office.values(page))
        pairs = zip(block.rows.tolist(), block.columns.tolist(), strict=True)
        result[numbers.key] = np.array([rows[row][column] for row, column in pairs], float)
    return result


@pytest.mark.study
@pytest.mark.parametrize("model", NETWORKS)
def test_libreoffice_calculates_the_network_and_follows_a_pixel(office: Office, tmp_path: Path, model: str) -> None:
    source, at = NETWORKS[model]
    network = cs.load_model(model, seed=3)
    image = np.array(cs.load_image(source, like=network))
    book = cs.workbook(network, image, at=at, out=tmp_path / "net.xlsx")
    office.load(with_wrong_results(tmp_path / "net.xlsx"))
    for key, values in numbers_of(office, book).items():
        numbers = book.chain.tensors[key]
        assert (np.abs(values - numbers.recorded) <= numbers.bound).all(), key
        np.testing.assert_allclose(values, numbers.live, rtol=1e-9, atol=1e-12)
    [[count]] = [[row[1]] for row in office.values("differences")[3:4]]
    assert count == book.formulas
    office.load(tmp_path / "net.xlsx")

    pixel = tuple(map(int, next(iter(book.chain.tensors.values())).cells[0]))
    image[pixel[1:]] = 0.625
    index, _ = next(place for key, place in book.layout.blocks.items() if key.kind == "input")
    office.set(book.layout.names[index], cell_of(book, "input", pixel), 0.625)
    changed = cs.workbook(network, image, at=at, out=tmp_path / "changed.xlsx")
    moved = 0
    for key, values in numbers_of(office, book).items():
        numbers = changed.chain.tensors[key]
        assert (np.abs(values - numbers.recorded) <= numbers.bound).all(), key
        moved += int((numbers.recorded != book.chain.tensors[key].recorded).sum())
    assert moved > 0


@pytest.mark.study
def test_trace_precedents_leads_to_the_window_the_kernel_and_the_bias(office: Office, tmp_path: Path) -> None:
    book = cs.workbook("crosses", "crosses:plus", out=tmp_path / "net.xlsx")
    office.load(tmp_path / "net.xlsx")
    conv = next(numbers for numbers in book.chain.calculated if numbers.key.name == "conv1")
    index, _ = book.layout.blocks[conv.key]
    result = cell_of(book, "conv1", (0, 0, 1, 1))
    window = {cell_of(book, "input", (0, 0, row, column)) for row in range(3) for column in range(3)}
    kernel = {cell_of(book, "conv1.weight", (0, 0, row, column)) for row in range(3) for column in range(3)}
    expected = {result, cell_of(book, "conv1.bias", (0,)), *window, *kernel}
    assert cells_in(office.precedents(book.layout.names[index], result)) == expected


@pytest.mark.study
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "adadelta", "rmsprop"])
def test_libreoffice_follows_a_change_of_a_training_step(office: Office, tmp_path: Path, optimizer: str) -> None:
    model = cs.load_model("crosses", seed=0)
    image = np.array(cs.load_image("crosses:damaged-plus", like=model))
    weight = model.state_dict()["conv1.weight"].numpy().copy()

    def traced(rate: float) -> cs.Trace:
        given = {"conv1.weight": weight}
        return cs.trace(model, image, target=1, loss="mse", optimizer=optimizer, lr=rate, overrides=given)

    book = cs.workbook(traced(1.0), out=tmp_path / "step.xlsx")
    office.load(with_wrong_results(tmp_path / "step.xlsx"))
    for key, values in numbers_of(office, book).items():
        numbers = book.chain.tensors[key]
        assert (np.abs(values - numbers.recorded) <= numbers.bound).all(), key
        np.testing.assert_allclose(values, numbers.live, rtol=1e-9, atol=1e-12)
    assert office.values("differences")[3][1] == book.formulas
    assert office.load(tmp_path / "step.xlsx") < 2

    image[0, 1, 2], weight[0, 0, 2, 0] = 0.625, 0.75
    changes = {"input": ((0, 0, 1, 2), 0.625), "conv1.weight": ((0, 0, 2, 0), 0.75), "lr": ((), 0.25)}
    for name_of, (cell, value) in changes.items():
        index = next(place for key, (place, _) in book.layout.blocks.items() if key.name == name_of)
        office.set(book.layout.names[index], cell_of(book, name_of, cell), value)
    changed = cs.workbook(traced(0.25), out=tmp_path / "changed.xlsx")
    moved = set()
    for key, values in numbers_of(office, book).items():
        numbers = changed.chain.tensors[key]
        assert (np.abs(values - numbers.recorded) <= numbers.bound).all(), key
        moved |= {key.name} if (numbers.recorded != book.chain.tensors[key].recorded).any() else set()
    assert {"loss", "conv1.weight.grad", "conv1.weight.updated", "conv1.bias.updated"} <= moved


@pytest.mark.study
@pytest.mark.parametrize("model", ["shapes-cnn-1", "color-cnn", "shapes-cnn", "simple-cnn"])
def test_libreoffice_follows_a_change_through_max_pooling_and_cross_entropy(
    office: Office, tmp_path: Path, model: str
) -> None:
    network = cs.load_model(model, seed=3)
    image = np.array(cs.load_image("color-shapes:test/3" if model == "color-cnn" else "shapes:test/3", like=network))
    step: dict[str, Any] = {"loss": "cross-entropy", "optimizer": "adam", "lr": 0.001}
    book = cs.workbook(network, image, target=1, out=tmp_path / "step.xlsx", **step)
    assert not book.beyond
    office.load(with_wrong_results(tmp_path / "step.xlsx"))
    for key, values in numbers_of(office, book).items():
        numbers = book.chain.tensors[key]
        np.testing.assert_allclose(values, numbers.live, rtol=1e-9, atol=1e-12, err_msg=str(key))
    assert office.values("differences")[3][1] == book.formulas

    image[:, 13, 14] = 1.0 - image[:, 13, 14] - 0.25
    for channel, value in enumerate(image[:, 13, 14].tolist()):
        office.set("input", cell_of(book, "input", (0, channel, 13, 14)), value)
    office.set("target", cell_of(book, "target", (0,)), 0)
    changed = cs.workbook(network, image, target=0, out=tmp_path / "changed.xlsx", **step)
    moved = set()
    for key, values in numbers_of(office, book).items():
        numbers = changed.chain.tensors[key]
        assert (np.abs(values - numbers.recorded) <= numbers.bound).all(), key
        moved |= {key.name} if (numbers.recorded != book.chain.tensors[key].recorded).any() else set()
    *_, last = (name for name, _ in network.named_parameters())
    assert {"loss", "conv1.weight.grad", "conv1.weight.updated", f"{last}.updated"} <= moved


def cell_of(book: Workbook, tensor: str, cell: tuple[int, ...]) -> str:
    """Where a number is on its sheet."""
    block = next(block for key, (_, block) in book.layout.blocks.items() if key.name == tensor)
    which = int(np.flatnonzero((block.numbers.cells == cell).all(axis=1))[0])
    return name(int(block.rows[which]), int(block.columns[which]))


def cells_in(ranges: list[str]) -> set[str]:
    """All cells of some ranges such as $conv1.$B$8:$D$10."""
    result = set()
    for text in ranges:
        first, _, last = text.rpartition(".")[2].replace("$", "").partition(":")
        (top, left), (bottom, right) = position(first), position(last or first)
        result |= {name(row, column) for row in range(top, bottom + 1) for column in range(left, right + 1)}
    return result
