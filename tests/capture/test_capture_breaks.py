"""Numbers that leave PyTorch in the middle of a pass and come back: seen, said, and nowhere called known."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import convscope as cs


class Runs(nn.Module):
    """A convolution, then one function of its result and the image."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.conv(x), x)


def through_numpy(y: Tensor, _x: Tensor) -> Tensor:
    return torch.from_numpy(np.tanh(y.detach().numpy())) * 2


def into_place(y: Tensor, _x: Tensor) -> Tensor:
    array = y.numpy()
    array[...] = array.max()
    return y * 2


def by_pointer(y: Tensor, _x: Tensor) -> Tensor:
    import ctypes

    out = torch.empty(y.shape)
    ctypes.memmove(out.data_ptr(), y.data_ptr(), y.numel() * 4)
    return out * 2


def by_dlpack(y: Tensor, _x: Tensor) -> Tensor:
    return torch.tensor(np.from_dlpack(y).sum()) * y


BREAK = {
    "item": lambda y, x: y / x.max().item(),
    "float": lambda y, x: y * float(x.mean()),
    "arithmetic of Python": lambda y, x: y * (1 / (1 + math.exp(x.mean().item()))),
    "a number added": lambda y, x: y + x.mean().item(),
    "full": lambda y, x: y + torch.full((1,), x.mean().item()),
    "a tensor of a number": lambda y, x: y + torch.tensor(x.mean().item()),
    "a tensor of a list": lambda y, x: y + torch.tensor(x.mean((0, 1, 2)).tolist()),
    "iteration": lambda y, x: y + sum(float(v) for v in x[0, 0, 0]),
    "array protocol": lambda y, _x: torch.as_tensor(np.asarray(y)) * 2,
    "clamp": lambda y, x: y.clamp(x.min().item(), x.mean().item()),
    "assignment": lambda y, x: assigned(y.clone(), x.mean().item()),
    "numpy": through_numpy,
    "numpy in place": into_place,
    "pointer": by_pointer,
    "dlpack": by_dlpack,
    "integer": lambda y, x: y * int(x.sum().round() + 1000),
    "frombuffer": lambda y, _x: torch.frombuffer(bytearray(y.numpy().tobytes()), dtype=torch.float32).view_as(y) * 2,
}


def assigned(y: Tensor, number: float) -> Tensor:
    y[0, 0] = number
    return y


@pytest.fixture(params=[None, "all", 0], ids=["budget", "all", "nothing"])
def keep(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("way", BREAK)
def test_numbers_that_come_back_break_the_chain_and_everything_says_so(way: str, keep: Any) -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 8, 8)
    trace = cs.trace(Runs(BREAK[way]), image, keep=keep)
    broken = [step for step in trace.all_steps if step.broken]
    assert broken, way
    notes = [note for note in trace.notes if "the chain to the image is broken at" in note]
    assert len(notes) == sum(len(step.broken) for step in broken)
    assert all(step.broken[0] in step.says for step in broken)
    assert not any(step.hidden for step in broken)
    reported = {note.lower() for note in cs.verify(trace, cells=5).notes}
    assert {note.lower() for note in notes} <= reported
    last, cell = trace.steps[-1], (0,) * len(trace.steps[-1].shape)
    field = cs.probe.receptive_field(trace, last.name, cell)
    assert field.broken
    assert "unknown" in str(field)
    assert "depends on no cell" not in str(field)
    assert "chain broken" in str(cs.probe.receptive_fields(trace))
    try:
        found = cs.explain(trace, last, cell).to_input()
    except cs.UsageError:
        return  # a step on the way has no adjoint
    assert found.broken
    assert not found.linear
    assert "exact" not in str(found)
    assert "unknown" in str(found)
    assert found.to_json()["broken"] == list(found.broken)


@pytest.mark.parametrize("way", BREAK)
def test_the_numbers_are_those_of_an_untraced_run(way: str, keep: Any) -> None:
    torch.manual_seed(0)
    net, image = Runs(BREAK[way]), torch.rand(1, 8, 8)
    with torch.no_grad():
        expected = net(image[None]).numpy()
    trace = cs.trace(net, image, keep=keep)
    assert np.array_equal(trace.output, expected)
    assert cs.verify(trace, cells=5).mismatches == ()


def test_where_they_left_is_said() -> None:
    torch.manual_seed(0)
    trace = cs.trace(Runs(BREAK["item"]), torch.rand(1, 8, 8))
    assert trace["div"].broken == ("other holds numbers that left PyTorch at max by item()",)
    assert trace.notes == (
        "the chain to the image is broken at div: other holds numbers that left PyTorch at max by item().",
    )
    trace = cs.trace(Runs(BREAK["numpy"]), torch.rand(1, 8, 8))
    assert trace["lift_fresh"].broken == ("self may hold numbers that left PyTorch at conv by numpy()",)
    trace = cs.trace(Runs(BREAK["numpy in place"]), torch.rand(1, 8, 8))
    assert trace["mul"].broken == ("self was written into outside PyTorch, which got its memory at conv by numpy()",)
    trace = cs.trace(Runs(BREAK["pointer"]), torch.rand(1, 8, 8))
    assert trace["mul"].broken == ("self holds numbers that were not written by a PyTorch operation",)


