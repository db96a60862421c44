"""The plan of a list of blocks: the sums of `summary`, and a sentence for every list that cannot be built."""

import copy
import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings

import convscope as cs
from block_lists import HOSTILE, SOUND
from convscope.blocks import KINDS, TEMPLATES, Plan, plan, read_block, template
from convscope.blocks.reading import BY_HAND, LONGEST
from convscope.errors import UsageError
from convscope.models.networks import Blocks

CONV, FLATTEN, LINEAR = {"block": "conv"}, {"block": "flatten"}, {"block": "linear"}
SHAPES = {"crosses": (1, 3, 3), "color-cnn": (3, 28, 28)}
"""Images of the templates, where they are not 1x28x28."""


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_sums_are_those_of_summary(name: str) -> None:
    shape = SHAPES.get(name, (1, 28, 28))
    planned = plan(template(name), shape)
    model = cs.load_model("blocks", args={"blocks": template(name), "shape": shape})
    layers = {layer.name: layer for layer in cs.summary(model).layers}
    without_weights = [each for each in planned.blocks if each.name.startswith("dropout")]  # no step in evaluation
    for each in planned.blocks:
        if each in without_weights and each.name not in layers:
            continue
        layer = layers[each.name]
        assert layer.shape == (1, *(each.shape or ()))
        assert list(each.sums()) == [(what, text) for what, text in layer.sums() if what != "field"]
    assert planned.parameters == cs.summary(model).parameters


