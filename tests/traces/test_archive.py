"""Saved traces that are damaged or forged: refused in one sentence, or loaded and never called proved."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor, nn

import convscope as cs
from convscope.errors import DataError
from forging import (
    ARGUMENTS,
    FORMAT,
    MODULE,
    OP,
    OVERRIDDEN,
    RESULTS,
    STEP_FORMAT,
    Arrays,
    Header,
    forged,
    report_of,
    written,
    written_step,
)

FORMER = Path(__file__).parent / "data" / "trace-1.safetensors"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Arrays, Header]:
    return written(tmp_path_factory.mktemp("trace") / "t")


def step(header: Header, name: str) -> list[Any]:
    result: list[Any] = next(row for row in header["steps"] if row[1] == name)
    return result


def ref(header: Header, name: str, argument: str) -> list[Any]:
    result: list[Any] = step(header, name)[ARGUMENTS]["map"][argument]["ref"]
    return result


def test_what_was_saved_is_proved_like_the_live_trace(original: tuple[Arrays, Header], tmp_path: Path) -> None:
    report = report_of(forged(tmp_path / "t", original))
    assert report is not None
    assert report.proved
    assert report.saved
    assert [str(part) for part in report.returned] == ["the output is what fc holds, bit for bit"]


def test_a_trace_of_the_first_format_still_loads() -> None:
    trace = cs.Trace.load(FORMER)
    assert trace.returned is None
    report = cs.verify(trace)
    assert report.proved
    assert [part.source for part in report.returned] == ["fc", "amax", "slice#4"]
    assert trace.output["scores"].shape == (1, 3)


def test_a_lie_in_the_first_format_is_not_proved(tmp_path: Path) -> None:
    with safe_open(FORMER, "numpy") as file:
        arrays, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    for name in ("result/0", "result/1", "result/2"):
        save_file({**arrays, name: np.asarray(arrays[name] + 1)}, tmp_path / "t", metadata)
        report = report_of(tmp_path / "t")
        assert report is not None
        assert "is held by no step" in report.summary()
    forged_ = {"convscope-trace-2": metadata["convscope-trace-1"]}
    save_file(arrays, tmp_path / "t", forged_)
    assert report_of(tmp_path / "t") is None


# Views of parameters: every place that a header names lies inside the array.

VIEWS: dict[str, Callable[[list[Any]], Any]] = {
    "shape beyond the array": lambda r: r.__setitem__(4, {"tuple": [2, 1, 400, 400]}),
    "stride beyond the array": lambda r: r.__setitem__(6, {"tuple": [1 << 40, 1, 1, 1]}),
    "one cell beyond the array": lambda r: r.__setitem__(7, 1),
    "offset beyond the array": lambda r: r.__setitem__(7, 1 << 50),
    "negative stride": lambda r: r.__setitem__(6, {"tuple": [9, 9, -3, 1]}),
    "negative offset": lambda r: r.__setitem__(7, -1),
    "negative size": lambda r: r.__setitem__(4, {"tuple": [2, 1, -3, 3]}),
    "places that overflow": lambda r: r.__setitem__(6, {"tuple": [2**62, 2**62, 3, 1]}),
    "a size of a trillion in no memory": lambda r: (
        r.__setitem__(4, {"tuple": [1000000, 1000000, 1, 1]}), r.__setitem__(6, {"tuple": [0, 0, 0, 0]})
    ),
    "another type": lambda r: r.__setitem__(5, "float64"),
    "an unknown type": lambda r: r.__setitem__(5, "float128"),
    "true for a number": lambda r: r.__setitem__(7, False),
    "a parameter that is not there": lambda r: r.__setitem__(1, 99),
    "a step that comes later": lambda r: (r.__setitem__(0, "step"), r.__setitem__(1, 7)),
    "an unknown kind": lambda r: r.__setitem__(0, "file"),
    "another name": lambda r: r.__setitem__(2, "conv2.weight"),
}  # fmt: skip


@pytest.mark.parametrize("name", VIEWS)
def test_no_view_reaches_beyond_its_array(name: str, original: tuple[Arrays, Header], tmp_path: Path) -> None:
    path = forged(tmp_path / "t", original, header=lambda h: VIEWS[name](ref(h, "conv1", "weight")))
    with pytest.raises(DataError, match="is not a trace saved by convscope, or is damaged"):
        cs.Trace.load(path)


def test_an_expanded_parameter_is_read_as_the_view_that_it_was(tmp_path: Path) -> None:
    class Expanded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.row = nn.Parameter(torch.rand(1, 3))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.row.expand(4, 3) + self.row[:, 1:2]

    cs.trace(Expanded(), torch.rand(1, 4, 3)).save(tmp_path / "t")
    assert cs.verify(cs.Trace.load(tmp_path / "t")).proved


def test_the_calls_of_a_file_ask_for_no_more_memory_than_its_tensors(
    original: tuple[Arrays, Header], tmp_path: Path
) -> None:
    def padded(header: Header) -> None:
        step(header, "conv1")[ARGUMENTS]["map"]["padding"] = [10**6, 10**6]

    with pytest.raises(DataError, match="asks for far more cells than its tensors have"):
        cs.Trace.load(forged(tmp_path / "t", original, header=padded))


# The answer, and what it comes from.


def all_nine(arrays: Arrays) -> None:
    arrays.update({name: array * 0 + 9 for name, array in arrays.items() if name.startswith(("output/", "result/"))})


def unknown(header: Header, *, also_result: bool = True) -> None:
    header["steps"] = []
    if also_result:
        del header["returned"]


def swapped(header: Header, one: str, other: str) -> None:
    first, second = step(header, one), step(header, other)
    first[1], second[1] = other, one


def swapped_everywhere(header: Header, one: str, other: str) -> None:
    """Also where other steps read them."""
    text = json.dumps(header["steps"]).replace(f'"{one}"', '"?"').replace(f'"{other}"', f'"{one}"')
    header["steps"] = json.loads(text.replace('"?"', f'"{other}"'))
    for row in header["steps"]:
        if row[1] in {one, other}:
            row[MODULE] = other if row[1] == one else one


def without_last(header: Header) -> None:
    del header["steps"][-1]


def narrowed(header: Header) -> None:
    step(header, "fc")[RESULTS]["tuple"][0]["ref"][5] = "bfloat16"
    header["returned"][0]["ref"][5] = "bfloat16"


LIES: dict[str, tuple[Callable[[Arrays], Any], Callable[[Header], Any]]] = {
    "another answer": (lambda a: a.update({"result/0": a["result/0"] * 0 + 42}), lambda _: None),
    "the last bit of the answer": (
        lambda a: a.update({"result/0": np.nextafter(a["result/0"], np.float32(9))}), lambda _: None
    ),
    "-0.0 for 0.0": (lambda a: a.update({"result/0": -a["result/0"]}), lambda _: None),
    "all numbers, said to be memory": (
        all_nine, lambda h: [row.__setitem__(OP, "empty") for row in h["steps"]]
    ),
    "all numbers, said to be drawn": (all_nine, lambda h: [row.__setitem__(OP, "randn") for row in h["steps"]]),
    "all numbers, said to be given": (all_nine, lambda h: [row.__setitem__(OVERRIDDEN, True) for row in h["steps"]]),
    "one step, said to be given": (
        lambda a: a.update({"output/0/0": a["output/0/0"] + 1}), lambda h: h["steps"][0].__setitem__(OVERRIDDEN, True)
    ),
    "no steps": (lambda _: None, lambda h: h.__setitem__("steps", [])),
    "no steps, and nothing said of the answer": (lambda _: None, unknown),
    "the last step deleted": (lambda _: None, without_last),
    "the last step deleted, and nothing said": (lambda _: None, lambda h: (h["steps"].pop(), h.pop("returned"))),
    "the answer is a plain number": (
        lambda _: None, lambda h: (h.update(result=42.0), h.pop("returned"))
    ),
    "there is no answer": (lambda _: None, lambda h: (h.update(result=None), h.pop("returned"))),
    "other weights": (lambda a: a.update({"parameter/fc.bias": a["parameter/fc.bias"] + 1}), lambda _: None),
    "another digest": (lambda _: None, lambda h: h.update(weights="0" * 64)),
    "exchanged names": (lambda _: None, lambda h: swapped(h, "conv1", "conv2")),
    "exchanged names everywhere": (lambda _: None, lambda h: swapped_everywhere(h, "conv1", "conv2")),
    "exchanged parameters": (
        lambda a: a.update({"parameter/conv1.bias": a["parameter/conv2.bias"],
                            "parameter/conv2.bias": a["parameter/conv1.bias"]}), lambda _: None
    ),
    "another module": (lambda _: None, lambda h: step(h, "conv1").__setitem__(MODULE, "conv2")),
    "wider bounds by a narrower type": (
        lambda a: a.update({n: a[n] * np.float32(1.002) for n in a if n.startswith("result/")}
                           | {n: a[n] * np.float32(1.002) for n in a if a[n].shape == (1, 3) and n[:7] == "output/"}),
        narrowed,
    ),
    "a missing array": (lambda a: a.pop("output/0/0"), lambda _: None),
    "another shape": (lambda a: a.update({"output/0/0": a["output/0/0"][:, :1]}), lambda _: None),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_no_lie_is_proved(name: str, original: tuple[Arrays, Header], tmp_path: Path) -> None:
    arrays, header = LIES[name]
    report = report_of(forged(tmp_path / "t", original, arrays=arrays, header=header))
    assert report is None or not report.proved


def test_numbers_that_only_the_file_calls_given_are_in_the_first_words(
    original: tuple[Arrays, Header], tmp_path: Path
) -> None:
    arrays, header = LIES["all numbers, said to be given"]
    report = report_of(forged(tmp_path / "t", original, arrays=arrays, header=header))
    assert report is not None
    assert report.summary().startswith(f"not proved, {report.given:,} numbers are given by the file")
    assert report.share == 0


def test_the_answer_is_the_end_of_the_report(original: tuple[Arrays, Header], tmp_path: Path) -> None:
    report = report_of(forged(tmp_path / "t", original, arrays=LIES["another answer"][0]))
    assert report is not None
    assert report.wrong
    assert not report.mismatches
    assert report.summary().startswith("not proved, the output is not what fc holds; ")
    assert report.to_json()["returned"][0]["held"] is False


def test_memory_without_numbers_is_given_in_a_file_too(tmp_path: Path) -> None:
    cs.trace(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), torch.rand(1, 1, 6, 6)).save(tmp_path / "t")
    report = report_of(tmp_path / "t")
    assert report is not None
    assert "given" in {one.finding for one in report.steps}
    assert report.proved


# A training step: loss, gradients and update.


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> tuple[Arrays, Header]:
    return written_step(tmp_path_factory.mktemp("step") / "t")


def test_a_saved_training_step_is_explained_and_verified_like_the_live_one(tmp_path: Path) -> None:
    torch.manual_seed(2)
    live = cs.trace(cs.load_model("shapes-cnn"), torch.rand(3, 1, 28, 28), target=[0, 1, 1], optimizer="adam", lr=0.1)
    live.save(tmp_path / "t")
    again = cs.Trace.load(tmp_path / "t")
    assert again.training_step == live.training_step
    assert [(step.aliases, step.position) for step in again] == [(step.aliases, step.position) for step in live]
    one, other = cs.verify(live, cells=20), cs.verify(again, cells=20)
    assert other.proved
    assert [step.finding for step in one.steps] == [step.finding for step in other.steps]
    assert one.lines == other.lines
    for name, cell in (("conv1.weight.grad", (3, 0, 1, 1)), ("conv1.weight.updated", (3, 0, 1, 1)), ("loss", ())):
        assert str(cs.explain(live, name, cell)) == str(cs.explain(again, name, cell))
    assert cs.step_effect(live).after == cs.step_effect(again).after


def said(header: Header) -> dict[str, Any]:
    result: dict[str, Any] = header["training"]["step"]
    return result


def exchange(values: dict[str, Any], one: str, other: str) -> None:
    values[one], values[other] = values[other], values[one]


def node(header: Header, kind: str) -> dict[str, Any]:
    result: dict[str, Any] = next(node for node in header["training"]["nodes"] if node["kind"] == kind)
    return result


def last_of(header: Header, name: str) -> dict[str, Any]:
    """The gradient of another tensor in the place of a node's own."""
    pairs = node(header, name)["gave"]["tuple"]
    pairs[0]["tuple"][1] = pairs[-1]["tuple"][1]
    return pairs[0]  # type: ignore[no-any-return]


