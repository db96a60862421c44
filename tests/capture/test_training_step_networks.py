"""Training steps of networks and losses that record more than a chain of layers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

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


def test_the_gradient_before_a_part_of_a_view_was_written_is_proved() -> None:
    torch.manual_seed(3)
    report = cs.verify(cs.trace(OnView(whole=False), images(3), target=[0, 1, 0]), cells=30)
    assert report.proved
    assert report.gradients is not None
    assert not report.gradients.unable


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

    def __init__(self, layer: type[nn.LSTM | nn.GRU | nn.RNN], hidden_size: int = 5, **options: Any) -> None:
        super().__init__()
        self.layer, self.rows_first = layer(6, hidden_size, **options), not options.get("batch_first", False)
        self.fc = nn.Linear(10 if options.get("bidirectional") else 5, 2)

    def forward(self, x: Tensor) -> Tensor:
        rows = x[:, 0, :3].transpose(0, 1) if self.rows_first else x[:, 0, :3]
        states = self.layer(rows)[0]
        return self.fc(states[-1] if self.rows_first else states[:, -1])  # type: ignore[no-any-return]


RECURRENT: dict[str, tuple[type[nn.LSTM | nn.GRU | nn.RNN], dict[str, Any]]] = {
    "lstm": (nn.LSTM, {}),
    "lstm, batch first, no biases": (nn.LSTM, {"batch_first": True, "bias": False}),
    "lstm, two layers both ways": (nn.LSTM, {"num_layers": 2, "bidirectional": True, "dropout": 0.3}),
    "lstm with projections": (nn.LSTM, {"proj_size": 5, "hidden_size": 7}),
    "gru": (nn.GRU, {"batch_first": True}),
    "gru, both ways": (nn.GRU, {"bidirectional": True, "bias": False}),
    "plain": (nn.RNN, {"batch_first": True}),
    "plain with relu, two layers": (nn.RNN, {"nonlinearity": "relu", "num_layers": 2}),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_a_step_of_a_recurrent_network_is_proved(name: str) -> None:
    """Gates of a GRU are chunks of one memory, each written in place; an LSTM is one operation of oneDNN."""
    torch.manual_seed(5)
    layer, options = RECURRENT[name]
    trace = cs.trace(Sequence(layer, **options), images(3), target=[0, 1, 0], optimizer="adam", lr=1e-3)
    report = cs.verify(trace, cells=10)
    assert report.proved, report.lines
    assert report.gradients is not None
    assert report.gradients.moved > 10


NORMED = {
    "spectral norm": parametrizations.spectral_norm,
    "weight norm": parametrizations.weight_norm,
    "spectral norm of several iterations": lambda layer: parametrizations.spectral_norm(layer, n_power_iterations=3),
    "old spectral norm": nn.utils.spectral_norm,
}


@pytest.mark.parametrize("norm", NORMED.values(), ids=NORMED)
def test_a_step_with_normed_weights_is_proved(norm: Callable[[nn.Module], nn.Module]) -> None:
    """The vectors that spectral norm estimates are state: finite differences hold them, as the gradient does."""
    torch.manual_seed(3)
    model = nn.Sequential(norm(nn.Conv2d(1, 3, 3)), nn.ReLU(), nn.Flatten(), norm(nn.Linear(48, 2)))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = cs.verify(cs.trace(model, images(3), target=[0, 1, 0], optimizer="sgd", lr=0.1), cells=20)
    assert report.proved, report.lines
    assert report.gradients is not None
    assert report.gradients.furthest < 1e-4
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class Remembering(nn.Module):
    """A layer whose result passes through a buffer, with its gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(36, 2)
        self.register_buffer("last", torch.zeros(6, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.last.clone().copy_(self.fc(x.flatten(1)))  # type: ignore[operator]


def test_a_number_that_passes_through_a_copy_of_a_buffer_keeps_its_gradient() -> None:
    report = cs.verify(cs.trace(Remembering(), images(), target=[0, 1, 0, 1, 0, 1]), cells=20)
    assert report.proved, report.lines
    assert report.gradients is not None
    assert report.gradients.moved > 3


class Tied(nn.Module):
    """Two layers that share their weights."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(36, 36), nn.Linear(36, 36)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x.flatten(1))))  # type: ignore[no-any-return]


def test_shared_weights_have_the_names_of_all_layers(tmp_path: Path) -> None:
    trace = cs.trace(Tied(), images(2), target=[0, 1], optimizer="sgd", lr=0.1)
    trace.save(tmp_path / "tied.trace")
    for each in (trace, cs.Trace.load(tmp_path / "tied.trace")):
        for kind in ("grad", "updated", "momentum_buffer.updated"):
            assert each[f"b.weight.{kind}"] is each[f"a.weight.{kind}"]
        assert each["b.weight.grad"].name == "a.weight.grad#sum"
    assert trace.training_step is not None
    assert "b.weight" not in trace.training_step.gradients


def test_a_loss_without_a_name_is_a_loss_of_ones_own() -> None:
    trace = cs.trace(Tied(), images(2), target=[0, 1], loss=lambda scores, _: scores.sum())
    assert trace.training_step is not None
    assert trace.training_step.says == "loss and gradients of a loss of your own, in evaluation mode"


class TwoHeads(nn.Module):
    """Scores and auxiliary scores, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.scores, self.auxiliary = nn.Linear(36, 2), nn.Linear(36, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"scores": self.scores(x.flatten(1)), "auxiliary": self.auxiliary(x.flatten(1))}


LOSSES_OF_HEADS: dict[str, tuple[Any, bool]] = {
    "of both": (lambda out, y: F.cross_entropy(out["scores"], y) + 0.4 * F.cross_entropy(out["auxiliary"], y), True),
    "of a tensor": (lambda out, y: F.cross_entropy(2 * out, y), False),
    "torch's": (nn.CrossEntropyLoss(label_smoothing=0.1), False),
    "by name": ("cross-entropy", False),
}


@pytest.mark.parametrize("name", LOSSES_OF_HEADS)
def test_a_loss_receives_all_that_the_model_returns_or_the_first_tensor(name: str) -> None:
    loss, both = LOSSES_OF_HEADS[name]
    trace = cs.trace(TwoHeads(), images(2), target=[0, 1], loss=loss)
    gradients = [step.name for step in trace.all_steps if step.name.endswith("weight.grad")]
    assert sorted(gradients) == ["auxiliary.weight.grad", "scores.weight.grad"][0 if both else 1 :]
    assert cs.verify(trace, cells=20).proved


def test_a_loss_that_fails_is_reported_for_what_it_received_first() -> None:
    with pytest.raises(cs.TraceError, match=r"the loss failed: KeyError: 'logits'"):
        cs.trace(TwoHeads(), images(2), target=[0, 1], loss=lambda out, y: F.cross_entropy(out["logits"], y))
