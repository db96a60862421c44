"""Parts: what is recomputed some cells at a time is what is recomputed as a whole, and takes little memory."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import convscope as cs
from convscope.proof import verification
from convscope.proof.recomputation import recompute, recompute_in_parts
from convscope.reference.partition import CUTS
from convscope.reference.table import OPERATIONS
from convscope.traces.step import Step
from convscope.traces.trace import Trace
from rule_cases import CASES, recorded


def test_every_operation_that_is_cut_has_a_reference() -> None:
    assert set(CUTS) <= set(OPERATIONS)


def _put_together(trace: Trace, step: Step, cells: int) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """The values and bounds that the parts add up to."""
    whole: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for part in recompute_in_parts(trace, step, cells=cells):
        for output, result in part.results.items():
            shape = step.results[output].shape
            values, bounds = whole.setdefault(output, (np.full(shape, 77.0), np.full(shape, 77.0)))
            box = part.box_in(output, len(shape))
            assert values[box].shape == result.values.shape
            values[box], bounds[box] = result.values, result.bounds
    return whole


@pytest.mark.parametrize("name", CASES)
def test_parts_add_up_to_the_whole(name: str) -> None:
    trace, *_ = recorded(name)
    for step in trace.all_steps:
        if step.op not in CUTS:
            continue
        parts = _put_together(trace, step, cells=7)
        whole = recompute(trace, step)
        assert parts.keys() == whole.keys()
        for output, result in whole.items():
            values, bounds = parts[output]
            np.testing.assert_allclose(values, result.values, rtol=1e-12, atol=1e-13, err_msg=f"{step.op} {output}")
            np.testing.assert_allclose(
                bounds, np.broadcast_to(result.bounds, values.shape), rtol=1e-9, err_msg=f"{step.op} {output}"
            )


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_convolution_falls_into_rows(data: st.DataObject) -> None:
    draw = data.draw
    transposed, kernel, stride = draw(st.booleans()), draw(st.integers(1, 5)), draw(st.integers(1, 4))
    dilation, padding, rows = draw(st.integers(1, 3)), draw(st.integers(0, 4)), draw(st.integers(1, 9))
    if transposed:
        extra = draw(st.integers(0, max(stride, dilation) - 1))
        layer: torch.nn.Module = torch.nn.ConvTranspose2d(
            2, 4, kernel, stride, padding, output_padding=extra, groups=2, dilation=dilation
        )
    else:
        layer = torch.nn.Conv2d(2, 4, kernel, stride, padding, dilation, groups=2)
    try:
        layer(torch.ones(2, 2, rows, 7))
    except RuntimeError:
        assume(False)
    trace = cs.trace(layer, torch.rand(2, 2, rows, 7))
    step = trace.all_steps[-1]
    values, bounds = _put_together(trace, step, cells=7)[0]
    whole = recompute(trace, step)[0]
    np.testing.assert_allclose(values, whole.values, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(bounds, whole.bounds, rtol=1e-9)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_the_gradient_of_any_convolution_falls_into_rows(data: st.DataObject) -> None:
    draw = data.draw
    kernel, stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    padding, rows, transposed = draw(st.integers(0, 3)), draw(st.integers(1, 11)), draw(st.booleans())
    kind = torch.nn.ConvTranspose2d if transposed else torch.nn.Conv2d
    layer = kind(2, 4, kernel, stride, padding, groups=2, dilation=dilation)
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 2, 1), layer, torch.nn.Flatten())
    image = torch.rand(2, 2, rows, 7)
    try:
        count = model(image).shape[1]
        assume(count > 1)
    except RuntimeError:
        assume(False)
    trace = cs.trace(model, image, target=torch.tensor([0, count - 1]), loss="cross-entropy")
    for step in trace.all_steps:
        if step.op == "convolution_backward":
            values, bounds = _put_together(trace, step, cells=7)[0]
            whole = recompute(trace, step)[0]
            np.testing.assert_allclose(values, whole.values, rtol=1e-12, atol=1e-13)
            np.testing.assert_allclose(bounds, whole.bounds, rtol=1e-9)


class Network(torch.nn.Module):
    """One of each: convolution, normalisation, activation, pooling, attention, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8)
        self.fc = torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.max_pool2d(torch.relu(self.bn(self.conv(x))), 2)
        rows = x.flatten(2).transpose(1, 2)
        weights = torch.softmax(rows @ rows.transpose(1, 2), -1)
        result: torch.Tensor = self.fc((weights @ rows).mean(1))
        return result