WRONG: dict[str, tuple[list[Any], str]] = {
    "no maps": ([FLATTEN, CONV], "block 2 (conv1): a convolution needs maps, but gets a list of 784 numbers; move it"),
    "no list": ([CONV, LINEAR], "block 2 (fc1): a linear layer takes a list of numbers, but gets 8x26x26 maps; put"),
    "twice flat": ([FLATTEN, FLATTEN], "block 2 (flatten2): there are no maps to flatten: its input is already"),
    "too large": (
        [{**CONV, "size": 31}],
        "a window of 31x31 is larger than the 28x28 maps with their padding (28 + 2·0",
    ),
    "padding": ([{"block": "max-pool", "padding": 2}], "is at most half of its window, 2 // 2 = 1, not 2."),
    "negative": ([{**CONV, "kernels": -1}], "block 1: kernels of conv must be an integer from 1 to 1,024, not -1."),
    "a fraction": ([{**CONV, "size": 2.5}], "size of conv must be an integer from 1 to 64, not 2.5."),
    "a huge number": ([{**CONV, "kernels": 10**5000}], "from 1 to 1,024, not a huge number."),
    "a flag": ([{**CONV, "stride": True}], "stride of conv must be an integer from 1 to 64, not True."),
    "a text": ([{**CONV, "bias": "yes"}], "bias of conv must be true or false, not 'yes'."),
    "not a number": (
        [{"block": "dropout", "p": float("nan")}],
        "p of dropout must be a number from 0 to 0.99, not nan.",
    ),
    "unknown": ([{"block": "softmax"}], "no block is called 'softmax'"),
    "no block": (["conv"], "a block is written as {'block': 'relu'}, not as 'conv'."),
    "unknown setting": ([{**CONV, "dilation": 2}], "no setting of conv is called 'dilation'"),
    "other numbers": ([{**CONV, "values": {"weight": [1, 2]}}], "its weight was given by hand with 2 numbers, but"),
    "no such numbers": (
        [{"block": "relu", "values": {"weight": [1]}}],
        "relu: it has no weights, so leave values out.",
    ),
    "no bias": ([{**CONV, "bias": False, "values": {"bias": [1]}}], "no parameter of conv is called 'bias'"),
    "ragged": ([{**CONV, "values": {"weight": [[1], [1, 2]]}}], "the rows of the weights differ in length"),
    "infinite": ([{**CONV, "values": {"weight": [1e39]}}], "a weight is a finite number of float32, not 1e+39."),
    "many numbers": ([{**CONV, "values": {"weight": [0] * (BY_HAND + 1)}}], "at most 50,000 weights can be given by"),
    "many parameters": ([FLATTEN, {**LINEAR, "units": 20_000}], "has 15,700,000 parameters, but at most 10,000,000"),
    "many cells": (
        [{**CONV, "kernels": 1024}, *[{"block": "relu"}] * 9],
        "cells in its results for one image, but at most 4,000,000",
    ),
    "many products": (
        [{**CONV, "kernels": 600}] * 2,
        "multiply-adds for one image, but at most 1,000,000,000 are allowed",
    ),
    "none": ([], "the network has no blocks yet; add one."),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_what_cannot_be_built_gets_a_sentence(case: tuple[list[Any], str]) -> None:
    blocks, sentence = case
    planned = plan(blocks)
    assert sentence in planned.problem
    with pytest.raises(UsageError, match=r"^[^\n]{10,300}$") as refused:
        cs.load_model("blocks", args={"blocks": blocks})
    assert str(refused.value) == planned.problem


@pytest.mark.parametrize(
    ("blocks", "shape", "sentence"),
    [
        ({"block": "conv"}, (1, 28, 28), "blocks is a list such as"),
        ("conv", (1, 28, 28), "blocks is a list such as"),
        ([CONV] * (LONGEST + 1), (1, 28, 28), "at most 64 blocks, not 65."),
        ([CONV], (28, 28), "shape is (C, H, W) of the image"),
        ([CONV], (1, 0, 28), "each number of shape is an integer from 1 to 65,536, not 0."),
        ([CONV], (65_536, 65_536, 65_536), "an image of 65536x65536x65536 has"),
        pytest.param([CONV], 10**5000, "such as (1, 28, 28), not a huge number.", id="a huge number"),
        ([CONV], (1, 10**5000, 28), "each number of shape is an integer from 1 to 65,536, not a huge number."),
    ],
)
def test_what_is_not_a_list_or_an_image_is_refused(blocks: Any, shape: Any, sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        plan(blocks, shape)
    assert sentence in str(refused.value)


def test_the_blocks_after_a_problem_wait_for_it() -> None:
    planned = plan([CONV, LINEAR, {"block": "nothing"}, {"block": "relu"}])
    assert [each.shape for each in planned.blocks] == [(8, 26, 26), None, None, None]
    assert [each.problem is not None for each in planned.blocks] == [False, True, False, False]


def repaired(blocks: list[Any], planned: Plan) -> list[Any]:
    """The list after the first repair that the plan proposes."""
    problems = [each.problem for each in planned.blocks] + [planned.ending]
    repair = next(problem.repair for problem in problems if problem is not None and problem.repair is not None)
    return [*blocks[: repair.at], *map(dict, repair.added), *blocks[repair.at + repair.removed :]]


@pytest.mark.parametrize("name", ["no list", "twice flat", "too large", "padding", "other numbers"])
def test_a_repair_mends_the_problem(name: str) -> None:
    blocks = WRONG[name][0]
    mended = repaired(blocks, plan(blocks))
    assert plan(mended).problem == ""
    assert plan(copy.deepcopy(mended)) == plan(mended)


@pytest.mark.parametrize(
    ("blocks", "sentence"),
    [
        ([CONV], "it ends in 8x26x26 maps, and 2 classes need one number each: add flatten and linear."),
        (
            [FLATTEN, {**LINEAR, "units": 10}],
            "it ends in 10 numbers, and 2 classes need one number each: give the last",
        ),
        ([FLATTEN], "it ends in 784 numbers, and 2 classes need one number each: add linear."),
    ],
)
def test_an_ending_that_does_not_fit_the_classes_is_said_and_mended(blocks: list[Any], sentence: str) -> None:
    planned = plan(blocks, classes=2)
    assert planned.problem == ""
    assert planned.ending is not None
    assert planned.ending.sentence.startswith(sentence)
    assert plan(repaired(blocks, planned), classes=2).ending is None


@given(SOUND)
@settings(max_examples=150)
def test_a_network_has_the_planned_shapes_and_counts(blocks: list[Any]) -> None:
    shape = (2, 9, 8)
    planned = plan(blocks, shape, 3)
    if planned.problem:
        with pytest.raises(UsageError):
            Blocks(blocks, shape, 3)
        return
    model = Blocks(blocks, shape, 3).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == planned.parameters
    result = torch.zeros(2, *shape)
    for layer, each in zip(model.children(), planned.blocks, strict=True):
        result = layer(result)
        assert result.shape[1:] == each.shape


@given(HOSTILE)
@settings(max_examples=300)
def test_any_list_is_planned_or_refused_in_one_sentence(blocks: Any) -> None:
    try:
        planned = plan(blocks)
    except UsageError as error:
        sentence = str(error)
    else:
        assert json.dumps(planned.to_json())
        assert str(planned)
        sentence = planned.problem
    assert len(sentence) < 400
    assert "\n" not in sentence


@pytest.mark.parametrize("name", KINDS)
def test_a_block_survives_its_json(name: str) -> None:
    block = read_block({"block": name})
    assert block.to_json() == {"block": name}
    assert read_block(json.loads(json.dumps(block.to_json()))) == block
