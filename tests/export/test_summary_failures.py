"""A model that fails on a size: what ran, the calculation that went wrong, proposals that run once applied."""

import copy
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import convscope as cs
from commands import Commands
from convscope.capture.shape_repairs import ShapeRepair
from shape_errors import CASES, Lambda, ShapeErrorCase, lenet

SETTINGS = {
    nn.Linear: ("in_features", "out_features"),
    nn.Conv2d: ("in_channels", "out_channels", "kernel_size", "stride", "padding"),
    nn.Conv1d: ("in_channels", "out_channels", "kernel_size", "stride", "padding"),
    nn.ConvTranspose2d: ("in_channels", "out_channels", "kernel_size", "stride"),
    nn.BatchNorm2d: ("num_features",),
    nn.GroupNorm: ("num_groups", "num_channels"),
    nn.LayerNorm: ("normalized_shape",),
}


def applied(net: nn.Module, repairs: tuple[ShapeRepair, ...]) -> nn.Module | None:
    """The network with layers built anew as the repairs say; None where one changes the code of `forward`."""
    net = copy.deepcopy(net)
    for repair in repairs:
        owner = dict(net.named_modules()).get(repair.where)
        parent_path, _, name = repair.where.rpartition(".")
        if owner is None and repair.setting != "shape":
            return None
        if repair.setting == "shape":
            assert isinstance(repair.value, tuple)
            setattr(net.get_submodule(parent_path), name, nn.Parameter(torch.zeros(repair.value)))
            continue
        assert owner is not None
        fresh: nn.Module
        if repair.setting == "flatten before":
            fresh = nn.Sequential(nn.Flatten(), owner)
        else:
            current = {setting: getattr(owner, setting) for setting in SETTINGS[type(owner)]}
            fresh = type(owner)(**{**current, repair.setting: repair.value})
        setattr(net.get_submodule(parent_path), name, fresh)
    return net.eval()


@pytest.fixture(scope="module")
def failures() -> dict[str, Any]:
    found = {}
    for name, case in CASES.items():
        net = case.build().eval()
        found[name] = net, case, cs.summary(net, case.size)
    return found


def right(case: ShapeErrorCase, failure: Any) -> list[bool]:
    """For each kind of proposal that exists whether one of the right ones was made."""
    single = {(p[0].where, p[0].setting, p[0].value) for p in failure.repairs if len(p) == 1}
    sizes = [bool(set(case.sizes) & set(failure.sizes))] if case.sizes else []
    return sizes + ([bool(set(case.repairs) & single)] if case.repairs else [])


def test_the_right_number_is_proposed(failures: dict[str, Any]) -> None:
    """Both kinds where both exist."""
    hits = {name: right(case, result.failure) for name, (_, case, result) in failures.items()}
    assert len(hits) == 20
    assert sum(all(kinds) for kinds in hits.values()) >= 18, hits


def test_every_proposal_runs_when_it_is_applied(failures: dict[str, Any]) -> None:
    built = 0
    for name, (net, case, result) in failures.items():
        for size in result.failure.sizes:
            assert len(net(torch.zeros(2, *size))) == 2, name
        for repairs in result.failure.repairs:
            changed = applied(net, repairs)
            if changed is not None:
                changed(torch.zeros(1, *case.size))
                built += 1
    assert built >= 20


def test_a_failure_shows_the_steps_that_ran_and_the_sum() -> None:
    result = cs.summary(lenet(576), (3, 32, 32))
    names = ["conv1", "relu", "max_pool2d", "conv2", "relu#2", "max_pool2d#2", "flatten"]
    assert [layer.name for layer in result.layers] == names
    assert result.failure is not None
    assert result.failure.sum == "fc1 expects 576 numbers, but receives 16·5·5 = 400"
    assert result.failure.where == "fc1"
    assert "mat1 and mat2 shapes cannot be multiplied" in result.failure.error
    text = str(result)
    assert "fits: an input of 3x36x36" in text
    assert "fits: fc1: in_features=400" in text


def pooled(net: Any, x: Tensor) -> Tensor:
    result: Tensor = net.fc(net.conv(x).mean((2, 3)))
    return result


def last_of(net: Any, x: Tensor) -> Tensor:
    result: Tensor = net.fc(net.rnn(x)[0][:, -1])
    return result