@pytest.mark.parametrize("damaged", [False, True])
def test_a_report_does_not_depend_on_the_parts(monkeypatch: pytest.MonkeyPatch, damaged: bool) -> None:
    torch.manual_seed(0)
    model = Network().eval()
    change = {"conv": lambda y: y + 1e-3, "fc": lambda y: y * 1.001} if damaged else {}
    trace = cs.trace(model, torch.rand(2, 3, 16, 16))
    for step in trace.all_steps:
        if step.name in change:
            array = step.output
            array.flags.writeable = True
            array[...] = change[step.name](array)
    whole = cs.verify(trace, cells=20)
    monkeypatch.setattr(verification, "recompute_in_parts", partial(recompute_in_parts, cells=50))
    parts = cs.verify(trace, cells=20)
    assert bool(whole.mismatches) == damaged
    for one, other in zip(whole.steps, parts.steps, strict=True):
        assert (one.finding, one.explained, one.numbers) == (other.finding, other.explained, other.numbers)
        assert one.worst == pytest.approx(other.worst, rel=1e-6)
        assert one.resolution == pytest.approx(other.resolution, rel=1e-9)
        if one.mismatch is not None and other.mismatch is not None:
            assert (one.mismatch.cell, one.mismatch.witness) == (other.mismatch.cell, other.mismatch.witness)


