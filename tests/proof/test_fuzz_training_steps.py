"""Training steps of random networks: the gradients are PyTorch's own, bit for bit, and each of them is proved."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, reject, settings
from torch import Tensor

import convscope as cs
from grown_networks import TRAINED_PLANS, Grown, Plan

FINDINGS = {"proved", "proved normwise", "unresolved", "given"}
WRONG_KERNEL = ("native_batch_norm_backward", "mismatch")
"""Of one image that is a view of tokens, which an act may make: see test_wrong_kernels.py."""


def weighed(output: dict[str, Tensor], _target: Tensor) -> Tensor:
    """A weighted sum of the last result: each of its numbers has another gradient."""
    last = output["last"]
    return (last * torch.linspace(-1, 2, last.numel()).view(last.shape)).sum()


def assert_gradients_are_those_of_pytorch_and_proved(plan: Plan) -> None:
    torch.manual_seed(len(plan))
    net, image = Grown(plan), torch.randn(2, 2, 7, 6)
    try:
        with torch.no_grad():
            net.train()(image.clone())
        twin = copy.deepcopy(net.eval())
        try:
            output = twin(image.clone().requires_grad_())
        except RuntimeError:  # it writes into the image, which then cannot have a gradient
            output = twin(image.clone())
        torch.autograd.backward(weighed(output, image))
    except (RuntimeError, IndexError):  # a shape that an act does not fit, or a write that autograd refuses
        reject()
    trace = cs.trace(net, image, target=torch.zeros(2), loss=weighed)
    for name, parameter in twin.named_parameters():
        if parameter.grad is not None:
            np.testing.assert_array_equal(trace[f"{name}.grad"].output, parameter.grad, strict=True)
    report = cs.verify(trace, cells=20)
    left = [(step.name, step.op, step.finding) for step in report.steps if step.finding not in FINDINGS]
    assert not [line for line in left if line[1:] != WRONG_KERNEL]


@settings(max_examples=40)
@given(TRAINED_PLANS)
def test_any_network_has_the_gradients_of_pytorch_and_they_are_proved(plan: Plan) -> None:
    assert_gradients_are_those_of_pytorch_and_proved([("convolution", 0, 1), *plan])


@pytest.mark.study
@settings(max_examples=2_000)
@given(TRAINED_PLANS)
def test_thousands_of_networks_have_the_gradients_of_pytorch(plan: Plan) -> None:
    assert_gradients_are_those_of_pytorch_and_proved([("convolution", 0, 1), *plan])