TABLE = torch.tensor([0.25, 0.5])
WHOLE = {
    "conditions": lambda y, x: y * 0.3 if x.mean() > 0.1 and bool((y > 0).any()) and not torch.equal(x, y) else y,
    "sizes of made tensors": lambda y, _x: y * (1 / torch.tensor([8, 8]).max().item()) + torch.tensor(0.7),
    "shapes": lambda y, x: y[:, :, : int(torch.tensor(x.shape)[2]) // 2].reshape(1, -1) / math.sqrt(y.shape[1]),
    "literals alone": lambda y, _x: (y * 0.37 + torch.tensor([0.1, 0.2])[:, None, None]).clamp(-0.5, 0.5),
    "a table from outside": lambda y, x: y * TABLE[:, None, None] if x.max().item() > 0 else y,
    "literals after a number": lambda y, x: y * 0.37 if x.max().item() > 0.2 else y,
    "weights read": lambda y, _x: y / y.shape[1] + float(torch.ones(2).sum().item()),
    "filled buffers": lambda y, _x: y + torch.empty(2, 1, 1).fill_(0.5),
    "normalised": lambda y, x: F.normalize(y, dim=1) if x.max().item() > 0 else y,
    "a layer of torch": lambda y, x: F.layer_norm(y, (8, 8)) if x.max().item() > 0 else y,
    "looked at": lambda y, _x: looked(y),
}


def looked(y: Tensor) -> Tensor:
    assert np.isfinite(y.numpy()).all()
    return y * 0.5


@pytest.mark.parametrize("way", WHOLE)
def test_a_chain_that_is_whole_is_not_called_broken(way: str, keep: Any) -> None:
    torch.manual_seed(0)
    trace = cs.trace(Runs(WHOLE[way]), torch.rand(1, 8, 8), keep=keep)
    assert [(step.name, step.broken) for step in trace.all_steps if step.broken] == []
    assert not [note for note in trace.notes if "chain" in note]
    last = trace.steps[-1]
    assert not cs.probe.receptive_field(trace, last.name).broken


def test_branches_before_and_beside_a_break_are_known() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return torch.cat([y.relu(), y / x.max().item()])

    trace = cs.trace(Two(), torch.rand(1, 8, 8))
    assert cs.probe.receptive_field(trace, "relu", (0, 0, 4, 4)).broken == ()
    assert cs.probe.receptive_field(trace, "cat", (0, 0, 4, 4)).broken == ()
    assert cs.probe.receptive_field(trace, "cat", (1, 0, 4, 4)).broken == ("div",)
    assert cs.explain(trace, "cat", (0, 0, 4, 4)).to_input().linear
    assert cs.explain(trace, "cat", (1, 0, 4, 4)).to_input().broken == ("div",)


def test_a_cell_that_gets_another_number_of_the_image_depends_on_it() -> None:
    trace = cs.trace(Runs(lambda y, x: assigned(y.clone(), x.mean())), torch.rand(1, 8, 8))
    assert cs.probe.receptive_field(trace, trace.steps[-1].name).whole


def test_breaks_are_saved_with_the_trace(tmp_path: Path) -> None:
    trace = cs.trace(Runs(BREAK["item"]), torch.rand(1, 8, 8))
    trace.save(tmp_path / "t")
    loaded = cs.Trace.load(tmp_path / "t")
    assert loaded["div"].broken == trace["div"].broken
    assert loaded.notes == trace.notes
    assert cs.probe.receptive_field(loaded, "div").broken == ("div",)


def test_tensors_have_their_own_methods_after_a_pass() -> None:
    before = {name: Tensor.__dict__.get(name) for name in ("numpy", "tolist", "data_ptr", "__dlpack__", "data")}
    seen: list[bool] = []

    def looks(y: Tensor, _x: Tensor) -> Tensor:
        seen.append(Tensor.__dict__.get("numpy") is before["numpy"])
        raise RuntimeError("on purpose")

    with pytest.raises(cs.TraceError, match="on purpose"):
        cs.trace(Runs(looks), torch.rand(1, 8, 8))
    assert seen == [False]
    assert {name: Tensor.__dict__.get(name) for name in before} == before


def test_numbers_that_leave_in_another_thread_are_not_this_pass_s() -> None:
    import threading

    other = torch.rand(3)

    def elsewhere(y: Tensor, _x: Tensor) -> Tensor:
        thread = threading.Thread(target=other.numpy)
        thread.start()
        thread.join()
        return y * 0.123

    trace = cs.trace(Runs(elsewhere), torch.rand(1, 8, 8))
    assert trace.notes == ()


VALUES = {
    "svdvals": torch.linalg.svdvals,
    "spectral norm": lambda m: torch.linalg.matrix_norm(m, ord=2),
    "nuclear norm": lambda m: torch.linalg.matrix_norm(m, ord="nuc"),
    "eigvalsh": lambda m: torch.linalg.eigvalsh(m @ m.mT),
    "condition number": torch.linalg.cond,
}


@pytest.mark.parametrize("way", VALUES)
def test_values_that_pytorch_computes_otherwise_when_it_is_watched_are_said(way: str) -> None:
    net = nn.Sequential(nn.Flatten(2), Of(VALUES[way]))
    (note,) = cs.trace(net, torch.randn(6, 4, 5)).notes
    assert "the last bits may differ" in note


def test_values_whose_vectors_are_read_have_the_same_bits_and_no_note() -> None:
    def function(m: Tensor) -> Any:
        u, s, v = torch.linalg.svd(m, full_matrices=False)
        return (u * s[..., None, :]) @ v

    net, image = nn.Sequential(nn.Flatten(2), Of(function)), torch.randn(1, 6, 4, 5)
    trace = cs.trace(net, image)
    assert trace.notes == ()
    with torch.no_grad():
        assert np.array_equal(trace.output, net(image).numpy())


class Of(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.function(x)
        return made