STEP_LIES: dict[str, tuple[Callable[[Header], Any], str]] = {
    "another loss": (lambda h: said(h)["loss"]["ref"].__setitem__(1, 3), "the loss is a result that no step has"),
    "a gradient of the forward pass": (
        lambda h: said(h)["gradients"]["map"].update(input=said(h)["loss"]), "of input was made before the loss"
    ),
    "exchanged gradients": (
        lambda h: exchange(said(h)["gradients"]["map"], "fc.weight", "conv.weight"), "has another shape or type"
    ),
    "exchanged gradients of the same shape": (
        lambda h: exchange(said(h)["gradients"]["map"], "norm.weight", "norm.bias"), ""
    ),
    "exchanged updates": (
        lambda h: exchange(said(h)["updated"]["map"], "norm.weight", "norm.bias"), "is not the update of norm.weight"
    ),
    "a gradient of what does not exist": (
        lambda h: said(h)["gradients"]["map"].update(more=said(h)["gradients"]["map"]["fc.bias"]), "gradient of 'more'"
    ),
    "no optimizer": (lambda h: said(h).update(optimizer=""), "belong together"),
    "an unknown mode": (lambda h: said(h).update(mode="dreaming"), "the unknown mode 'dreaming'"),
    "weights among the state": (
        lambda h: said(h)["state"]["tuple"].append("conv.weight"), "'conv.weight' is not part of the optimizer"
    ),
    "no backward pass": (lambda h: h["training"]["nodes"].clear(), ""),
    "no node of batch norm": (
        lambda h: h["training"]["nodes"].remove(node(h, "NativeBatchNormBackward0")), ""
    ),
    "another order": (lambda h: h["training"]["nodes"].reverse(), ""),
    "a million operations, and as much rounding": (
        lambda h: node(h, "SquareBackward").update(operations=10**6), "impossible number of operations"
    ),
    "fifty operations": (lambda h: node(h, "SquareBackward").update(operations=50), "more operations than steps"),
    "another gradient given": (lambda h: last_of(h, "ConvolutionBackward0"), "has another shape"),
    "another position": (lambda h: h["training"]["positions"].update({"3": 10**6}), "an impossible position"),
    "a further name that is none": (lambda h: h["training"]["aliases"].update({"3": [7]}), "impossible further name"),
    "nothing said of the step": (lambda h: h["training"].pop("step"), "the training step is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", STEP_LIES)
def test_no_lie_about_a_training_step_is_proved(name: str, training: tuple[Arrays, Header], tmp_path: Path) -> None:
    lie, message = STEP_LIES[name]
    path = forged(tmp_path / "t", training, header=lie)
    report = report_of(path)
    assert report is None or not report.proved
    if message:
        with pytest.raises(DataError, match=message):
            cs.Trace.load(path)


def test_the_format_of_a_training_step_is_that_of_its_contents(
    original: tuple[Arrays, Header], training: tuple[Arrays, Header], tmp_path: Path
) -> None:
    """Older versions refuse it: they would explain each gradient as the first result of its operation."""
    for (arrays, header), format_ in ((original, STEP_FORMAT), (training, FORMAT)):
        save_file(arrays, tmp_path / "t", {format_: json.dumps(header | {"format": format_})})
        with pytest.raises(DataError, match=f"the format {format_} does not match its contents"):
            cs.Trace.load(tmp_path / "t")


def test_a_trace_takes_the_place_of_a_file_and_of_nothing_else(tmp_path: Path) -> None:
    trace = cs.trace(torch.nn.ReLU(), torch.ones(1, 1, 2, 2))
    pipe, link, real = tmp_path / "pipe", tmp_path / "link", tmp_path / "real"
    os.mkfifo(pipe)
    for path, message in ((pipe, "it is not a regular file"), (tmp_path, "directory|folder")):
        with pytest.raises(cs.UsageError, match=f"cannot be written to .*({message})"):
            trace.save(path)
    assert pipe.is_fifo()
    link.symlink_to(real)
    trace.save(link)
    assert link.is_symlink()
    assert cs.Trace.load(real).steps[0].name == "relu"
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "link", "real"}


