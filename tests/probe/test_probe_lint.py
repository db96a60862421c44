"""Lint: each mistake is found, by its name, and nothing is found once it is corrected."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

import convscope as cs
from convscope.cli import app
from convscope.probe.linting.data_checks import mcnemar
from convscope.probe.linting.findings import LESSONS
from convscope.probe.linting.lint import CHECKS

Arguments = Mapping[str, Any]


def shapes(count: int = 200, split: str = "train") -> cs.Dataset:
    return cs.load_dataset("shapes", split=split, size=count)


def net(*last: nn.Module, first: nn.Module | None = None, outputs: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(784, 12), nn.ReLU(), nn.Linear(12, outputs), *last]
    return nn.Sequential(*([first] if first else []), *layers).eval()


def stretched(output: Tensor, labels: Tensor) -> Tensor:
    return F.mse_loss(output, labels.float())


def fitting(output: Tensor, labels: Tensor) -> Tensor:
    return F.mse_loss(output[:, 0], labels.float())


def reds(order: tuple[int, ...] = (0, 1, 2), scale: float = 255.0) -> cs.Dataset:
    """Red and blue pictures; the channels in some order."""
    rng = np.random.default_rng(0)
    labels = np.arange(100) % 2
    images = rng.integers(0, 60, (100, 3, 5, 5)).astype(np.uint8)
    images[labels == 0, 0] += 150
    images[labels == 1, 2] += 150
    return cs.Dataset("reds", images[:, list(order)], labels, ("red", "blue"), cs.Preprocess(scale=scale))


class Reds(nn.Module):
    """Tells red from blue by their means, on images from 0 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        self.conv.weight.data = torch.tensor([[1.0, 0, -1], [-1, 0, 1]])[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        means: Tensor = torch.tanh(3 * self.conv(x) - 0.0).mean((2, 3))
        return means


class Bright(nn.Module):
    """Tells bright from dark at a threshold, so that scale matters."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        level = self.gain * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([-level, level], 1)


def brights(scale: float) -> cs.Dataset:
    labels = np.arange(80) % 2
    images = (np.random.default_rng(0).integers(0, 40, (80, 1, 6, 6)) + 30 + 150 * labels[:, None, None, None]).astype(
        np.uint8
    )
    return cs.Dataset("brights", images, labels, ("dark", "bright"), cs.Preprocess(scale=scale))


def trained_step(mode: bool, whole: bool = True) -> Callable[[nn.Module, Tensor, Tensor], None]:
    def step(model: nn.Module, images: Tensor, labels: Tensor) -> None:
        model.train(mode)
        parameters = list(model.parameters())
        optimizer = torch.optim.SGD(parameters if whole else parameters[:2], lr=0.1)
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(images), labels))
        optimizer.step()

    return step


def cleared_step(how: str) -> Callable[[nn.Module, Tensor, Tensor], None]:
    """A step with one optimizer for all calls, that clears its gradients in one of the ways that people write."""
    made: dict[nn.Module, torch.optim.Optimizer] = {}

    def step(model: nn.Module, images: Tensor, labels: Tensor) -> None:
        optimizer = made.setdefault(model, torch.optim.SGD(model.parameters(), lr=0.01))
        if how == "before":
            optimizer.zero_grad()
        elif how == "zeros":
            optimizer.zero_grad(set_to_none=False)
        parts = 3 if how == "small batches" else 1
        if parts > 1:
            model.zero_grad()
        for some, few in zip(images.chunk(parts), labels.chunk(parts), strict=True):
            torch.autograd.backward(F.cross_entropy(model(some), few) / parts)
        optimizer.step()
        if how == "after":
            for parameter in model.parameters():
                parameter.grad = None

    return step


def killed() -> nn.Sequential:
    model = net()
    linear = model[1]
    assert isinstance(linear, nn.Linear)
    linear.bias.data.fill_(-1e3)
    return model


class Idle(nn.Module):
    """Has a layer that forward does not use."""

    def __init__(self, use: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.spare, self.use = nn.Linear(784, 2), nn.Linear(2, 2), use

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(x.flatten(1))
        return out + self.spare(out) if self.use else out


def saturated(scale: float) -> nn.Sequential:
    torch.manual_seed(0)
    first = nn.Linear(784, 12)
    first.weight.data *= scale
    return nn.Sequential(nn.Flatten(), first, nn.Tanh(), nn.Linear(12, 2)).eval()


def numbered(first: int) -> cs.Dataset:
    data = shapes()
    return cs.Dataset("numbered", data.images, data.labels, (f"class {first}", f"class {first + 1}"), data.preprocess)


def swapped(wrong: bool) -> nn.Sequential:
    """Area beyond a threshold, with the two outputs in the right or in the wrong order."""
    sign = -1.0 if wrong else 1.0
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2)).eval()
    linear = model[1]
    assert isinstance(linear, nn.Linear)
    linear.weight.data = sign * torch.stack([-torch.ones(36), torch.ones(36)])
    linear.bias.data = sign * torch.tensor([18.0, -18.0])
    return model


def picture(shared: bool) -> Figure:
    figure = Figure()
    for k, limit in enumerate((1.0, 40.0)):
        values = np.linspace(0, limit, 16).reshape(4, 4)
        top = 40 if shared else limit
        figure.add_subplot(1, 2, k + 1).imshow(values, cmap="gray", vmin=0, vmax=top)
    return figure


PREWITT = np.array([[-1, 0, 1]] * 3)

MISTAKES: Mapping[str, tuple[Callable[[], Arguments], Callable[[], Arguments]]] = {
    "softmax-before-cross-entropy": (
        lambda: {"model": net(nn.Softmax(dim=1)), "data": shapes()},
        lambda: {"model": net(), "data": shapes()},
    ),
    "nll-without-log": (
        lambda: {"model": net(nn.Softmax(dim=1)), "data": shapes(), "loss": "nll"},
        lambda: {"model": net(nn.LogSoftmax(dim=1)), "data": shapes(), "loss": "nll"},
    ),
    "loss-and-target-shapes": (
        lambda: {"model": net(outputs=1), "data": shapes(), "loss": stretched},
        lambda: {"model": net(outputs=1), "data": shapes(), "loss": fitting},
    ),
    "outputs-and-classes": (
        lambda: {"model": net(outputs=5), "data": shapes()},
        lambda: {"model": net(outputs=2), "data": shapes()},
    ),
    "step-fails": (
        lambda: {"model": net(), "data": shapes(), "loss": lambda o, t: F.cross_entropy(o, t[:-1])},
        lambda: {"model": net(), "data": shapes(), "loss": lambda o, t: F.cross_entropy(o[:-1], t[:-1])},
    ),
    "missing-train": (
        lambda: {"model": net(first=nn.Dropout(0.5)), "data": shapes(), "step": trained_step(False)},
        lambda: {"model": net(first=nn.Dropout(0.5)), "data": shapes(), "step": trained_step(True)},
    ),
    "missing-eval": (
        lambda: {"model": net(first=nn.Dropout(0.5)).train(), "data": shapes()},
        lambda: {"model": net(first=nn.Dropout(0.5)).eval(), "data": shapes()},
    ),
    "batch-norm-in-training-mode": (
        lambda: {"model": net(first=nn.BatchNorm2d(1)).train(), "data": shapes()},
        lambda: {"model": net(first=nn.BatchNorm2d(1)).eval(), "data": shapes()},
    ),
    "missing-normalization": (
        lambda: {"model": Bright(), "data": brights(1.0)},
        lambda: {"model": Bright(), "data": brights(255.0)},
    ),
    "channel-order": (
        lambda: {"model": Reds(), "data": reds((2, 1, 0))},
        lambda: {"model": Reds(), "data": reds()},
    ),
    "channels-last": (
        lambda: {"model": Reds(), "data": (reds().scaled().transpose(0, 2, 3, 1), reds().labels)},
        lambda: {"model": Reds(), "data": (reds().scaled(), reds().labels)},
    ),
    "dead-layer": (lambda: {"model": killed(), "data": shapes()}, lambda: {"model": net(), "data": shapes()}),
    "saturated-layer": (
        lambda: {"model": saturated(1e3), "data": shapes()},
        lambda: {"model": saturated(1), "data": shapes()},
    ),
    "unused-parameters": (
        lambda: {"model": Idle(False), "data": shapes()},
        lambda: {"model": Idle(True), "data": shapes()},
    ),
    "nothing-changes": (
        lambda: {"model": net(), "data": shapes(), "step": trained_step(True, whole=False)},
        lambda: {"model": net(), "data": shapes(), "step": trained_step(True)},
    ),
    "missing-zero-grad": (
        lambda: {"model": net(), "data": shapes(), "step": cleared_step("never")},
        lambda: {"model": net(), "data": shapes(), "step": cleared_step("before")},
    ),
    "test-in-training": (
        lambda: {"model": net(), "data": shapes(), "test": shapes(40)},
        lambda: {"model": net(), "data": shapes(), "test": shapes(40, "test")},
    ),
    "class-titles": (
        lambda: {"model": net(), "data": numbered(1)},
        lambda: {"model": net(), "data": numbered(0)},
    ),
    "class-order": (
        lambda: {"model": swapped(True), "data": brights(255.0)},
        lambda: {"model": swapped(False), "data": brights(255.0)},
    ),
    "kernel-title": (
        lambda: {"kernels": {"Horizontal edges": PREWITT}},
        lambda: {"kernels": {"Horizontal edges": PREWITT.T, "vertical": PREWITT, "mine": PREWITT}},
    ),
    "own-scales": (lambda: {"figure": picture(False)}, lambda: {"figure": picture(True)}),
}
"""Check -> with the mistake, without it."""


@pytest.mark.parametrize("check", MISTAKES)
def test_a_mistake_is_found_and_its_correction_is_silent(check: str) -> None:
    wrong, right = MISTAKES[check]
    result = cs.probe.lint(**wrong())
    assert check in [finding.check for finding in result.findings], str(result)
    assert f"✗ {check}: {LESSONS[check].title}" in str(result)
    corrected = cs.probe.lint(**right())
    assert not corrected, str(corrected)
    assert check in corrected.looked_for


@pytest.mark.parametrize("how", ["before", "zeros", "after", "small batches"])
def test_every_way_to_clear_gradients_is_silent(how: str) -> None:
    result = cs.probe.lint(net(), shapes(), step=cleared_step(how))
    assert not result, str(result)


def test_gradients_that_add_up_are_said_with_their_parameters() -> None:
    finding = cs.probe.lint(net(), shapes(), step=cleared_step("never")).findings[0]
    assert finding.numbers["parameters"] == ["1.weight", "1.bias", "3.weight", "3.bias"]
    assert finding.evidence.startswith("4 of 4 parameters still had the gradient that had moved them")


def test_a_step_is_asked_again_only_where_it_leaves_gradients_and_may_then_fail() -> None:
    calls: list[int] = []

    def failing(model: nn.Module, images: Tensor, labels: Tensor) -> None:
        calls.append(len(calls))
        if len(calls) == 2:
            raise RuntimeError("once is enough")
        cleared_step("never")(model, images, labels)

    assert not cs.probe.lint(net(), shapes(), step=failing)
    assert calls == [0, 1]


def test_every_check_has_a_case_and_a_lesson() -> None:
    assert set(MISTAKES) == set(LESSONS)
    assert set(CHECKS) | {"kernel-title", "own-scales"} == set(LESSONS)


def test_the_floor_of_the_loss_is_the_published_one() -> None:
    result = cs.probe.lint(net(nn.Softmax(dim=1)), shapes())
    assert "with 2 classes the loss cannot fall below 0.3133" in result.findings[0].evidence
    perfect = torch.tensor([[1.0, 0.0]])
    assert float(F.cross_entropy(perfect, torch.tensor([0]))) == pytest.approx(result.findings[0].numbers["floor"])


def test_a_laplacian_is_not_a_corner_detector() -> None:
    laplacian, corner = [[0, -1, 0], [-1, 4, -1], [0, -1, 0]], [[1, -2, 1], [-2, 4, -2], [1, -2, 1]]
    (finding,) = cs.probe.lint(kernels={"Corners": laplacian, "corner": corner}).findings
    assert finding.check == "kernel-title"
    assert "titled 'Corners', it answers 1 to a vertical edge, 1 to a horizontal one" in finding.evidence


def test_the_named_kernels_are_named_for_what_they_find() -> None:
    assert not cs.probe.lint(kernels=cs.filters.FILTERS)


def test_our_own_figures_share_their_scales() -> None:
    model = cs.load_model("shapes-cnn")
    trace = cs.trace(model, cs.load_image("shapes:test/0", like=model))
    assert not cs.probe.lint(figure=cs.plot.maps(trace, steps=["conv1"], shared=True))


@pytest.mark.parametrize("mode", [True, False])
def test_the_model_is_left_as_found(mode: bool) -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), *net(nn.Softmax(dim=1))).train(mode)
    model[0].eval()
    first = model[3]
    assert isinstance(first, nn.Linear)
    first.weight.grad = torch.ones_like(first.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    random = torch.random.get_rng_state()
    cs.probe.lint(model, shapes(), step=trained_step(True))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), random)
    assert first.weight.grad is not None
    assert torch.equal(first.weight.grad, torch.ones_like(first.weight))
    assert first.bias.grad is None
    assert not any(module._forward_hooks for module in model.modules())


def test_an_untrained_network_is_not_told_that_other_data_would_suit_it() -> None:
    for seed in range(5):
        assert not cs.probe.lint(cs.load_model("shapes-cnn", seed=seed), "shapes")


def test_unscaled_pixels_are_found_before_any_training() -> None:
    data = shapes()
    raw = (data.images.astype(np.float32), data.labels)
    result = cs.probe.lint(net(), raw)
    assert "missing-normalization" in [finding.check for finding in result.findings]
    assert "inputs go from 0 to 255" in str(result)


def test_a_run_is_looked_at_with_its_own_loss_unless_another_is_given(tmp_path: Any) -> None:
    run = cs.train("shapes", recipe="tutorial", epochs=1, out=tmp_path / "run")  # cross-entropy after a softmax
    checks = {
        arguments: {f.check for f in cs.probe.lint(run, loss=arguments).findings}
        for arguments in (None, "cross-entropy", "mse")
    }
    assert checks[None] == checks["cross-entropy"] >= {"softmax-before-cross-entropy"}
    assert "softmax-before-cross-entropy" not in checks["mse"]
    with pytest.raises(cs.UsageError, match="no loss is called 'foo'"):
        cs.probe.lint(run, loss="foo")


def test_nothing_to_look_at_is_refused() -> None:
    with pytest.raises(cs.UsageError, match="give a model and data"):
        cs.probe.lint()
    with pytest.raises(cs.UsageError, match="give training images"):
        cs.probe.lint(net())
    with pytest.raises(cs.UsageError, match="no loss is called 'hinge'"):
        cs.probe.lint(net(), shapes(), loss="hinge")


def test_mcnemar_is_a_binomial_tail() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(10, 0) == pytest.approx(2**-10)
    assert mcnemar(1, 1) == pytest.approx(0.75)


def test_the_command(tmp_path: Any) -> None:
    invoke = CliRunner().invoke
    wrong = invoke(app, ["probe", "lint", "--kernel", "horizontal=-1 0 1; -1 0 1; -1 0 1", "--json"])
    assert wrong.exit_code == 1
    assert json.loads(wrong.stdout)["findings"][0]["check"] == "kernel-title"
    right = invoke(app, ["probe", "lint", "shapes-cnn", "shapes", "--out", str(tmp_path / "lint.png")])
    assert right.exit_code == 0, right.output
    assert "no mistake found by 15 checks on 256 images" in right.stdout
    assert (tmp_path / "lint.png").stat().st_size > 0
    softmax = invoke(app, ["probe", "lint", "shapes-mlp", "shapes", "--model-arg", "softmax=True"])
    assert softmax.exit_code == 1
    assert "0.3133" in softmax.stdout


@pytest.mark.parametrize("last", [nn.ReLU(), nn.Sigmoid(), nn.LogSoftmax(dim=1)])
def test_what_does_not_add_up_to_one_is_no_softmax(last: nn.Module) -> None:
    result = cs.probe.lint(net(last), shapes())
    assert "softmax-before-cross-entropy" not in [finding.check for finding in result.findings]


def test_it_tells_how_many_checks_are_done() -> None:
    warned = list[tuple[str, int, int]]()
    cs.probe.lint(cs.load_model("shapes-cnn"), "shapes", images=20, progress=lambda *at: warned.append(at))
    (first, *_, last), count = warned, len(CHECKS)
    assert (first, last) == (("checks", 0, count), ("checks", count, count))
