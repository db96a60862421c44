"""Lint: each mistake is found, by its name, and nothing is found once it is corrected."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

import convscope as cs
from convscope.cli import app
from convscope.probe.lint import CHECKS
from convscope.probe.linting.data_checks import mcnemar
from convscope.probe.linting.findings import LESSONS
from lint_mistakes import MISTAKES, cleared_step, net, shapes, trained_step


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
    result = cs.probe.lint(kernels={"Corners": laplacian, "corner": corner})
    assert str(result).startswith("2 kernels: 1 mistake found by 1 check")
    (finding,) = result.findings
    assert finding.check == "kernel-title"
    assert "titled 'Corners', it answers 1 to a vertical edge, 1 to a horizontal one" in finding.evidence


def test_the_named_kernels_are_named_for_what_they_find() -> None:
    (finding,) = cs.probe.lint(kernels=cs.filters.FILTERS).findings
    assert (finding.check, finding.where) == ("kernel-title", "tutorial-corner")  # the tutorial's own, with its mistake


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
    trace = cs.trace(model, shapes().scaled([0]))
    cs.probe.lint(model, shapes(), step=trained_step(True))
    assert trace.parameters.changed() == ()
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
    assert "no mistake found by 16 checks on 256 images" in right.stdout
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