# Files that are no trace at all.


def header_of(text: str) -> Callable[[Path], Any]:
    return lambda path: save_file({"a": np.zeros(1, np.float32)}, path, {FORMAT: text})


FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a folder": (lambda path: path.mkdir(), "is not a file"),
    "a pipe": (os.mkfifo, "is not a file"),
    "nothing": (lambda path: path.write_bytes(b""), "is not a trace"),
    "a header longer than any": (lambda path: path.write_bytes((2**60).to_bytes(8, "little") + b"{}"), "is not a tra"),
    "90 MB that are not there": (lambda path: path.write_bytes((9 * 10**7).to_bytes(8, "little")), "is not a trace"),
    "another kind of metadata": (lambda path: save_file({}, path, {"format": "pt"}), "it has no header"),
    "a later format": (lambda path: save_file({}, path, {"convscope-trace-9": "{}"}), "belongs to another version"),
    "not JSON": (header_of("{"), "is not a trace"),
    "a list": (header_of("[]"), "the header is not an object"),
    "NaN": (header_of('{"model_type": NaN}'), "not a JSON number"),
    "a number beyond floats": (header_of('{"steps": [1e999]}'), "not a JSON number"),
    "a number of 5,000 digits": (header_of('{"steps": [' + "9" * 5000 + "]}"), "beyond 64 bits"),
    "200,000 brackets": (header_of("[" * 200_000), "nested too deeply"),
    "nested arguments": (
        header_of('{"modules": {}, "outside": [' + '{"tuple": [' * 300 + "]}" * 300 + "]}"), "nested more than"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_trace_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    write, message = FILES[name]
    write(tmp_path / "t")
    with pytest.raises(DataError, match=message) as refused:
        cs.Trace.load(tmp_path / "t")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "card", [None, [], {}, {"name": 3}, {"mean": {}}, {"size": [0]}, {"channels": "x"}, {"std": []}]
)
def test_a_damaged_card_is_refused(card: Any, original: tuple[Arrays, Header], tmp_path: Path) -> None:
    def change(header: Header) -> None:
        inside = isinstance(card, dict) and card and "name" not in card
        header["card"] = json.loads(json.dumps(header["card"])) if isinstance(card, dict) and card else card
        if inside:
            header["card"]["preprocess"] |= card
        elif isinstance(card, dict):
            header["card"] |= card

    with pytest.raises(DataError, match="the card is damaged"):
        cs.Trace.load(forged(tmp_path / "t", original, header=change))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_saved_and_loaded(dtype: torch.dtype, tmp_path: Path) -> None:
    original = written(tmp_path / "t", nn.Conv2d(1, 2, 3).to(dtype), image=torch.rand(1, 1, 6, 6).to(dtype))
    assert cs.verify(cs.Trace.load(tmp_path / "t")).proved
    path = forged(tmp_path / "u", original, arrays=lambda a: a["output/0/0"].__setitem__((0, 0, 0, 0), 1.0001))
    with pytest.raises(DataError, match=f"has numbers that {str(dtype)[6:]} cannot represent"):
        cs.Trace.load(path)
