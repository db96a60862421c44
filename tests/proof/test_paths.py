"""Paths: against forward differentiation by PyTorch, which follows the image from the other end."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import jvp

import convscope as cs
from convscope.proof.paths import Paths, paths_to

pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
)  # torch.func's own


class Two(nn.Module):
    """Two convolutions with all that may stand between them; sizes differ, so that no axis can be taken for another."""

    def __init__(self, bend: type[nn.Module]) -> None:
        super().__init__()
        self.conv1, self.bend1, self.pool1 = nn.Conv2d(2, 3, 3, padding=1), bend(), nn.MaxPool2d(2)
        self.conv2, self.bend2 = nn.Conv2d(3, 5, (2, 3)), bend()
        self.fc = nn.Linear(5 * 3 * 3, 4)

    def to_second(self, first: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.conv2(self.pool1(self.bend1(first)))
        return made

    def to_answer(self, second: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.fc(self.bend2(second).flatten(1))
        return made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.to_answer(self.to_second(self.conv1(x)))


def only(tangent: torch.Tensor, channel: int) -> torch.Tensor:
    mask = torch.zeros_like(tangent)
    mask[:, channel] = 1
    return tangent * mask


def forward(net: Any, image: torch.Tensor, kernel: int, channel: int) -> torch.Tensor:
    """What the image adds to every class through one kernel and one channel: its own tangent, cut at both."""
    tangents: Any = jvp  # (value, tangent)
    first, onto_first = tangents(net.conv1, (image,), (image,))
    second, onto_second = tangents(net.to_second, (first,), (only(onto_first, kernel),))
    answer: torch.Tensor = tangents(net.to_answer, (second,), (only(onto_second, channel),))[1][0]
    return answer


def made(bend: type[nn.Module], seed: int) -> tuple[Any, torch.Tensor, cs.Trace]:
    torch.manual_seed(seed)
    net, image = Two(bend).eval(), torch.randn(1, 2, 8, 10)
    return net, image, cs.trace(net, image)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bend", [nn.ReLU, nn.Tanh])
def test_each_path_is_what_forward_differentiation_finds(bend: type[nn.Module], seed: int) -> None:
    net, image, trace = made(bend, seed)
    found = paths_to(trace, trace["fc"], (0, 2))
    assert [step.name for step in found.paths[0].steps] == ["conv1", "conv2"]
    by_channels = {path.channels: path.value for path in found.paths}
    for kernel in range(3):
        for channel in range(5):
            expected = float(forward(net, image, kernel, channel)[2].detach())
            assert by_channels.get((kernel, channel), 0.0) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    sizes = [abs(path.value) for path in found.paths]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("minus", [None, (0, 3)])
def test_paths_rest_and_constant_make_the_number(minus: tuple[int, int] | None) -> None:
    _, _, trace = made(nn.Tanh, 5)
    answer = trace["fc"].output
    found = paths_to(trace, trace["fc"], (0, 1), minus)
    expected = answer[0, 1] - (0 if minus is None else answer[minus])
    assert found.total == pytest.approx(float(expected), abs=1e-5)
    assert found.bent == ("bend1", "bend2")
    assert abs(found.rest) < 1e-9  # nothing passes the convolutions by


def test_what_passes_the_convolutions_by_is_the_rest() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 1, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            both: torch.Tensor = (self.conv2(torch.relu(self.conv1(x))) + x).flatten(1).sum(1, keepdim=True)
            return both

    torch.manual_seed(0)
    image = torch.rand(1, 1, 5, 6)
    trace = cs.trace(Skips().eval(), image)
    found = paths_to(trace, trace.steps[-1], (0, 0))
    assert found.rest == pytest.approx(float(image.sum()), rel=1e-5)
    assert found.total == pytest.approx(float(trace.steps[-1].output[0, 0]), rel=1e-5)


def test_the_cell_of_a_path_carries_the_most() -> None:
    net, _, trace = made(nn.ReLU, 1)
    path = paths_to(trace, trace["fc"], (0, 0)).paths[0]
    second = torch.tensor(trace["conv2"].output)
    slopes = torch.func.jacrev(net.to_answer)(second)[0, 0, 0].detach().numpy()
    carried = np.abs(slopes * trace["conv2"].output[0])[path.channels[1]]
    assert path.cell == (0, path.channels[1], *np.unravel_index(carried.argmax(), carried.shape))


def test_without_a_convolution_there_are_no_paths() -> None:
    trace = cs.trace(nn.Sequential(nn.Flatten(), nn.Linear(6, 2)), torch.rand(1, 1, 2, 3))
    with pytest.raises(cs.UsageError, match="no convolution comes before"):
        paths_to(trace, trace.steps[-1], (0, 1))


def test_too_many_paths_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from convscope.proof import paths

    monkeypatch.setattr(paths, "MOST", 14)
    _, _, trace = made(nn.ReLU, 1)
    with pytest.raises(cs.UsageError, match="15 paths"):
        paths_to(trace, trace["fc"], (0, 0))


def test_one_convolution_makes_paths_of_one_kernel() -> None:
    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten(), nn.Linear(3 * 3 * 4, 2))
    trace = cs.trace(net, torch.rand(1, 1, 4, 5))
    found: Paths = paths_to(trace, trace.steps[-1], (0, 1))
    assert sorted(path.channels for path in found.paths) == [(0,), (1,), (2,)]
    assert found.total == pytest.approx(float(trace.steps[-1].output[0, 1]), abs=1e-6)


@pytest.mark.parametrize("bend", [nn.ReLU, nn.Tanh])
def test_the_product_along_a_walk_is_what_autograd_has_link_by_link(bend: type[nn.Module]) -> None:
    torch.manual_seed(3)
    model, image = Two(bend), torch.rand(2, 8, 10)
    trace = cs.trace(model, image)
    answer = trace["fc"]
    why = cs.explain(trace, answer, (1,))
    walk: list[tuple[str | None, tuple[int, ...]]] = []
    product, here = 1.0, answer
    cell: tuple[int, ...] = (0, 1)
    while True:
        before = [step for step in trace.steps if step.id < here.id and step.name != "flatten"]
        if here.name == "conv1":
            x = image[None].clone().requires_grad_()
            slopes = torch.autograd.grad(model.conv1(x)[cell], x)[0]
            at = tuple(map(int, np.unravel_index(int(slopes.abs().argmax()), slopes.shape)))
            product *= slopes[at].item() * x[at].item()
            walk.append((None, at[1:]))
            break
        earlier = before[-1]
        x = torch.tensor(earlier.output).requires_grad_()
        module = getattr(model, here.name)
        made = module(x.flatten(1) if here.name == "fc" else x)
        slopes = torch.autograd.grad(made[cell], x)[0]
        at = tuple(map(int, np.unravel_index(int(slopes.abs().argmax()), slopes.shape)))
        product *= slopes[at].item()
        walk.append((earlier.name, at[1:]))
        here, cell = earlier, at
    found = why.to_walk(walk)
    assert len(found.slopes) == len(walk) == 6
    assert found.product == pytest.approx(product, rel=1e-5)


def test_a_walk_goes_by_one_branch_alone_and_only_along_what_is_read() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Conv2d(1, 1, 1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = x * 3
            result: torch.Tensor = first + self.one(first)
            return result

    model = Skip()
    model.one.weight.data.fill_(5.0)
    trace = cs.trace(model, torch.ones(1, 2, 2))
    first, conv, total = (step.name for step in trace.steps)
    why = cs.explain(trace, total, (0, 1, 1))
    assert why.to_walk([(first, (0, 1, 1)), (None, (0, 1, 1))]).product == 3.0  # past the convolution
    assert why.to_walk([(conv, (0, 1, 1)), (first, (0, 1, 1)), (None, (0, 1, 1))]).product == 15.0
    with pytest.raises(cs.UsageError, match="a walk goes from a number to one that it is calculated from"):
        cs.explain(trace, conv, (0, 1, 1)).to_walk([(total, (0, 1, 1))])
    assert why.to_walk([(first, (0, 0, 0))]).product == 0.0