ALL = slice(None)
INDICES = {
    "numbers first": (torch.tensor([2, -1, 0]),),
    "numbers in the middle": (ALL, torch.tensor([3, -4])),
    "numbers last": (ALL, ALL, torch.tensor([4, 0, 2])),
    "a table": (ALL, torch.tensor([[3, 0], [1, 2]])),
    "two that broadcast": (torch.tensor([[2], [0]]), torch.tensor([0, 3, 1])),
    "two at the end": (ALL, torch.tensor([0, 1, 1]), torch.tensor([0, -1, -1])),
    "apart": (torch.tensor([0, 2]), ALL, torch.tensor([4, 1])),
    "three, some twice": tuple(torch.tensor(at) for at in ([0, 2, 0, 2], [1, 1, 1, -1], [0, 3, 0, 3])),
    "a mask of rows": (torch.tensor([True, False, True]),),
    "a mask of two axes": (torch.arange(12).reshape(3, 4) % 3 == 0,),
    "a mask last": (ALL, torch.arange(20).reshape(4, 5) % 3 == 1),
    "nothing": (torch.tensor([], dtype=torch.int64),),
}


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("name", INDICES)
def test_any_index_falls_into_parts_and_is_explained(name: str, adds: bool) -> None:
    index, shape = INDICES[name], (3, 4, 5)

    class Put(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.clone()
            given = [None if at is ALL else at for at in index]
            result: torch.Tensor = torch.ops.aten.index_put(x, given, torch.rand_like(x[index]), accumulate=adds)
            return result

    trace = cs.trace(Put(), (torch.randn(shape),))
    step = trace.all_steps[-1]
    assert step.op == "index_put"
    values, bounds = _put_together(trace, step, cells=7)[0]
    whole = recompute(trace, step)[0]
    np.testing.assert_allclose(values, whole.values, rtol=1e-12)
    np.testing.assert_allclose(bounds, np.broadcast_to(whole.bounds, shape), rtol=1e-9)
    assert cs.verify(trace).steps[-1].finding == "proved"


MEASURE = """
import tracemalloc, torch, convscope as cs
from torch import nn

class Softmax(nn.Module):
    def forward(self, x):
        return torch.softmax(x, -1)

class Weighted(nn.Module):
    def forward(self, x):
        rows = x.flatten(2)[:, :1].reshape(1, 1000, -1)
        return torch.softmax(rows @ rows.transpose(1, 2), -1) @ rows

class Calls(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, x):
        return self.call(x)

x = torch.randn(1, 8, 400, 400)
index, rows, put = torch.randint(0, 400, x.shape), torch.arange(0, 400, 2), torch.ops.aten.index_put
MODELS = {
    "conv": nn.Conv2d(8, 8, 3, padding=1), "batch norm": nn.BatchNorm2d(8), "group norm": nn.GroupNorm(8, 8),
    "one group": nn.GroupNorm(1, 8), "layer norm": nn.LayerNorm([8, 400, 400]), "rms norm": nn.RMSNorm([8, 400, 400]),
    "one channel": Calls(lambda x: nn.functional.batch_norm(x.reshape(1, 1, 1600, 800), None, None, training=True)),
    "gelu": nn.GELU(), "softmax": Softmax(), "weighted": Weighted(), "shuffle": nn.PixelShuffle(2),
    "sort": Calls(lambda x: x.sort(-1)[0]), "topk": Calls(lambda x: x.topk(9, -1, largest=False)[0]),
    "max": Calls(lambda x: x.max(1)[0]), "max of two": Calls(lambda x: torch.max(x, -x)),
    "scatter": Calls(lambda x: x.scatter(3, index, -x)), "scatter_add": Calls(lambda x: x.scatter_add(3, index, -x)),
    "index_put": Calls(lambda x: put(x, [None, None, rows], x[:, :, rows] + 1)),
    "masked": Calls(lambda x: put(x, [x > 0.5], x[0, 0, 0, 0])),
    "adding": Calls(lambda x: put(x, [None, rows % 8, rows], x[:, :1, 0] + 1, True)),
    "antialiased": Calls(lambda x: nn.functional.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True)),
    "fold": Calls(lambda x: nn.functional.fold(x.reshape(1, 32, -1), (400, 400), 2, stride=2)), "glu": nn.GLU(1),
    "logsumexp": Calls(lambda x: x.logsumexp(1)), "cumprod": Calls(lambda x: x.cumprod(1)),
    "norm": Calls(lambda x: torch.linalg.vector_norm(x, dim=1)),
    "all shares": Calls(lambda x: torch.softmax(x.flatten(), 0)), "mse": Calls(lambda x: nn.functional.mse_loss(x, -x)),
    "huber": Calls(lambda x: nn.functional.huber_loss(x, -x)),
    "xlogy": Calls(lambda x: torch.xlogy(x.abs(), x.abs())),
}
for name, model in MODELS.items():
    trace = cs.trace(model.eval(), x)
    tracemalloc.start()
    report = cs.verify(trace, cells=1)
    print(name, report.proved, tracemalloc.get_traced_memory()[1], sep=",")
    tracemalloc.stop()
"""


def test_verify_needs_little_more_than_three_times_the_largest_step() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    lines = [line.split(",") for line in done.stdout.splitlines()]
    peaks = {name: int(size) for name, _, size in lines}
    step, buffers = 8 * 400 * 400 * 4, 24_000_000
    assert len(peaks) == 30
    assert {proved for _, proved, _ in lines} == {"True"}, lines
    assert max(peaks.values()) < 3 * step + buffers, peaks


MEASURE_BACKWARD = """
import tracemalloc, torch, convscope as cs
from convscope.proof.recomputation import recompute_in_parts
from torch import nn

single = nn.Sequential(nn.Flatten(0, 2), nn.Unflatten(0, (1, 1, -1)), nn.BatchNorm2d(1))
LAYERS = {
    "kernels": (nn.Conv2d(2, 8, 3, padding=1), 2), "transposed": (nn.ConvTranspose2d(2, 8, 3, padding=1), 2),
    "one group": (nn.GroupNorm(1, 8), 8), "two groups": (nn.GroupNorm(2, 8), 8),
    "layer norm": (nn.LayerNorm([8, 400, 400]), 8), "batch norm": (nn.BatchNorm2d(8), 8), "one channel": (single, 8),
}
LAYERS |= {name: (layer, 8) for name, layer in {
    "relu": nn.ReLU(), "gelu": nn.GELU(), "softmax": nn.Softmax(1), "log softmax": nn.LogSoftmax(1),
    "max pool": nn.MaxPool2d(3, 1, 1), "average pool": nn.AvgPool2d(2), "adaptive": nn.AdaptiveAvgPool2d(7),
    "reflect": nn.ReflectionPad2d(2),
}.items()}
LAYERS |= {mode: (nn.Upsample((200, 200), mode=mode), 8) for mode in ("nearest", "bilinear", "bicubic")}
CUT = ("convolution_backward", "norm_backward", "2d_backward", "_indices_backward", "_backward_data")
CUT += ("threshold_backward", "gelu_backward")
for name, (layer, channels) in LAYERS.items():
    model = nn.Sequential(nn.Conv2d(channels, channels, 1), layer, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    loss = "mse" if layer is single else "cross-entropy"  # of one number
    trace = cs.trace(model, torch.rand(1, channels, 400, 400), target=torch.tensor([0]), loss=loss)
    for step in trace.all_steps:
        if step.op.endswith(CUT):
            tracemalloc.start()
            count = sum(r.values.size for part in recompute_in_parts(trace, step) for r in part.results.values())
            print(name, step.op, count, tracemalloc.get_traced_memory()[1], sep=",")
            tracemalloc.stop()
"""


def test_gradients_are_recomputed_in_little_more_memory_than_the_largest_step() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE_BACKWARD], capture_output=True, text=True, check=True)
    lines = [line.split(",") for line in done.stdout.splitlines()]
    peaks = {f"{name} {op} {count}": int(size) for name, op, count, size in lines}
    ops = {"convolution_backward", *(f"native_{kind}_norm_backward" for kind in ("batch", "group", "layer"))}
    ops |= {"threshold_backward", "gelu_backward", "reflection_pad2d_backward"}
    ops |= {"max_pool2d_with_indices_backward", "avg_pool2d_backward", "_adaptive_avg_pool2d_backward"}
    ops |= {f"upsample_{kind}2d_backward" for kind in ("bilinear", "bicubic", "nearest")}
    ops |= {"_softmax_backward_data", "_log_softmax_backward_data"}
    assert {op for _, op, *_ in lines} == ops
    assert max(peaks.values()) < 8 * 400 * 400 * 4 + 32_000_000, peaks
