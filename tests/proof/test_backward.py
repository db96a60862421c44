"""Backward operations: honest gradients are proved, each classic mistake turns the step red, wide sums are resolved."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

import convscope as cs
from convscope.expr.precision import Precision, gamma
from convscope.ops import backward_convolution
from convscope.ops.backward_convolution import roundings
from convscope.proof.verification_report import StepReport
from convscope.traces.trace import Trace
from rule_case import Doing
from rule_cases_backward import BACKWARD
from tampering import tampered

Array = np.ndarray[Any, Any]
Change = Callable[[Array, dict[str, Array]], Array]
aten = torch.ops.aten


def recorded(does: Callable[..., Any], *shapes: tuple[int, ...]) -> Trace:
    torch.manual_seed(0)
    return cs.trace(Doing(does), tuple(torch.randn(shape) for shape in shapes))


def last(trace: Trace) -> StepReport:
    return cs.verify(trace, cells=60).steps[-1]


def kernels(g: Tensor, x: Tensor, w: Tensor) -> Any:
    mask = [False, True, False]
    return aten.convolution_backward(g, x, w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, mask)[1]


def pixels(g: Tensor, x: Tensor, w: Tensor) -> Any:
    mask = [True, False, False]
    return aten.convolution_backward(g, x, w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, mask)[0]


def max_pooling(g: Tensor, x: Tensor) -> Any:
    places = aten.max_pool2d_with_indices(x, [2, 2])[1]
    return aten.max_pool2d_with_indices_backward(g, x, [2, 2], [2, 2], [0, 0], [1, 1], False, places)


def batch_norm(g: Tensor, x: Tensor) -> Any:
    mean, rate = x.mean((0, 2, 3)), (x.var((0, 2, 3), correction=0) + 1e-5).rsqrt()
    mask = [True, False, False]
    return aten.native_batch_norm_backward(g, x, None, None, None, mean, rate, True, 1e-5, mask)[0]


def layer_norm(g: Tensor, x: Tensor) -> Any:
    mean, rate = x.mean(2, keepdim=True), (x.var(2, correction=0, keepdim=True) + 1e-5).rsqrt()
    return aten.native_layer_norm_backward(g, x, [5], mean, rate, None, None, [True, False, False])[0]


def attention(g: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Any:
    out, total = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
    return aten._scaled_dot_product_flash_attention_for_cpu_backward(g, q, k, v, out, total, 0.0, False)[0]


def cross_entropy(logits: Tensor) -> Any:
    logs = logits.log_softmax(1)
    labels, total = torch.tensor([2, 0, 1, 2]), torch.tensor(4.0)
    passed = aten.nll_loss_backward(torch.tensor(1.0), logs, labels, None, 1, -100, total)
    return aten._log_softmax_backward_data(passed, logs, 1, torch.float32)


def nll(logs: Tensor) -> Any:
    labels, total = torch.tensor([2, 0, 1, 2]), torch.tensor(4.0)
    return aten.nll_loss_backward(torch.tensor(1.0), logs, labels, None, 1, -100, total)


def normalized_wrongly(*, mean: bool, variance: bool) -> Change:
    """Batch norm's gradient with one of its paths left out."""

    def wrong(_: Array, read: dict[str, Array]) -> Array:
        g, x, axes = read["grad_out"], read["input"], (0, 2, 3)
        rate = read["save_invstd"].reshape(1, -1, 1, 1)
        z = (x - x.mean(axes, keepdims=True)) * rate
        through = g.mean(axes, keepdims=True) * mean + z * (g * z).mean(axes, keepdims=True) * variance
        return np.asarray(rate * (g - through))

    return wrong


def without_image(result: Array, read: dict[str, Array]) -> Array:
    """A kernel's gradient without the first image's part."""
    g, x = (torch.from_numpy(read[name][:1].copy()) for name in ("grad_output", "input"))
    part: Array = kernels(g, x, torch.from_numpy(read["weight"].copy())).numpy()
    return np.subtract(result, part)


