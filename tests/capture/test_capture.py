"""Capture: what a trace is made of: steps, names, values before and after."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import convscope as cs
from convscope.capture.recorder import SHORTCUTS
from convscope.errors import UnknownName, UsageError
from replay import assert_replays, same
from small_networks import Runs, Small, image, names


@pytest.fixture
def small() -> Small:
    torch.manual_seed(0)
    return Small()


def test_steps_have_names_that_a_person_recognises(small: Small) -> None:
    trace = cs.trace(small, image(2, 6, 5))
    assert names(trace) == ["conv1", "bn", "relu", "conv2", "add", "relu#2", "mean", "flatten", "fc"]
    assert len({step.name for step in trace.all_steps}) == len(trace.all_steps)
    assert [step.id for step in trace.all_steps] == list(range(len(trace.all_steps)))
    assert [trace["add"].module, trace["add"].module_type, trace["relu#2"].module] == ["", "Small", "relu"]


def test_a_step_says_what_it_read_and_with_which_settings(small: Small) -> None:
    trace = cs.trace(small, image(2, 6, 5))
    conv = trace["conv1"]
    assert (conv.op, conv.overload, conv.module_type) == ("convolution", "default", "Conv2d")
    assert {name: value for name, value in conv.arguments.items() if not isinstance(value, cs.Ref)} == {
        "stride": [1, 1],
        "padding": [1, 1],
        "dilation": [1, 1],
        "transposed": False,
        "output_padding": [0, 0],
        "groups": 1,
    }
    assert conv.parameters == {"weight": "conv1.weight", "bias": "conv1.bias"}
    assert (conv.arguments["input"].kind, conv.arguments["input"].name) == ("input", "input")
    assert trace["add"].arguments["alpha"] == 1  # a default of the schema
    assert trace["add"].inputs == (trace["relu"].id, trace["conv2"].id)
    assert trace["fc"].inputs == (trace["flatten"].id,)


def test_a_transposed_weight_is_still_the_parameter(small: Small) -> None:
    trace = cs.trace(small, image(2, 6, 5))
    weight = trace["fc"].arguments["mat2"]
    assert (weight.kind, weight.name, weight.shape) == ("parameter", "fc.weight", (4, 3))
    assert trace.origin("fc", "mat2", (3, 1)) == ("parameter", weight.id, "fc.weight", 0, (1, 3))
    assert same(trace.operand("fc", "mat2"), small.fc.weight.detach().numpy().T)


def test_values_before_and_after_a_write_in_place_are_both_right(small: Small) -> None:
    trace = cs.trace(small, image(2, 6, 5))
    before, after = trace["bn"].output, trace["relu"].output
    assert trace["relu"].op == "relu"
    assert before.min() < 0
    assert same(np.maximum(before, 0), after)
    assert same(trace.operand("relu", "self"), before)


def test_a_write_through_a_view_is_seen_by_later_readers_only() -> None:
    def forward(x: Tensor) -> Tensor:
        y = x + 1
        half = y[:, :1]
        y.mul_(2)
        z = half * 10
        half.zero_()
        return y + z

    x = image(1, 2, 3, 3)
    trace = cs.trace(Runs(forward), x)
    assert same(trace["add"].output, x + 1)
    assert same(trace.operand("mul#2", "self"), (x[:, :1] + 1) * 2)
    assert trace["mul#2"].arguments["self"].rewritten == (trace["mul"].id,)
    expected = (x + 1) * 2
    expected[:, :1] = 0
    assert same(trace.operand("add#2", "self"), expected)
    zeroed = trace.origin("add#2", "self", (0, 0, 1, 1))
    assert trace[zeroed.id].op == "zero"
    assert trace.origin("add#2", "self", (0, 1, 1, 1))[2:] == ("mul", 0, (0, 1, 1, 1))
    assert_replays(trace)


@pytest.mark.parametrize(
    "change", [Tensor.t_, lambda y: y.transpose_(0, 1), lambda y: y.unsqueeze_(0), Tensor.squeeze_]
)
def test_a_change_of_shape_in_place_leaves_the_earlier_shape(change: Any) -> None:
    def forward(x: Tensor) -> Tensor:
        y = (x * 2)[0, 0]
        change(y)
        return y + 1

    x = image(1, 1, 3, 4)
    trace = cs.trace(Runs(forward), x)
    assert trace["mul"].shape == (1, 1, 3, 4)
    assert same(trace["add"].output, change(torch.from_numpy(x[0, 0] * 2)).numpy() + 1)
    assert_replays(trace)


def test_out_variants_and_out_of_the_way_results() -> None:
    def forward(x: Tensor) -> Tensor:
        room = torch.zeros_like(x)
        torch.add(x, 1, out=room)
        torch._foreach_mul_([room], 3.0)
        values, _ = room.max(dim=1)
        return values

    x = image(1, 3, 2, 2)
    trace = cs.trace(Runs(forward), x)
    assert [step.op for step in trace.steps] == ["add", "_foreach_mul", "max"]
    assert same(trace["add"].output, x + 1)
    assert same(trace["max"].output, ((x + 1) * np.float32(3)).max(1))
    assert same(trace["max"].outputs[1], ((x + 1) * np.float32(3)).argmax(1))


def test_an_out_argument_takes_the_results_shape_and_is_proved() -> None:
    def forward(x: Tensor) -> Tensor:
        room = torch.empty(0)
        torch.mul(x, 2, out=room)
        values, index = torch.empty(0), torch.empty(0, dtype=torch.int64)
        torch.max(room, 1, out=(values, index))
        return values

    trace = cs.trace(Runs(forward), image(1, 3, 2, 2))
    assert [step.op for step in trace.steps] == ["mul", "max"]
    assert cs.verify(trace).proved


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.uint64], ids=str)
def test_every_unsigned_type_is_proved(dtype: torch.dtype) -> None:
    trace = cs.trace(Runs(lambda x: (x.abs() * 9).to(dtype).to(torch.int32) + 1), image(1, 3, 2, 2))
    assert cs.verify(trace).proved


def test_constants_are_kept_by_value() -> None:
    closed_over = torch.ones(1, 1, 2, 2)
    trace = cs.trace(Runs(lambda x: x * closed_over + torch.tensor([2.0])), image(1, 1, 2, 2))
    closed_over.fill_(5)
    assert same(trace.operand("mul", "other"), np.ones((1, 1, 2, 2), np.float32))
    assert trace["mul"].arguments["other"].kind == "constant"
    assert [c.ravel()[0] for c in trace.constants] == [1, 2]


def test_several_inputs_and_outputs_of_any_structure() -> None:
    @dataclass
    class Output:
        total: Tensor
        parts: tuple[Tensor, ...]

    a, b = image(1, 2, 2), image(1, 2, 2) + 1
    trace = cs.trace(Runs(lambda x, y: Output(x + y, (x, y - x))), (a, b))
    assert list(trace.inputs) == ["input0", "input1"]
    assert same(trace.output["total"], a + b)
    assert same(trace.output["parts"][1], b - a)
    named = cs.trace(Runs(lambda *, left, right: {"sum": left + right}), {"left": a, "right": b})
    assert list(named.inputs) == ["left", "right"]
    assert same(named.output["sum"], a + b)
    assert named["add"].arguments["other"].name == "right"


def test_control_flow_in_python_is_followed() -> None:
    model = Runs(lambda x: x.relu() if x.mean() > 0 else x.sigmoid())
    assert names(cs.trace(model, np.full((1, 1, 2, 2), 1, np.float32)))[-1] == "relu"
    assert names(cs.trace(model, np.full((1, 1, 2, 2), -1, np.float32)))[-1] == "sigmoid"


def test_an_image_gets_a_batch_axis_a_bare_layer_too() -> None:
    assert cs.trace(nn.Conv2d(3, 5, 7, padding="same"), torch.zeros(3, 9, 9))["conv2d"].shape == (1, 5, 9, 9)
    assert cs.trace(nn.Linear(6, 2), torch.zeros(4, 6))["linear"].shape == (4, 2)
    assert cs.trace(nn.Conv1d(2, 3, 2), torch.zeros(2, 5))["conv1d"].shape == (1, 3, 4)
    assert cs.trace(nn.Conv3d(1, 3, 2), torch.zeros(1, 4, 4, 4))["conv3d"].shape == (1, 3, 3, 3, 3)


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        (nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")), ["0"]),
        (nn.Sequential(nn.Flatten(), nn.Linear(32, 2)), ["0", "1"]),
        (nn.Sequential(nn.Conv2d(2, 4, 1), nn.PixelShuffle(2)), ["0", "1"]),
        (Runs(lambda x: x.flatten(2).transpose(1, 2) @ x.flatten(2)), ["transpose", "flatten", "matmul"]),
        (Runs(lambda x: F.linear(x, torch.ones(5, 4), torch.zeros(5))), ["linear"]),
        (Runs(lambda x: x.permute(0, 2, 3, 1).contiguous().view(-1)), ["flatten"]),
        (nn.Sequential(nn.Dropout(0.5), nn.Identity()), ["0"]),
    ],
)
def test_layout_folds_into_the_steps_that_need_it(model: nn.Module, shown: list[str]) -> None:
    trace = cs.trace(model, image(2, 4, 4))
    assert names(trace) == shown
    assert_replays(trace)


def test_dropout_in_training_is_one_step_with_its_mask() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.ReLU())
    trace = cs.trace(model, image(1, 8, 8), training=True)
    assert names(trace) == ["0", "1"]
    mask = trace.operand("0", "other")
    assert set(np.unique(mask)) == {0, 2}
    assert same(trace["0"].output, trace.input * mask)


def test_half_precision_is_widened_exactly_and_its_type_recorded() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        layer = nn.Linear(4, 3).to(dtype)
        trace = cs.trace(layer, image(2, 4))
        assert trace["linear"].dtype == str(dtype).removeprefix("torch.")
        assert trace["linear"].output.dtype == np.float32
        assert same(trace.output, layer(torch.from_numpy(image(2, 4)).to(dtype)).detach().float().numpy())
        assert trace.parameters["weight"].dtype == np.float32
    assert cs.trace(nn.Linear(4, 3).double(), image(2, 4)).output.dtype == np.float64


def test_arrays_are_read_only_and_the_callers_image_may_change(small: Small) -> None:
    given = image(2, 6, 5)
    trace = cs.trace(small, given)
    kept = trace["conv1"].output.copy()
    given[:] = 0
    assert same(trace["conv1"].output, kept)
    assert trace.input.any()
    with pytest.raises(ValueError, match="read-only"):
        trace["conv1"].output[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        trace.parameters["conv1.weight"][0] = 0


@pytest.mark.parametrize("kind", SHORTCUTS, ids=lambda kind: kind.__name__)
def test_a_shortcut_makes_the_calls_that_its_layer_makes(kind: type[nn.Module]) -> None:
    made: dict[Any, list[tuple[nn.Module, tuple[int, ...]]]] = {
        nn.Conv2d: [
            (nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), (1, 2), 2), (1, 4, 9, 8)),
            (nn.Conv2d(4, 6, 3, bias=False, padding="same"), (1, 4, 9, 8)),
            (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), (2, 4, 9, 8)),
        ],
        nn.Linear: [(nn.Linear(5, 3), (2, 5)), (nn.Linear(5, 3, bias=False), (2, 5)), (nn.Linear(5, 3), (2, 4, 5, 5))],
        nn.MaxPool2d: [
            (nn.MaxPool2d(3), (1, 2, 9, 8)),
            (nn.MaxPool2d((3, 2), (2, 1), (1, 0), (1, 2), ceil_mode=True), (1, 2, 9, 8)),
            (nn.MaxPool2d(2, return_indices=True), (1, 2, 9, 8)),
        ],
        nn.ReLU: [(nn.ReLU(), (1, 2, 3, 3)), (nn.ReLU(inplace=True), (1, 2, 3, 3))],
    }
    for layer, shape in made[kind]:
        net = nn.Sequential(layer)
        short = cs.trace(net, image(*shape))
        with torch.autocast("cpu", enabled=False), _Watching():  # type: ignore[no-untyped-call]  # another mode: the layer itself runs
            whole = cs.trace(net, image(*shape))
        assert [(s.name, s.op, s.arguments, s.results) for s in short.all_steps] == [
            (s.name, s.op, s.arguments, s.results) for s in whole.all_steps
        ]
        assert all(map(same, short.all_steps[-1].outputs, whole.all_steps[-1].outputs))


class _Watching(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def test_steps_are_found_by_name_and_id(small: Small) -> None:
    trace = cs.trace(small, image(2, 6, 5))
    assert trace[trace["fc"].id] is trace["fc"]
    with pytest.raises(UnknownName, match="no step is called 'conv'; did you mean 'conv"):
        _ = trace["conv"]
    with pytest.raises(UsageError, match=r"the trace has steps 0 to \d+, not 99"):
        _ = trace[99]
    with pytest.raises(UnknownName, match="no tensor argument of conv1 is called 'wieght'; did you mean 'weight'"):
        trace.operand("conv1", "wieght")
    with pytest.raises(UnknownName, match=r"no parameter is called 'conv1\.w'"):
        _ = trace.parameters["conv1.w"]
    with pytest.raises(UnknownName, match="no step is called 'conv9'"):
        cs.trace(small, image(2, 6, 5), keep="conv9")
    with pytest.raises(UsageError, match="budget in megabytes"):
        cs.trace(small, image(2, 6, 5), keep=-1)


def test_lists_of_tensors_are_operands_too() -> None:
    trace = cs.trace(Runs(lambda x: torch.cat([x, x * 2], 1)), image(1, 2, 2))
    first, second = trace.operand("cat", "tensors")
    assert same(second, first * 2)
    assert trace.operands("cat")["dim"] == 1
    assert [ref.name for ref in trace["cat"].arguments["tensors"]] == ["input", "mul"]


def test_a_trace_is_plain_data(small: Small) -> None:
    trace = cs.trace(small, image(2, 6, 5))
    for step in trace.all_steps:
        json.dumps([v for v in step.arguments.values() if not isinstance(v, cs.Ref | tuple)])
    assert repr(trace) == "<Trace of Small: 9 steps>"
    assert list(trace) == list(trace.steps)
    assert trace.modules["conv1"] == "Conv2d"


def test_nothing_is_worked_out_before_it_is_asked_for(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convscope.capture.recording.describe", lambda *_: pytest.fail("described too early"))
    assert cs.trace(small, image(2, 6, 5)).output.shape == (1, 3)


def test_a_recorder_needs_no_cycle_collector(small: Small) -> None:
    import gc
    import weakref

    gc.collect()
    gc.disable()
    try:
        trace = cs.trace(small, image(2, 6, 5))
        assert trace.steps
        held = weakref.ref(trace._source.tape.calls[0][3])  # type: ignore[attr-defined]
        del trace
        assert held() is None
    finally:
        gc.enable()


def test_without_parameters_the_image_keeps_its_type() -> None:
    image = torch.rand(1, 3, 4, 4, dtype=torch.float64) / 3
    trace = cs.trace(nn.ReLU(), image)
    assert str(trace.input.dtype) == str(trace.output.dtype) == "float64"
    assert np.array_equal(trace.output, nn.ReLU()(image).numpy())


def test_a_model_may_use_a_function_that_belongs_to_no_module() -> None:
    """Functions that `exec` defines in a namespace without `__name__` have None for their `__module__`."""
    namespace: dict[str, Any] = {}
    exec("def doubled(x):\n    return x * 2\n", namespace)
    doubled = namespace["doubled"]

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = doubled(x) if x.sum().item() > 0 else x  # leaves the tape, so functions are searched
            return result

    assert (cs.trace(Net(), np.ones((1, 2, 2), np.float32)).output == 2).all()
