"""Gradients through operations that write into a part of a tensor: proved, kept in files, and red where wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_gradient_check import overwrite
from torch import Tensor, nn

import convscope as cs
from convscope.expr.expr import Leaf


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


def view_of_the_written_whole(x: Tensor) -> Tensor:
    """A view that is read after the whole tensor was written."""
    result = x.clone()
    view = result[..., 1:4]
    result.mul_(2)
    return torch.cat([result.flatten(1), view.flatten(1) * 3], 1)


def alias_of_the_written_whole(x: Tensor) -> Tensor:
    """A view of all cells, read beside the tensor itself."""
    result = x.clone()
    view = result.view_as(result)
    result.mul_(2)
    return torch.cat([result.flatten(1), view.flatten(1) * 3], 1)


def view_beside_the_written(x: Tensor) -> Tensor:
    """A view that overlaps with the part that another view wrote."""
    result = x.clone()
    first, second = result[..., :4], result[..., 2:]
    first.tanh_()
    return second.flatten(1)


def flattened_before(x: Tensor) -> Tensor:
    """A flat view of a tensor of which a column is written later."""
    result = x.clone()
    flat = result.flatten(1)
    result[..., 2].exp_()
    return flat


def view_within_a_view(x: Tensor) -> Tensor:
    """The outer view is written, a transposed part of it is read."""
    result = x.clone()
    outer = result[..., 1:5]
    inner = outer[..., :2].transpose(-1, -2)
    outer.sin_()
    return inner


def views_side_by_side(x: Tensor) -> Tensor:
    """Two overlapping views, both written, both read."""
    result = x.clone()
    first, second = result[..., :4], result[..., 2:]
    first.mul_(2)
    second.mul_(3)
    return torch.cat([first.flatten(1), second.flatten(1)], 1)


def repeated_view(x: Tensor) -> Tensor:
    """A view that reads cells several times."""
    result = x.clone()
    windows = result.unfold(3, 3, 1)
    result.mul_(2)
    return windows


def zeroed_view(x: Tensor) -> Tensor:
    """A part is set to 0, and read."""
    result = x.clone()
    result[..., :3].zero_()
    part = result[..., 2:4]
    part.zero_()
    return part + x[..., :2]


def transposed_copy(x: Tensor) -> Tensor:
    """Numbers are copied into a transposed view, and this is read."""
    result = x.clone()
    turned = result.transpose(-1, -2)
    turned.copy_(torch.tanh(x.transpose(-1, -2)))
    return turned


def reshaped_in_place(x: Tensor) -> Tensor:
    """Operations in place that change axes alone write no numbers."""
    result = x.clone()
    part = result[..., :1]
    part.squeeze_(-1).mul_(3)
    part.transpose_(-1, -2).unsqueeze_(1).exp_()
    return torch.cat([part.flatten(1), result.flatten(1)], 1)


def masked_values(x: Tensor) -> Tensor:
    """Numbers that depend on the image are written where a mask says."""
    result = x.clone()
    part = result[..., :3]
    mask = part > 0
    part[mask] = part[mask] * 0.5
    result[:, :, [0, 2]] = x[:, :, :1] ** 2
    return result


FUNCTIONS = [
    *(halves_swapped, scaled_in_part, written_twice, part_and_whole, cleared),
    *(view_of_the_written_whole, alias_of_the_written_whole, view_beside_the_written, flattened_before),
    *(view_within_a_view, views_side_by_side, repeated_view, zeroed_view, transposed_copy, reshaped_in_place),
    masked_values,
]


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


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_number_read_after_a_write_is_where_the_explanation_says(function: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(1)
    image = torch.randn(1, 1, 4, 6)
    head = nn.Linear(function(image).flatten(1).shape[1], 2)
    trace = cs.trace(nn.Sequential(Writing(function), head), image)
    assert cs.verify(trace).proved
    for step in trace.steps:
        for cell in [(0,) * len(step.shape), tuple(n - 1 for n in step.shape)]:
            for part in parts_of(cs.explain(trace, step, cell)):
                followed = cs.explain(trace, step, cell).follow(part)
                assert followed is None or followed.recorded == part.number, f"{step.name} {cell}: {part.label}"


def test_a_number_that_was_written_later_is_explained_by_the_step_that_wrote_it() -> None:
    class Later(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 2, 1), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            flat = y.flatten(1)
            y[:, 1].mul_(2)
            result: Tensor = self.head(flat)
            return result

    torch.manual_seed(0)
    why = cs.explain(trace := cs.trace(Later(), torch.rand(1, 1, 2, 2)), "head", (0,))
    sources = {part.source.name for part in parts_of(why) if part.source.kind == "step"}
    assert sources == {"conv", "mul"}
    assert "mul (1, 1)" in why.to_text(all=True)
    left = why.to_json()["expr"]["left"]
    assert (left["name"], left["kind"]) == ("flatten, written into later", "constant")
    assert why.to_input().checks
    assert cs.verify(trace).proved


def parts_of(why: cs.Explanation) -> list[Leaf]:
    """The recorded numbers that a number is made of."""
    return [part for part in why.parts(all=True) if isinstance(part, Leaf)]


def test_writes_into_several_parts_of_one_memory_are_kept_in_a_file(tmp_path: Path) -> None:
    def parts_together(x: Tensor) -> Tensor:
        result = x.clone()
        torch._foreach_mul_([result[..., :2], result[..., 3:]], 2.0)
        return result

    step_of(parts_together).save(tmp_path / "step.safetensors")
    assert cs.Trace.load(tmp_path / "step.safetensors").training_step is not None


def test_numbers_written_to_one_cell_together_have_no_derivative() -> None:
    def twice(x: Tensor) -> Tensor:
        result = x.clone()
        result[:, :, [1, 1]] = x[:, :, [0, 3]]
        return result

    report = cs.verify(step_of(twice))
    assert report.gradients is not None
    assert "writes several numbers to one cell" in report.gradients.unable
    assert not report.proved
