"""The tutorials' published numbers, gradients against automatic differentiation, training against PyTorch."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convscope import reference as ref
from convscope.errors import ShapeError, UnknownName
from convscope.reference.training import Layer

Array = np.ndarray[Any, Any]

KERNEL = [[[[-1.5447, -0.6216, -1.7912], [-0.8678, 1.9076, -0.7804], [-1.2586, -0.4520, -1.7062]]]]
BIAS = [2.2435]
DAMAGED_PLUS = [[[0, 1, 0], [1, 1, 0], [0, 1, 0]]]
DAMAGED_CROSS = [[[1, 0, 0], [0, 1, 0], [1, 0, 1]]]


def test_the_published_crosses_are_recomputed() -> None:
    plus, cross = (ref.conv2d(image, KERNEL, BIAS, padding=1) for image in (DAMAGED_PLUS, DAMAGED_CROSS))
    sums = [[-0.6951, 2.4405, 0.1171], [-0.1267, 2.2097, -1.4276], [-0.9497, 1.9848, -0.1690]]
    assert plus[0].round(4).tolist() == sums
    assert [round(float(ref.avg_pool2d(x, 3)[0, 0, 0]), 4) for x in (plus, cross)] == [0.3760, 1.1387]


def test_the_published_hand_calculation_is_recomputed() -> None:
    image, kernel = [[1, 2, 0, 1], [0, 1, 3, 1], [2, 2, 1, 0], [1, 0, 1, 3]], [[1, 0], [0, 1]]
    feature_map = ref.conv2d(image, kernel)
    assert feature_map.tolist() == [[2, 5, 1], [2, 2, 3], [2, 3, 4]]
    assert ref.max_pool2d(ref.relu(feature_map), 2).tolist() == [[5]]


def test_missing_axes_of_images_and_kernels_stay_missing() -> None:
    rng = np.random.default_rng(0)
    image, kernel = rng.normal(size=(6, 7)), rng.normal(size=(3, 2))
    whole = ref.conv2d(image[None, None], kernel[None, None], [0.5], stride=2)
    assert whole.shape == (1, 1, 2, 3)
    np.testing.assert_array_equal(ref.conv2d(image, kernel, 0.5, stride=2), whole[0, 0])
    np.testing.assert_array_equal(ref.conv2d(image[None], kernel, 0.5, stride=2), whole[0, 0])
    np.testing.assert_array_equal(ref.conv2d(image[None, None], kernel, 0.5, stride=2), whole[:, 0])
    np.testing.assert_array_equal(ref.conv2d(image, kernel[None, None], 0.5, stride=2), whole[0])
    np.testing.assert_array_equal(ref.avg_pool2d(image, 2), ref.avg_pool2d(image[None], 2)[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ref.conv2d([1.0], [[[[1.0]]]]), r"a convolution takes the shape \(H, W\), .* not \(1,\)"),
        (lambda: ref.conv2d([[[1.0]]], [[[1.0]]]), r"kernels have the shape \(K, C, R, S\), .* not \(1, 1, 1\)"),
        (lambda: ref.conv2d(np.zeros((3, 4, 4)), np.zeros((2, 2))), "has 3"),
        (lambda: ref.conv2d(np.zeros((3, 4, 4)), np.zeros((1, 1, 2, 2))), "has 3"),
        (lambda: ref.conv2d(np.zeros((1, 2, 2)), np.zeros((1, 1, 3, 3))), "does not fit into the padded input"),
        (lambda: ref.linear(np.zeros(3), np.zeros((2, 4))), "take 4 inputs, the input .* ends in 3"),
        (lambda: ref.cross_entropy([[1.0, 2.0]], [0, 1]), r"need N labels, not \(1, 2\) and \(2,\)"),
        (lambda: ref.mse([1.0], [1.0, 2.0]), "one shape"),
        (lambda: ref.forward([Layer("dense")], {}, np.zeros(1)), "no layer of the NumPy engine is called 'dense'"),
        (lambda: ref.forward([Layer("linear", "fc")], {}, np.zeros(1)), "no parameter is called 'fc.weight'"),
        (lambda: one_step("mae", "sgd"), "no loss of the NumPy engine is called 'mae'"),
        (lambda: one_step("mse", "adamw"), "no optimizer of the NumPy engine is called 'adamw'; did you mean 'adam'"),
    ],
)
def test_what_does_not_fit_gets_a_sentence(call: Callable[[], object], message: str) -> None:
    with pytest.raises((ShapeError, UnknownName), match=message):
        call()


def one_step(loss: str, optimizer: str) -> object:
    return ref.step([], {}, {}, np.zeros((1, 1)), np.zeros((1, 1)), loss=loss, optimizer=optimizer)


def grads(outputs: torch.Tensor, inputs: Sequence[torch.Tensor], grad: torch.Tensor) -> list[Array]:
    return [g.numpy() for g in torch.autograd.grad(outputs, inputs, grad)]


def leaf(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"stride": (2, 3), "padding": (1, 2)},
        {"dilation": (3, 2), "padding": 2},
        {"groups": 2, "stride": 2},
        {"padding": "same"},
    ],
    ids=str,
)
def test_gradients_of_a_convolution(how: dict[str, Any]) -> None:
    groups = how.get("groups", 1)
    rows = 3 if how.get("padding") == "same" else 2
    x, weight, bias = leaf(2, 4, 9, 11), leaf(6, 4 // groups, rows, 5), leaf(6)
    y = F.conv2d(x, weight, bias, **how)
    grad = torch.randn_like(y)
    ours = ref.conv2d_backward(grad.numpy(), x.detach().numpy(), weight.detach().numpy(), **how)
    for mine, theirs in zip(ours, grads(y, (x, weight, bias), grad), strict=True):
        assert np.allclose(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [((2, 3), (), 0), ((3, 3), (2, 1), 1), ((3, 2), (4, 3), (1, 0)), ((2, 2), 1, 1)]
)
def test_gradients_of_pooling(kernel: tuple[int, int], stride: Any, padding: Any) -> None:
    for torch_pool, backward in ((F.max_pool2d, ref.max_pool2d_backward), (F.avg_pool2d, ref.avg_pool2d_backward)):
        x = torch.randint(0, 4, (2, 3, 8, 10)).double().requires_grad_()  # equal cells: the first wins
        y = torch_pool(x, kernel, stride or None, padding)
        grad = torch.randn_like(y)
        ours = backward(grad.numpy(), x.detach().numpy(), kernel, stride, padding)
        assert np.allclose(ours, grads(y, (x,), grad)[0], rtol=1e-12, atol=1e-12)


def test_gradients_of_the_other_operations() -> None:
    x, weight, bias = leaf(4, 5), leaf(3, 5), leaf(3)
    labels, target = torch.tensor([2, 0, 4, 1]), torch.randn(4, 5, dtype=torch.float64)
    values = x.detach().numpy()
    grad = torch.randn(4, 3, dtype=torch.float64)
    for mine, theirs in zip(
        ref.linear_backward(grad.numpy(), values, weight.detach().numpy()),
        grads(F.linear(x, weight, bias), (x, weight, bias), grad),
        strict=True,
    ):
        assert np.allclose(mine, theirs)
    wide = torch.randn(4, 5, dtype=torch.float64)
    assert np.allclose(ref.relu_backward(wide.numpy(), values), grads(F.relu(x), (x,), wide)[0])
    assert np.allclose(ref.tanh_backward(wide.numpy(), np.tanh(values)), grads(torch.tanh(x), (x,), wide)[0])
    assert np.allclose(ref.softmax_backward(wide.numpy(), ref.softmax(values)), grads(x.softmax(1), (x,), wide)[0])
    one = torch.ones((), dtype=torch.float64)
    theirs = grads(F.cross_entropy(x, labels), (x,), one)[0]
    assert np.allclose(ref.cross_entropy_backward(values, labels.numpy()), theirs)
    assert np.allclose(ref.mse_backward(values, target.numpy()), grads(F.mse_loss(x, target), (x,), one)[0])
    assert ref.cross_entropy(values, labels.numpy()) == pytest.approx(float(F.cross_entropy(x.detach(), labels)))
    assert ref.mse(values, target.numpy()) == pytest.approx(float(F.mse_loss(x.detach(), target)))


POOL = {"kernel_size": 3}
TANH = [Layer("tanh"), Layer("max_pool2d", settings=POOL)]
CONVS = [
    Layer("conv2d", "conv1", {"padding": 1}),
    *TANH,
    Layer("conv2d", "conv2", {"padding": 1}),
    *TANH,
    Layer("flatten"),
]
FC = Layer("linear", "fc1")


def shapes_net(inputs: int, first: int, second: int) -> nn.Sequential:
    each = (
        ("conv1", nn.Conv2d(inputs, first, 3, padding=1)), ("a", nn.Tanh()), ("b", nn.MaxPool2d(3)),
        ("conv2", nn.Conv2d(first, second, 3, padding=1)), ("c", nn.Tanh()), ("d", nn.MaxPool2d(3)),
        ("e", nn.Flatten()), ("fc1", nn.Linear(9 * second, 2)),
    )  # fmt: skip
    return named_net(*each)


def named_net(*each: tuple[str, nn.Module]) -> nn.Sequential:
    net = nn.Sequential()
    for name, layer in each:
        net.add_module(name, layer)
    return net


NETS: dict[str, tuple[Callable[[], nn.Sequential], list[Layer], tuple[int, ...], str, str]] = {
    "crosses": (
        lambda: named_net(("conv1", nn.Conv2d(1, 1, 3, padding=1)), ("a", nn.AvgPool2d(3)), ("b", nn.Flatten(0))),
        [Layer("conv2d", "conv1", {"padding": 1}), Layer("avg_pool2d", settings=POOL), Layer("flatten")],
        (1, 3, 3), "mse", "adadelta",
    ),
    "shapes-cnn-1": (lambda: shapes_net(1, 1, 1), [*CONVS, FC], (1, 28, 28), "cross_entropy", "adam"),
    "shapes-cnn": (lambda: shapes_net(1, 8, 16), [*CONVS, FC], (1, 28, 28), "cross_entropy", "adam"),
    "color-cnn, softmax": (
        lambda: named_net(*shapes_net(3, 2, 2).named_children(), ("softmax", nn.Softmax(1))),
        [*CONVS, FC, Layer("softmax")], (3, 28, 28), "cross_entropy", "adam",
    ),
    "shapes-mlp": (
        lambda: named_net(
            ("a", nn.Flatten()), ("fc1", nn.Linear(784, 20)), ("b", nn.Tanh()), ("fc2", nn.Linear(20, 2))
        ),
        [Layer("flatten"), FC, Layer("tanh"), Layer("linear", "fc2")], (1, 28, 28), "cross_entropy", "sgd",
    ),
    "simple-cnn": (
        lambda: named_net(
            ("conv1", nn.Conv2d(1, 8, 3)), ("a", nn.ReLU()), ("b", nn.MaxPool2d(2)), ("c", nn.Flatten()),
            ("fc1", nn.Linear(1352, 10)),
        ),
        [Layer("conv2d", "conv1"), Layer("relu"), Layer("max_pool2d", "", {"kernel_size": 2}), Layer("flatten"), FC],
        (1, 28, 28), "cross_entropy", "adam",
    ),
}  # fmt: skip
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adadelta": torch.optim.Adadelta,
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
}
SETTINGS = {"sgd": {"lr": 0.01, "momentum": 0.9}}


def batches(shape: tuple[int, ...], loss: str, steps: int, size: int) -> list[tuple[Array, Array]]:
    rng = np.random.default_rng(5)
    images = rng.random((steps, size, *shape)).round(2)
    labels = rng.integers(0, 2, (steps, size))
    return list(zip(images, labels.astype(float) if loss == "mse" else labels, strict=True))


def numpy_steps(
    name: str, params: dict[str, Array], data: list[tuple[Array, Array]]
) -> tuple[dict[str, Array], list[float]]:
    _, layers, _, loss, optimizer = NETS[name]
    state: dict[str, dict[str, Array]] = {}
    losses = []
    for x, target in data:
        wanted = target[:, None] if loss == "mse" else target
        params, state, value = ref.step(
            layers, params, state, x, wanted, loss=loss, optimizer=optimizer, **SETTINGS.get(optimizer, {})
        )
        losses.append(value)
    return params, losses


def torch_steps(name: str, net: nn.Sequential, data: list[tuple[Array, Array]]) -> list[float]:
    _, _, _, loss, optimizer = NETS[name]
    steps = OPTIMIZERS[optimizer](net.parameters())
    losses = []
    for x, target in data:
        steps.zero_grad()
        outputs = net(torch.from_numpy(x))
        wanted = torch.from_numpy(target)
        value = F.mse_loss(outputs, wanted) if loss == "mse" else F.cross_entropy(outputs, wanted)
        value.backward()  # type: ignore[no-untyped-call]
        steps.step()
        losses.append(value.item())
    return losses


@pytest.mark.parametrize("name", NETS)
def test_two_hundred_steps_in_numpy_end_in_pytorchs_weights(name: str) -> None:
    make, _, shape, loss, _ = NETS[name]
    torch.manual_seed(1)
    net = make().double()
    params = {key: value.detach().numpy().copy() for key, value in net.named_parameters()}
    data = batches(shape, loss, 200, 1 if name == "crosses" else 4)
    ours, losses = numpy_steps(name, params, data)
    theirs = torch_steps(name, net, data)
    assert np.allclose(losses, theirs, rtol=1e-8)
    for key, value in net.named_parameters():
        assert np.abs(ours[key] - value.detach().numpy()).max() < 1e-9, key
        assert not np.array_equal(ours[key], params[key]), key


def test_the_gradient_of_a_squared_error_takes_tensors() -> None:
    x, target = torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 1.0]])
    np.testing.assert_array_equal(ref.mse_backward(x, target), [[0.0, 2.0]])  # type: ignore[arg-type]
