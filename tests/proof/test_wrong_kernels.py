"""Kernels of PyTorch that are wrong: `verify` says so, and nothing else is called wrong."""

import pytest
import torch
from torch import Tensor, nn

import convscope as cs

GRADIENTS = ("view.grad", "norm.weight.grad", "norm.bias.grad")


class Tokens(nn.Module):
    """A linear layer on tokens, then batch norm on the map that they form."""

    def __init__(self, *, copied: bool) -> None:
        super().__init__()
        self.linear, self.norm, self.copied = nn.Linear(2, 2), nn.BatchNorm2d(2), copied

    def forward(self, tokens: Tensor) -> Tensor:
        maps = self.linear(tokens).transpose(1, 2).view(-1, 2, 7, 6)
        result: Tensor = self.norm(maps.contiguous() if self.copied else maps)
        return result.flatten(1)


def is_wrong(*, training: bool) -> bool:
    """Whether batch norm's backward pass gives another gradient for a view of one image than for its copy."""
    view = torch.arange(84.0, dtype=torch.float64).view(1, 42, 2).transpose(1, 2).view(1, 2, 7, 6)
    weights = torch.linspace(-1, 2, 84, dtype=torch.float64).view(1, 2, 7, 6).cos()

    def gradient(image: Tensor) -> Tensor:
        norm = nn.BatchNorm2d(2).double().train(training)
        return torch.autograd.grad((norm(image.requires_grad_()) * weights).sum(), image)[0]

    return not torch.allclose(gradient(view.detach()), gradient(view.contiguous()))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("copied", [False, True])
def test_batch_norm_of_one_image_that_is_a_view_of_tokens(*, images: int, copied: bool, training: bool) -> None:
    torch.manual_seed(0)
    tokens = torch.randn(images, 42, 2)
    step = cs.trace(Tokens(copied=copied), tokens, target=[3] * images, training=training, batched=True)
    report = cs.verify(step)
    wrong = is_wrong(training=training) and images == 1 and not copied
    assert tuple(line.name for line in report.mismatches) == (GRADIENTS if wrong else ())
    assert report.gradients is not None
    assert report.gradients.agrees != wrong