MAPS, IMAGES, WEIGHTS = (5, 4, 7, 9), (5, 3, 7, 9), (4, 3, 3, 3)
PLANTED: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...], Change]] = {
    "kernels turned over": (kernels, (MAPS, IMAGES, WEIGHTS), lambda y, _: y[..., ::-1, ::-1]),
    "kernels with axes exchanged": (kernels, (MAPS, IMAGES, WEIGHTS), lambda y, _: y.swapaxes(2, 3)),
    "an image left out": (kernels, (MAPS, IMAGES, WEIGHTS), without_image),
    "the mean over images instead of the sum": (kernels, (MAPS, IMAGES, WEIGHTS), lambda y, _: y / 5),
    "the gradient shifted by a pixel": (pixels, (MAPS, IMAGES, WEIGHTS), lambda y, _: np.roll(y, 1, 3)),
    "a wrong winner": (max_pooling, ((2, 3, 3, 4), (2, 3, 6, 8)), lambda y, _: np.roll(y, 1, 3)),
    "every cell of the window wins": (
        max_pooling,
        ((2, 3, 3, 4), (2, 3, 6, 8)),
        lambda _, read: read["grad_output"].repeat(2, 2).repeat(2, 3),
    ),
    "batch norm without the mean": (batch_norm, (IMAGES, IMAGES), normalized_wrongly(mean=False, variance=True)),
    "batch norm without the variance": (batch_norm, (IMAGES, IMAGES), normalized_wrongly(mean=True, variance=False)),
    "batch norm straight": (batch_norm, (IMAGES, IMAGES), normalized_wrongly(mean=False, variance=False)),
    "probability without the label": (
        cross_entropy,
        ((4, 3),),
        lambda _, read: np.exp(read["output"]) / len(read["output"]),
    ),
    "a loss not divided by N": (nll, ((4, 3),), lambda y, _: y * 4),
    "a mean squared error not divided by N": (
        lambda x, t: aten.mse_loss_backward(torch.tensor(1.0), x, t, 1),
        ((4, 3), (4, 3)),
        lambda y, _: y * 12,
    ),
    "a mean squared error without its 2": (
        lambda x, t: aten.mse_loss_backward(torch.tensor(1.0), x, t, 1),
        ((4, 3), (4, 3)),
        lambda y, _: y / 2,
    ),
    "relu passes everything": (
        lambda g, x: aten.threshold_backward(g, x, 0),
        ((4, 5), (4, 5)),
        lambda _, read: read["grad_output"],
    ),
    "layer norm straight": (
        layer_norm,
        ((3, 4, 5), (3, 4, 5)),
        lambda _, read: read["grad_out"] * read["rstd"],
    ),
    "the gradient of a resize without its shares": (
        lambda g: aten.upsample_bilinear2d_backward(g, [6, 8], [1, 2, 3, 4], False),
        ((1, 2, 6, 8),),
        lambda y, _: y / 4,
    ),
    "a border whose gradient is lost": (
        lambda g, x: aten.reflection_pad2d_backward(g, x, [1, 1, 1, 1]),
        ((1, 2, 6, 8), (1, 2, 4, 6)),
        lambda _, read: read["grad_output"][..., 1:-1, 1:-1],
    ),
    "the last of several reads alone": (
        lambda g: aten.embedding_dense_backward(g, torch.tensor([1, 2, 1]), 4, -1, False),
        ((3, 5),),
        lambda y, read: np.concatenate([y[:1], read["grad_output"][2:], y[2:]]),
    ),
    "attention without the mean of its slopes": (attention, ((1, 2, 5, 4),) * 4, lambda y, _: y + 0.01),
    "attention without its scale": (attention, ((1, 2, 5, 4),) * 4, lambda y, _: 2 * y),
    **{
        mistake: (*BACKWARD[case], change)
        for mistake, (case, change) in {
            "a sampled image's gradient shifted by a cell": (
                "grid sample backward, bilinear, zeros",
                lambda y, _: np.roll(y, 1, 3),
            ),
            "rows and columns of a grid exchanged": ("grid sample backward, grid alone", lambda y, _: y[..., ::-1]),
            "a distance that draws rows together": ("distances backward, order 2.0", lambda y, _: -y),
            "a distance of other order": ("distances of pairs backward, order 3.0", lambda y, _: y * np.abs(y)),
            "a bag's mean as its sum": ("bag of embeddings backward, mean", lambda y, _: y * 3),
            "a bag's weights exchanged": ("weights of a bag backward", lambda y, _: y[::-1]),
            "a winner of the next window": ("fractional max pooling backward", lambda y, _: np.roll(y, 1, 3)),
            "a segment's mean as its sum": ("segments backward, mean", lambda y, _: y * 2),
            "numbers in the wrong order": ("masked scatter backward", lambda y, _: y[::-1]),
            "half of a logit's slope": (
                "logit backward",
                lambda _, read: read["grad_output"] / read["self"],
            ),
            "a randomized slope that passes everything": (
                "randomized slope backward, False",
                lambda _, read: read["grad_output"],
            ),
        }.items()
    },
    "tanh by its input": (
        lambda g, x: aten.tanh_backward(g, x.tanh()),
        ((4, 5), (4, 5)),
        lambda _, read: read["grad_output"] * (1 - np.arctanh(read["output"]) ** 2),
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_wrong_gradient_turns_red(name: str) -> None:
    does, shapes, change = PLANTED[name]
    trace = recorded(does, *shapes)
    assert last(trace).finding == "proved"
    step = trace.all_steps[-1]
    read = trace.operands(step)
    changed = tampered(trace, outputs={step.name: lambda y: change(y, read).astype(np.float32)})
    assert last(changed).finding == "mismatch"


def test_other_places_than_the_winners_turn_red() -> None:
    """The places that a kernel was given are not believed: the reference finds the winners itself."""
    trace = recorded(max_pooling, (2, 3, 3, 4), (2, 3, 6, 8))
    step = trace.all_steps[-1]
    changed = tampered(trace, operands={(step.name, "indices"): lambda places: places[..., ::-1]})
    assert last(changed).finding == "mismatch"


def test_a_gradient_off_by_a_twentieth_is_found_among_64_images() -> None:
    """Sums over 64 images of 28x28: 5 % of the gradients' size in one cell, far below the bound of any order."""
    trace = recorded(kernels, (64, 4, 28, 28), (64, 1, 28, 28), (4, 1, 3, 3))
    step = trace.all_steps[-1]
    off = 0.05 * float(np.sqrt(np.mean(step.output**2)))
    honest = last(trace)
    assert honest.finding == "proved"
    assert honest.resolution < 0.02

    def moved(result: Array) -> Array:
        result[2, 0, 1, 0] += off
        return result

    assert last(tampered(trace, outputs={step.name: moved})).finding == "mismatch"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("shape", "units", "kernel"),
    [((64, 3, 12, 12), 5, 3), ((64, 1, 28, 28), 8, 3), ((8, 16, 14, 14), 8, 1), ((2, 3, 64, 64), 6, 5)],
    ids=str,
)
def test_gradients_over_many_places_are_proved(shape: tuple[int, ...], units: int, kernel: int, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        out = (shape[0], units, *(n - kernel + 1 for n in shape[2:]))

        def does(g: Tensor, x: Tensor, w: Tensor) -> Any:
            mask = [True, True, True]
            return aten.convolution_backward(g, x, w, [units], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, mask)

        found = last(recorded(does, out, shape, (units, shape[1], kernel, kernel)))
    finally:
        torch.set_num_threads(before)
    assert found.finding == "proved"
    assert found.worst < 0.5


@pytest.mark.parametrize("name", BACKWARD)
def test_special_numbers_are_no_mismatch(name: str) -> None:
    """Infinities, nan and numbers whose products overflow: proved where kernels agree, else refused."""
    does, shapes = BACKWARD[name]
    for special in (float("nan"), float("inf"), 1e30):
        torch.manual_seed(1)
        inputs = [torch.randn(shape) for shape in shapes]
        for x in inputs:
            x.view(-1)[[0, x.numel() // 2]] = special
        trace = cs.trace(Doing(does), tuple(inputs))
        report = cs.verify(trace, cells=12)
        wrong = [str(step.mismatch) for step in report.mismatches if "backward" in step.op]
        assert not wrong, (special, wrong)
        for step in trace.all_steps:
            if "backward" in step.op and 0 not in step.shape:
                str(cs.explain(trace, step, (0,) * len(step.shape)))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_convolution_has_proved_gradients(data: st.DataObject) -> None:
    draw = data.draw
    axes, groups, transposed = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.booleans())
    each = st.lists(st.integers(1, 3), min_size=axes, max_size=axes)
    sizes, stride, dilation = draw(each), draw(each), draw(each)
    padding = [draw(st.integers(0, size - 1)) for size in sizes]
    x = torch.randn(draw(st.integers(1, 3)), 2 * groups, *(7, 8, 9)[:axes])
    kernel = (2 * groups, 3, *sizes) if transposed else (3 * groups, 2, *sizes)
    weight = torch.randn(kernel)
    how = (stride, padding, dilation, transposed, [0] * axes, groups)
    try:
        result = aten.convolution(x, weight, None, *how)
    except RuntimeError:  # settings that PyTorch refuses
        assume(False)
    grad = torch.randn_like(result) * (torch.rand_like(result) > draw(st.sampled_from([0.0, 0.7])))

    def does(g: Tensor, x: Tensor, w: Tensor) -> Any:
        return aten.convolution_backward(g, x, w, [3 * groups], *how, [True, True, True])

    report = cs.verify(cs.trace(Doing(does), (grad, x, weight)), cells=10)
    assert report.steps[-1].finding in {"proved", "unresolved"}, str(report.steps[-1].mismatch)


def added(terms: Array, draw: st.DataObject) -> np.float32:
    """A sum in float32 over successive ranges, cut anywhere, whose sums are joined: as tiles and threads do."""
    if len(terms) == 1:
        return np.float32(terms[0])
    cut = draw.draw(st.integers(1, len(terms) - 1))
    return np.float32(added(terms[:cut], draw) + added(terms[cut:], draw))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_cut_of_the_walk_is_worse_than_its_bound(draw: st.DataObject) -> None:
    """Also where terms are sorted, so that partial sums are as large as can be."""
    seed, images, rows, width = (draw.draw(st.integers(*ends)) for ends in ((0, 999), (1, 3), (1, 4), (1, 9)))
    terms = np.random.default_rng(seed).normal(0.0, 1.0, images * rows * width)
    terms = np.sort(terms) if draw.draw(st.booleans()) else terms
    terms = terms.astype(np.float32).astype(np.float64)
    precision = Precision.of("float32")
    off = roundings(terms.reshape(images, rows, width), precision.sum)
    error = abs(float(added(terms, draw)) - terms.sum())
    assert error <= gamma(off, precision.sum) * np.abs(terms).sum()


def test_no_lanes_are_worse_than_the_bound_of_a_whole_image() -> None:
    random = np.random.default_rng(0)
    precision = Precision.of("float32")
    for lanes in (1, 4, 8, 16, 64):
        for shift in (0.0, 0.5):
            terms = (random.normal(shift, 1.0, (3, 20, 20))).astype(np.float32)
            total = np.float32(0)
            for image in terms.reshape(3, -1):
                sums = np.zeros(lanes, np.float32)
                for start in range(0, len(image), lanes):
                    part = image[start : start + lanes]
                    sums[: len(part)] += part
                for one in sums:
                    total = np.float32(total + one)
            off = gamma(roundings(terms.astype(np.float64), precision.sum, at_once=True), precision.sum)
            assert abs(float(total) - terms.astype(np.float64).sum()) <= off * np.abs(terms).sum()


def test_a_sum_without_cancellation_keeps_the_bound_of_any_order() -> None:
    """Where all terms have one sign, walking along them is as bad as it gets."""
    ones = np.ones((4, 6, 8))
    assert roundings(ones, 2.0**-24) == pytest.approx(192)
    mixed = ones * np.where(np.arange(8) % 2, 1, -1)
    assert roundings(mixed, 2.0**-24) < 24


def test_another_processor_gets_the_bound_of_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backward_convolution, "WALKS", False)
    mixed = np.ones((4, 6, 8)) * np.where(np.arange(8) % 2, 1, -1)
    assert roundings(mixed, 2.0**-24) == 192


def test_a_kernel_gradient_reads_image_by_image() -> None:
    trace = recorded(kernels, (40, 4, 7, 9), (40, 3, 7, 9), WEIGHTS)
    why = cs.explain(trace, trace.all_steps[-1], (3, 0, 1, 1))
    text = why.to_text(depth=2)
    assert "the sum over 40 images of their 63 positions: the input under this kernel cell × the gradient" in text
    assert "32 others" in why.to_text()
    totals = getattr(why.expr, "values", np.zeros(0))
    first = int(np.argmax(np.abs(totals)))
    assert text.index(f"image ({first})") == text.index("image (")
    assert f"image {first}, the sum over 63 positions" in text
    assert "input1" in text
