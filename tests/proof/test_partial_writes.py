"""Gradients through operations that write into a part of a tensor: proved, kept in files, and red where wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_gradient_check import overwrite
from torch import Tensor, nn

import convscope as cs


class Writing(nn.Module):
    """A function of the image times a weight for each column."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.linspace(0.5, 1.5, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x * self.weight).flatten(1)


def halves_swapped(x: Tensor) -> Tensor:
    """New memory that is filled in parts."""
    result = torch.empty_like(x)
    result[:, 0, :, :3] = x[:, 0, :, 3:]
    result[:, 0, :, 3:] = x[:, 0, :, :3] * 2
    return result


def scaled_in_part(x: Tensor) -> Tensor:
    """Some columns multiplied in place by others."""
    result = x.clone()
    result[..., 1:3].mul_(result[..., 4:6].clone())
    return result * 3


def written_twice(x: Tensor) -> Tensor:
    """Two writes whose cells overlap, and a read of the part between them."""
    result = x.clone()
    result[..., :4] = x[..., 2:] ** 2
    between = result[..., 3:5].exp()
    result[..., 2:4] += between
    return result


def part_and_whole(x: Tensor) -> Tensor:
    """A part that was written, and the whole, both read."""
    result = x.clone()
    part = result[:, :, 1]
    part.tanh_()
    return torch.cat([result.flatten(1), part.flatten(1) * 5], 1)


def cleared(x: Tensor) -> Tensor:
    """Constants written over some cells."""
    result = x * 2
    result[..., 0] = 0
    result[..., -1].fill_(7.0)
    return result


FUNCTIONS = [halves_swapped, scaled_in_part, written_twice, part_and_whole, cleared]


def step_of(function: Callable[[Tensor], Tensor]) -> cs.Trace:
    image = torch.randn(2, 1, 4, 6, generator=torch.Generator().manual_seed(2))
    weights = torch.randn(100, generator=torch.Generator().manual_seed(3))
    return cs.trace(Writing(function), image, target=[0, 0], loss=lambda y, _: (y * weights[: y.shape[1]]).sum())


@pytest.mark.parametrize("function", FUNCTIONS)
def test_gradients_through_a_write_are_proved(function: Callable[[Tensor], Tensor]) -> None:
    report = cs.verify(step_of(function))
    assert report.proved, str(report)
    assert report.gradients is not None
    assert (report.gradients.unable, report.gradients.moved > 0) == ("", True)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_wrong_gradient_behind_a_write_is_found(function: Callable[[Tensor], Tensor]) -> None:
    trace = step_of(function)
    overwrite(trace, "weight.grad", lambda gradient: gradient * 1.01)
    report = cs.verify(trace)
    assert report.gradients is not None
    assert report.gradients.wrong


def test_circular_padding_is_proved_and_kept_in_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), nn.Flatten(), nn.Linear(72, 3))
    trace = cs.trace(model, torch.rand(2, 1, 6, 6), target=[0, 2])
    assert cs.verify(trace).proved
    trace.save(tmp_path / "step.safetensors")
    report = cs.verify(cs.Trace.load(tmp_path / "step.safetensors"))
    assert {step.finding for step in report.steps} == {"proved", "given"}
    assert report.gradients is not None
    assert not report.gradients.unable