NOT_FLATTENED = {
    "global average": (lambda: Lambda(pooled, conv=nn.Conv2d(3, 16, 3), fc=nn.Linear(24, 5)), (3, 12, 12), 16),
    "last of a GRU": (lambda: Lambda(last_of, rnn=nn.GRU(8, 10, batch_first=True), fc=nn.Linear(32, 3)), (12, 8), 10),
    "last of an LSTM": (
        lambda: Lambda(last_of, rnn=nn.LSTM(8, 10, batch_first=True, bidirectional=True), fc=nn.Linear(10, 3)),
        (12, 8),
        20,
    ),
}


@pytest.mark.parametrize("case", NOT_FLATTENED.values(), ids=NOT_FLATTENED)
def test_a_width_is_a_product_only_of_what_was_flattened(case: Any) -> None:
    build, size, width = case
    failure = cs.summary(build(), size).failure
    assert failure is not None
    assert failure.sum.endswith(f"numbers, but receives {width}")
    assert failure.repairs == ((ShapeRepair("fc", "in_features", width),),)


def test_every_product_in_a_sentence_is_right(failures: dict[str, Any]) -> None:
    products = 0
    for name, (_, _, result) in failures.items():
        for factors, total in re.findall(r"([\d,]+(?:·[\d,]+)+) = ([\d,]+)", result.failure.sum):
            numbers = [int(factor.replace(",", "")) for factor in factors.split("·")]
            assert math.prod(numbers) == int(total.replace(",", "")), name
            products += 1
    assert products >= 5


@pytest.mark.parametrize("gate", [True, False], ids=["gate", "sum"])
def test_a_linear_layer_behind_one_operand_gets_the_width_of_the_other(gate: bool) -> None:
    """Squeeze and excitation with the width of another block, and a residual of unequal features."""

    def gated(net: Any, x: Tensor) -> Tensor:
        x = net.conv(x)
        weights = torch.sigmoid(net.up(F.relu(net.down(x.mean((2, 3))))))
        result: Tensor = net.head((x * weights[:, :, None, None]).mean((2, 3)))
        return result

    def added(net: Any, x: Tensor) -> Tensor:
        result: Tensor = x + net.up(F.relu(net.down(x)))
        return result

    layers = {"conv": nn.Conv2d(3, 16, 3, padding=1), "head": nn.Linear(16, 5)} if gate else {}
    net = Lambda(gated if gate else added, down=nn.Linear(16, 4), up=nn.Linear(4, 24), **layers)
    failure = cs.summary(net, (3, 12, 12) if gate else (16,)).failure
    assert failure is not None
    assert failure.repairs == ((ShapeRepair("up", "out_features", 16),),)


def test_a_size_that_mixes_the_images_of_a_batch_is_not_proposed() -> None:
    """28x28 runs with view(-1, 1152), but makes four rows of each image."""
    net = CASES["view of another size"].build()
    failure = cs.summary(net, (1, 28, 30)).failure
    assert failure is not None
    assert failure.sizes == ((1, 16, 16),)
    assert "one image gives 4 rows of output: a reshape mixes the images of a batch" in str(
        cs.summary(net, (1, 28, 28))
    )


def test_what_is_no_shape_error_proposes_nothing() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        F.relu(net.conv(x))
        raise RuntimeError("out of coffee")

    result = cs.summary(Lambda(forward, conv=nn.Conv2d(3, 2, 3)), (3, 9, 9))
    assert result.failure is not None
    assert (result.failure.error, result.failure.sum, result.failure.sizes) == ("out of coffee", "", ())
    assert [layer.name for layer in result.layers] == ["conv", "relu"]
    assert "✗ out of coffee" in str(result)


@pytest.mark.parametrize("add", [lambda net, x: net.position + x, lambda net, x: x + net.position])
def test_the_parameter_of_a_sum_is_the_operand_that_is_changed(add: Callable[[Any, Tensor], Tensor]) -> None:
    """Whichever side it is on; not the images, whose size was asked for."""
    position = nn.Parameter(torch.zeros(1, 3, 8, 8))
    net = Lambda(lambda net, x: net.conv(add(net, x)), conv=nn.Conv2d(3, 2, 3), position=position)
    failure = cs.summary(net, (3, 10, 10)).failure
    assert failure is not None
    assert failure.repairs == ((ShapeRepair("position", "shape", (1, 3, 10, 10)),),)


