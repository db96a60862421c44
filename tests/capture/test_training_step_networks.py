"""Training steps of networks and losses that record more than a chain of layers."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convscope as cs


def images(count: int = 6) -> Tensor:
    return torch.randn(count, 1, 6, 6, generator=torch.Generator().manual_seed(2))


class OnView(nn.Module):
    """A ReLU in place on a view of a linear layer's result: on all of it, or on a part."""

    def __init__(self, *, whole: bool) -> None:
        super().__init__()
        self.fc1, self.fc2, self.whole = nn.Linear(6, 5), nn.Linear(5, 2), whole

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc1(x[:, 0].flatten(0, 1)).view(-1, 6, 5)
        if self.whole:
            y.relu_()
        else:
            y[:, :2].relu_()
        return self.fc2(y).sum(1)  # type: ignore[no-any-return]


def test_the_gradient_before_an_operation_in_place_on_a_view() -> None:
    torch.manual_seed(3)
    model, x, labels = OnView(whole=True), images(3), torch.tensor([0, 1, 0])
    trace = cs.trace(model, x, target=labels)
    result = model.fc1(x[:, 0].flatten(0, 1))
    result.retain_grad()
    scores = model.fc2(torch.relu(result.view(-1, 6, 5))).sum(1)
    F.cross_entropy(scores, labels).backward()  # type: ignore[no-untyped-call]
    assert result.grad is not None
    assert not result.grad.all()
    np.testing.assert_array_equal(trace["fc1.grad"].output.reshape(result.shape), result.grad)
    assert cs.verify(trace, cells=30).proved


def test_a_tensor_that_is_written_in_part_is_not_compared_rather_than_wrong() -> None:
    torch.manual_seed(3)
    report = cs.verify(cs.trace(OnView(whole=False), images(3), target=[0, 1, 0]), cells=30)
    assert not report.wrong
    assert "was written into in parts, which is not followed" in "\n".join(report.lines)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "smoothed": nn.CrossEntropyLoss(label_smoothing=0.1),
    "weighted, some ignored": nn.CrossEntropyLoss(weight=torch.tensor([0.1, 0.2, 0.3, 0.4]), ignore_index=0),
    "nll": lambda scores, labels: F.nll_loss(scores.log_softmax(1), labels),
    "binary": lambda scores, labels: F.binary_cross_entropy_with_logits(scores, F.one_hot(labels, 4).float()),
    "probabilities as labels": lambda scores, labels: F.cross_entropy(scores, F.one_hot(labels, 4) * 0.8 + 0.05),
    "softmax twice": lambda scores, labels: F.cross_entropy(scores.softmax(1), labels),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_step_with_a_loss_of_ones_own_is_proved(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Also where the loss takes numbers of the labels out of PyTorch, as `one_hot` does: they are not of the image."""
    report = cs.verify(
        cs.trace(nn.Sequential(nn.Flatten(), nn.Linear(36, 4)), images(), target=[0, 1, 2, 3, 0, 1], loss=loss),
        cells=20,
    )
    assert report.proved, report.summary()


class Sequence(nn.Module):
    """A recurrent layer over the rows of an image."""

    def __init__(self, layer: type[nn.LSTM | nn.GRU] = nn.LSTM) -> None:
        super().__init__()
        self.layer, self.fc = layer(6, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer(x[:, 0, :3])[0][:, -1])  # type: ignore[no-any-return]


def test_the_gradients_of_a_gru_are_proved() -> None:
    """Its gates are chunks of one memory, each written in place: one is not the source of another."""
    torch.manual_seed(5)
    report = cs.verify(cs.trace(Sequence(nn.GRU), images(3), target=[0, 1, 0]), cells=10)
    assert report.proved, report.summary()


def test_the_gradients_of_an_lstm_are_confirmed() -> None:
    """Through all of its states; oneDNN's backward operation as a whole has no witness, which the report says."""
    torch.manual_seed(5)
    report = cs.verify(cs.trace(Sequence(), images(3), target=[0, 1, 0]), cells=20)
    assert report.gradients is not None
    assert report.gradients.agrees, report.lines
    assert report.gradients.moved > 10
    assert {step.op for step in report.steps if step.finding == "unsupported"} <= {"mkldnn_rnn_layer_backward"}
