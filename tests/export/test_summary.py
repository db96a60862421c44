"""The sums of a summary: each text calculates its value, each value is PyTorch's, each field the exact one."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import convscope as cs
from convscope.layer_arithmetic import Sum
from shape_errors import Lambda, TinyViT, unet
from zoo import ZOO


def calculated(total: Sum) -> int:
    """The left side of a sum, calculated by Python."""
    code = total.text.replace("·", "*").replace("⌊", "math.floor(").replace("⌋", ")")
    code = code.replace("⌈", "math.ceil(").replace("⌉", ")").replace("²", "**2")
    number = eval(code, {"math": math})
    assert number == int(number), total
    return int(number)


def check(result: cs.Summary) -> None:
    """Every text calculates its value, and every size is the recorded one."""
    for layer in result.layers:
        assert layer.consistent, layer
        for total in (*(total for _, total in layer.size), layer.parameters, layer.multiply_adds):
            assert calculated(total) == total.value, layer


def test_the_sums_are_those_of_a_textbook() -> None:
    net = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * 14 * 14, 10))
    conv, pool, flatten, linear = cs.summary(net, (8, 28, 28)).layers
    assert [str(total) for _, total in conv.size] == ["(28 + 2·1 - 3) / 1 + 1 = 28"] * 2
    assert str(conv.parameters) == "(3·3·8 + 1)·16 = 1,168"
    assert str(conv.multiply_adds) == "28·28·16 · 3·3·8 = 903,168"
    assert (str(conv.field), str(pool.field)) == ("1 + (3 - 1)·1 = 3", "3 + (2 - 1)·1 = 4")
    assert str(flatten.size[0][1]) == "16·14·14 = 3,136"
    assert (str(linear.parameters), str(linear.multiply_adds)) == ("(3136 + 1)·10 = 31,370", "10 · 3136 = 31,360")
    assert (conv.bytes, flatten.bytes, linear.bytes) == (4 * 16 * 28 * 28, 0, 40)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_size_is_calculated_as_recorded(data: st.DataObject) -> None:
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    kernel, stride, dilation, groups = (draw(1, 5), draw(1, 6)), (draw(1, 4), draw(1, 3)), draw(1, 3), draw(1, 2)
    rows, columns = draw(3, 40), draw(3, 41)
    kind = data.draw(st.sampled_from(["conv", "transposed", "max", "average"]))
    padding = (draw(0, kernel[0] // 2), draw(0, kernel[1] // 2))
    bias, ceil = data.draw(st.booleans()), data.draw(st.booleans())
    layers: dict[str, Callable[[], nn.Module]] = {
        "conv": lambda: nn.Conv2d(2, 6, kernel, stride, padding, dilation, groups, bias),
        "transposed": lambda: nn.ConvTranspose2d(2, 6, kernel, stride, padding, 0, groups, bias, dilation),
        "max": lambda: nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil),
        "average": lambda: nn.AvgPool2d(kernel, stride, padding, ceil_mode=ceil),
    }
    layer, image = layers[kind](), torch.zeros(1, 2, rows, columns)
    try:
        layer(image)
    except RuntimeError:
        assume(False)
    result = cs.summary(layer, (2, rows, columns))
    check(result)
    assert [axis for axis, _ in result.layers[0].size] == [2, 3]
    assert result.layers[0].parameters.value == sum(p.numel() for p in layer.parameters())


def shuffled(net: Any, x: Tensor) -> Tensor:
    x = F.pad(F.pixel_shuffle(net.conv(x), 2), (1, 2, 0, 3))
    return torch.cat([F.interpolate(x, scale_factor=2.0), F.interpolate(x, scale_factor=2.0, mode="bilinear")], 1)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "U-Net": (unet, (1, 28, 36)),
    "ViT": (TinyViT, (3, 32, 32)),
    "shuffle, pad, resize": (lambda: Lambda(shuffled, conv=nn.Conv2d(3, 8, 3)), (3, 9, 12)),
    "signal": (lambda: nn.Sequential(nn.Conv1d(2, 4, 5, 2), nn.GELU(), nn.AvgPool1d(3)), (2, 50)),
    "volume": (lambda: nn.Sequential(nn.Conv3d(1, 4, (2, 3, 4)), nn.MaxPool3d(2)), (1, 8, 10, 12)),
    **{name: (ZOO[name].build, ZOO[name].shape) for name in ("ResNet", "ConvNeXt", "MobileNetV2") if name in ZOO},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_counts_are_those_of_pytorch(name: str) -> None:
    build, size = NETWORKS[name]
    net = build().eval()
    result = cs.summary(net, size)
    check(result)
    parameters = sum(p.numel() for p in net.parameters())
    assert result.parameters == parameters
    assert sum(layer.parameters.value for layer in result.layers) + sum(result.unread.values()) == parameters
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            net(torch.zeros(1, *size))
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    assert 2 * result.multiply_adds == counter.get_total_flops() > 0


def residual(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    result: Tensor = net.two(torch.relu(net.one(x))) + x[:, :8]
    return result


def ragged(net: Any, x: Tensor) -> Tensor:
    result: Tensor = net.conv(F.pad(x, (2, 0, 0, 1)))[:, :, 1::2, 2:]
    return result


FIELDS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "windows": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3, 2, 1),
            nn.BatchNorm2d(2),
            nn.ReLU(),
            nn.Conv2d(2, 2, (2, 3), dilation=2),
            nn.MaxPool2d(3, 1),
        ),
        (1, 41, 37),
    ),
    "residual": (
        lambda: Lambda(
            residual, stem=nn.Conv2d(1, 8, 5, 2), one=nn.Conv2d(8, 8, 3, padding=1), two=nn.Conv2d(8, 8, 3, padding=1)
        ),
        (1, 33, 35),
    ),
    "pads and slices": (lambda: Lambda(ragged, conv=nn.Conv2d(1, 2, 3)), (1, 17, 19)),
    "global pool": (
        lambda: nn.Sequential(nn.Conv2d(1, 3, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)),
        (1, 16, 16),
    ),
    "head": (lambda: nn.Sequential(nn.Conv2d(1, 3, 3, 2), nn.Flatten(), nn.Linear(3 * 7 * 7, 2)), (1, 16, 16)),
    "group norm": (lambda: nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 3)), (1, 16, 16)),
    "ViT": (TinyViT, (3, 32, 32)),
}


@pytest.mark.parametrize("name", FIELDS)
def test_receptive_fields_are_the_exact_ones(name: str) -> None:
    build, size = FIELDS[name]
    net = build().eval()
    trace = cs.trace(net, torch.rand(size))
    exact = {field.step: field for field in cs.probe.receptive_fields(trace).fields}
    compared = 0
    for layer in cs.summary(net, size).layers:
        if layer.field is None:
            continue
        box = exact[layer.name].box[1:]
        assert layer.field.whole == exact[layer.name].whole or size[0] > 1, layer
        for (first, last), cells, length in zip(box, layer.field.size, size[1:], strict=True):
            if first > 0 and last < length - 1:  # the border of the image does not cut it
                assert cells == last - first + 1, layer
                compared += 1
            else:
                assert cells >= last - first + 1, layer
    assert compared or exact[layer.name].whole or name == "head"
    if name == "head":  # the last row and column of the image are never read
        assert (layer.field and layer.field.extent, exact[layer.name].box[1:]) == ("15x15", ((0, 14), (0, 14)))


def test_shared_parameters_are_counted_once_and_unread_ones_named() -> None:
    net = Lambda(lambda net, x: net.b(net.a(net.a(x))), a=nn.Linear(5, 5), b=nn.Linear(5, 2), spare=nn.Linear(7, 7))
    result = cs.summary(net, (5,))
    assert [layer.parameters.value for layer in result.layers] == [30, 0, 12]
    assert set(result.layers[1].shared) == {"a.weight", "a.bias"}
    assert result.unread == {"spare.weight": 49, "spare.bias": 7}
    assert "56 of them are not read: spare.weight, spare.bias" in str(result)


def test_memory_counts_new_tensors_alone() -> None:
    def chain(*layers: nn.Module) -> cs.Summary:
        return cs.summary(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), *layers), (1, 8, 8))

    image, maps = 4 * 64, 4 * 4 * 64
    plain, in_place = chain(nn.ReLU(), nn.Tanh()), chain(nn.ReLU(inplace=True), nn.Flatten())
    assert (plain.memory.total, plain.memory.peak) == (3 * maps, 2 * maps)
    assert (in_place.memory.total, in_place.memory.peak) == (maps, maps + image)


def test_a_summary_leaves_model_and_randomness_as_found() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout()).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    cs.summary(net, (1, 9, 9))
    assert torch.equal(torch.rand(2), expected)
    assert net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_json_holds_what_the_text_says() -> None:
    result = cs.summary(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), (1, 5, 6))
    values = result.to_json()
    assert values["layers"][0]["parameters"] == {"text": "(3·3·1 + 1)·2", "value": 20}
    assert values["layers"][0]["size"][0] == {"axis": 2, "text": "(5 + 2·0 - 3) / 1 + 1", "value": 3}
    assert (values["multiply_adds"], values["failure"]) == (12 * 2 * 9, None)
    short = result.to_text(short=True).splitlines()
    assert short[2].split() == ["layer", "operation", "output", "parameters", "multiply-adds", "field", "memory"]


@pytest.mark.parametrize("kind", ["picture", "edges", "one edge", "none"])
def test_a_size_may_leave_out_what_the_model_says(kind: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 26 * 26, 2))
    size: Any = {"picture": (3, 28, 28), "edges": (28, 28), "one edge": 28, "none": None}[kind]
    assert cs.summary(net, size).input == {"input": (1, 3, 28, 28)}


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((3, 0, 5), r"a size has integers above 0, such as \(3, 224, 224\), not \(3, 0, 5\)"),
        ((), "a size has integers above 0"),
        ((3, 2.5, 4), "a size has integers above 0"),
        ("3x4", "a size has integers above 0"),
        ((True,), "a size has integers above 0"),
        ((3, 10**5, 10**5), "has 30,000,000,000 numbers; at most 100,000,000 are run"),
    ],
)
def test_an_impossible_size_gets_a_sentence(size: Any, message: str) -> None:
    with pytest.raises(cs.UsageError, match=message):
        cs.summary(nn.Conv2d(3, 1, 3), size)


def test_several_inputs_want_a_size_each() -> None:
    class Two(nn.Module):
        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return left @ right

    with pytest.raises(cs.UsageError, match=r"takes several inputs; give the size of each: size={'left'"):
        cs.summary(Two(), (3, 4))
    layer = cs.summary(Two(), {"left": (3, 4, 5), "right": (3, 5, 6)}).layers[-1]
    assert layer.multiply_adds.value == 3 * 4 * 6 * 5


@pytest.mark.parametrize("model", [3, np.zeros(3), nn.Conv2d], ids=["number", "array", "class"])
def test_what_is_no_model_gets_a_sentence(model: Any) -> None:
    with pytest.raises(cs.UsageError, match=r"takes a torch\.nn\.Module or a Run or a name or a path as its"):
        cs.summary(model)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_unsaid_channel_is_the_models_own(channels: int) -> None:
    net = nn.Sequential(nn.Conv2d(channels, 2, 3), nn.ReLU())
    assert cs.summary(net, (12, 13)).input == {"input": (1, channels, 12, 13)}


@pytest.mark.parametrize(("n", "windows"), [(4, 1), (5, 2)])
def test_a_last_window_does_not_start_in_the_padding(n: int, windows: int) -> None:
    (layer,) = cs.summary(nn.MaxPool2d(2, 5, 1, ceil_mode=True), (1, n, n)).layers
    assert [total.value for _, total in layer.size] == [windows] * 2 == list(layer.shape[2:])
    check(cs.summary(nn.MaxPool2d(2, 5, 1, ceil_mode=True), (1, n, n)))


def test_a_shape_of_one_axis_is_a_vector_and_a_number_the_side_of_a_square() -> None:
    generator = nn.Sequential(nn.Linear(64, 12 * 4), nn.Unflatten(1, (3, 4, 4)), nn.ConvTranspose2d(3, 1, 2, 2))
    assert cs.summary(generator, size=(64,)).input == {"input": (1, 64)}
    assert cs.summary(nn.Conv2d(3, 4, 3), size=20).input == {"input": (1, 3, 20, 20)}


@pytest.mark.parametrize("numbers", [784, 4, 10])
def test_a_network_of_vectors_gets_a_vector(numbers: int) -> None:
    """Of a square number of inputs too, which could be a picture."""
    net = nn.Sequential(nn.Linear(numbers, 6), nn.Tanh(), nn.Linear(6, 3))
    for result in (cs.summary(net), cs.summary(net, numbers), cs.summary(net, (numbers,))):
        assert result.failure is None
        assert [layer.shape for layer in result.layers] == [(1, 6), (1, 6), (1, 3)]
    assert cs.summary(nn.Linear(numbers, 2)).layers[0].shape == (1, 2)
    broken = cs.summary(nn.Sequential(nn.Linear(numbers, 6), nn.ReLU(), nn.Linear(7, 3)))
    assert broken.failure is not None
    assert [repair[0].value for repair in broken.failure.repairs] == [6, 7]


def test_a_network_that_flattens_gets_a_picture() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 6))
    assert cs.summary(net).input["input"] == (1, 1, 28, 28)
    assert cs.summary(net, 28).failure is None


def test_tokens_are_not_called_channels() -> None:
    """The second of three axes holds a signal's channels or a transformer's tokens; of four it holds channels."""

    def tokens(net: Any, x: Tensor) -> Tensor:
        patches = net.conv(x).flatten(2).transpose(1, 2)
        return torch.cat([patches, patches[:, :1]], 1)

    joined = cs.summary(Lambda(tokens, conv=nn.Conv2d(3, 8, 4, 4)), (3, 16, 16)).layers[-1]
    maps = cs.summary(Lambda(lambda _, x: torch.cat([x, x], 1)), (3, 8, 8)).layers[-1]
    assert next(joined.sums()) == ("size", "16 + 1 = 17")
    assert next(maps.sums()) == ("channels", "3 + 3 = 6")