def test_a_layer_without_a_model_around_it_has_settings() -> None:
    failure = cs.summary(nn.Conv2d(3, 4, 3), (1, 9, 9)).failure
    assert failure is not None
    assert failure.sum == "the layer expects 3 channels, but receives 1: 1x9x9"
    assert failure.repairs == ((ShapeRepair("the layer", "in_channels", 1),),)


def test_a_failure_leaves_the_model_as_found() -> None:
    net = lenet().train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    cs.summary(net, (3, 40, 40))
    assert net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert net.get_submodule("fc1").__dict__.get("forward") is None


def test_the_command_ends_with_1_on_a_size_that_does_not_fit(convscope: Commands) -> None:
    said = convscope("summary", "simple-cnn", "1x32x32")
    assert said.status == 1
    assert "✗ fc1 expects 1,352 numbers, but receives 8·15·15 = 1,800" in said.out
    assert "fits: an input of 1x28x28" in said.out
    values = json.loads(convscope("summary", "simple-cnn", "1x32x32", "--json").out)
    assert values["failure"]["sizes"] == [[1, 28, 28]]
    assert values["failure"]["repairs"] == [[{"where": "fc1", "setting": "in_features", "value": 1800}]]


def test_the_command_prints_every_sum(convscope: Commands) -> None:
    out = convscope.said("summary", "simple-cnn")
    assert "simple-cnn on 1x28x28" in out
    assert "    parameters     (3·3·1 + 1)·8 = 80" in out
    assert "multiply-adds  62,192" in out
    assert "(3·3·1 + 1)" not in convscope.said("summary", "simple-cnn", "28", "--short")


@pytest.mark.parametrize("size", ["", "x", "3x", "0x3", "3.5", "-3", "9999999999999", "3x२x2", "ax3x3"])
def test_a_size_that_is_none_gets_a_sentence(convscope: Commands, size: str) -> None:
    said = convscope("summary", "simple-cnn", "--", size)
    assert said.status == 2
    assert "a size is written CHANNELSxHEIGHTxWIDTH, such as 3x224x224, or 224" in said.err


def test_names_of_others_are_harmless_on_the_terminal(convscope: Commands, tmp_path: Path) -> None:
    code = (
        "from torch import nn\n\ndef net():\n    net = nn.Sequential()\n"
        "    net.add_module('[red]\\x1b[31m', nn.Conv2d(1, 1, 3))\n    return net\n"
    )
    (tmp_path / "odd.py").write_text(code)
    out = convscope.said("summary", f"{tmp_path / 'odd.py'}:net", "1x5x5")
    assert "\x1b" not in out
    assert "[red]" in out


def shortcut(net: Any, x: Tensor) -> Tensor:
    """A residual block whose first layer halves the map."""
    x = net.stem(x)
    result: Tensor = net.conv2(net.conv1(x)) + net.short(x)
    return result


def test_the_stride_that_a_shortcut_lacks_is_proposed() -> None:
    net = Lambda(
        shortcut,
        stem=nn.Conv2d(3, 4, 3, padding=1),
        conv1=nn.Conv2d(4, 8, 3, padding=1, stride=2),
        conv2=nn.Conv2d(8, 8, 3, padding=1),
        short=nn.Conv2d(4, 8, 1),
    )
    failure = cs.summary(net, size=(3, 32, 32)).failure
    assert failure is not None
    assert [str(repair) for (repair,) in failure.repairs] == ["short: stride=2", "conv1: stride=1"]


def test_tokens_of_an_embedding_that_a_later_layer_does_not_take_are_still_tokens() -> None:
    net = Lambda(
        lambda net, x: net.conv(net.embedding(x).transpose(1, 2)).mean(2),
        embedding=nn.Embedding(100, 32),
        conv=nn.Conv1d(64, 16, 3),
    )
    failure = cs.summary(net, size=(20,)).failure
    assert failure is not None
    assert failure.sum == "conv expects 64 channels, but receives 32: 32x20"
    assert [str(repair) for (repair,) in failure.repairs][:1] == ["conv: in_channels=32"]
