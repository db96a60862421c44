"""A recorded training step: its gradients and updates are PyTorch's own, and nothing of the user's changes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convscope as cs
from convscope.errors import UsageError
from forging import Square

NETWORKS = ("crosses", "shapes-cnn", "simple-cnn", "mnist-convnet", "mlp-512", "mnist-small")


def batch(model: nn.Module, images: int = 4) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Noise in the shape that a model expects, and two classes in turn."""
    return np.stack([cs.random_image(model, seed=i) for i in range(images)]), np.arange(images) % 2


def small() -> nn.Module:
    """A convolution, a ReLU in place, a linear layer."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(48, 4))


def images(count: int = 6) -> Tensor:
    return torch.randn(count, 1, 6, 6, generator=torch.Generator().manual_seed(2))


def test_batch_norm_trains_on_one_image_of_several_places() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.BatchNorm2d(1), small()).train()
    trace = cs.trace(model, images(1), target=[2], optimizer="sgd", lr=0.1)
    torch.autograd.backward(F.cross_entropy(model(images(1)), torch.tensor([2])))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        np.testing.assert_array_equal(trace[f"{name}.grad"].output, parameter.grad)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam], ids=["sgd", "adam"])
def test_gradients_and_updates_are_those_of_pytorch(name: str, kind: Any) -> None:
    model = cs.load_model(name)
    x, labels = batch(model)
    loss = "mse" if name == "crosses" else "cross-entropy"
    trace = cs.trace(model, x, target=labels, loss=loss, optimizer=kind(model.parameters(), lr=0.01), training=False)
    pixels = torch.tensor(x, requires_grad=True)
    output, target = model(pixels), torch.tensor(labels)
    value = F.mse_loss(output[:, 0], target.float()) if loss == "mse" else F.cross_entropy(output, target)
    value.backward()  # type: ignore[no-untyped-call]
    assert trace["loss"].output == value.item()
    assert pixels.grad is not None
    np.testing.assert_array_equal(trace["input.grad"].output, pixels.grad)
    for parameter, tensor in model.named_parameters():
        np.testing.assert_array_equal(trace[f"{parameter}.grad"].output, tensor.grad)
    kind(model.parameters(), lr=0.01).step()
    for parameter, tensor in model.named_parameters():
        np.testing.assert_array_equal(trace[f"{parameter}.updated"].output, tensor.detach())


def test_a_gradient_has_the_shape_of_what_was_broadcast(tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = small()
            self.shift, self.map = nn.Parameter(torch.rand(4)), nn.Parameter(torch.rand(1, 6, 6))
            self.conv, self.scale = nn.Conv2d(1, 2, 1), nn.Parameter(torch.rand(2, 1, 1))  # as ConvNeXt scales a layer
            self.factor = nn.Parameter(torch.tensor(1.5))

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = (self.body((self.conv(x + self.map) * self.scale).sum(1, True)) + self.shift) * self.factor
            return result

    torch.manual_seed(4)
    model, labels = Scaled(), torch.tensor([0, 1, 2])
    trace = cs.trace(model, images(3), target=labels)
    trace.save(tmp_path / "step.safetensors")
    torch.autograd.backward(F.cross_entropy(model(images(3)), labels))
    for read in (trace, cs.Trace.load(tmp_path / "step.safetensors")):
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            np.testing.assert_array_equal(read[f"{name}.grad"].output, parameter.grad, strict=True)
        assert cs.verify(read).proved
    assert cs.explain(trace, "shift.grad", (2,)).proved
    assert cs.explain(trace, "scale.grad", (1, 0, 0)).proved


def test_a_sum_is_a_gradient_of_its_own_where_a_view_of_the_model_is_differentiated_next() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.rand(3))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.factor.view(3, 1)

    trace = cs.trace(Scaled(), torch.rand(3, 5), target=[0, 2, 4])
    assert [trace[name].output.shape for name in ("view.grad", "factor.grad")] == [(3, 1), (3,)]
    assert cs.verify(trace).proved


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "sgd with momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, dampening=0.2, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, maximize=True),
    "adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1),
    "fused adam": lambda p: torch.optim.Adam(p, 0.01, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01),
    "adadelta": lambda p: torch.optim.Adadelta(p, weight_decay=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01),
    "centred rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, centered=True, momentum=0.9, weight_decay=0.1),
}


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_an_update_is_proved_from_parameter_gradient_and_state(
    make: Callable[[Any], torch.optim.Optimizer], steps: int
) -> None:
    model, x, labels = small(), images(), torch.tensor([0, 1, 2, 3, 0, 1])
    optimizer = make(model.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    trace = cs.trace(model, x, target=labels, optimizer=optimizer)
    report = cs.verify(trace, cells=40)
    updates = [step for step in report.steps if step.name.endswith(".updated")]
    assert len(updates) >= 4
    assert {step.finding for step in updates} == {"proved"}
    optimizer.zero_grad()
    F.cross_entropy(model(x), labels).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    for name, tensor in model.named_parameters():
        np.testing.assert_array_equal(trace[f"{name}.updated"].output, tensor.detach())


def everything_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Any]:
    """All that a recorded step could have changed."""
    held: list[Any] = [torch.get_rng_state().tolist(), [module.training for module in model.modules()]]
    for tensor in [*model.parameters(), *model.buffers()]:
        held.append((id(tensor), tensor._version, tensor.requires_grad, tensor.grad, tensor.detach().tolist()))
        state = optimizer.state.get(tensor, {})
        held.append({k: v.tolist() if isinstance(v, Tensor) else v for k, v in state.items()})
    held.append([{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups])
    return held


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_left_as_found(fails: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 4)
    )
    x, labels = images(), torch.tensor([0, 1, 2, 3, 0, 1])
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    F.cross_entropy(model(x), labels).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    model.eval()
    before = everything_of(model, optimizer)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        if fails:
            raise ValueError("no loss today")
        return F.cross_entropy(output, target)

    if fails:
        with pytest.raises(cs.TraceError, match="no loss today"):
            cs.trace(model, x, target=labels, loss=loss, optimizer=optimizer)
    else:
        trace = cs.trace(model, x, target=labels, loss=loss, optimizer=optimizer)
        assert trace.training_step is not None
        assert trace.training_step.says == "one step of Adam (learning rate 0.01) on loss, in training mode"
        assert not trace.changed()
        assert cs.verify(trace, cells=20).proved
    assert everything_of(model, optimizer) == before


def test_without_an_optimizer_the_model_runs_in_evaluation_mode() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 2))
    x = images(2)
    trace = cs.trace(model, x, target=[0, 1])
    assert "evaluation mode" in str(trace.training_step and trace.training_step.says)
    assert [step.op for step in trace.steps if step.role == "random"] == []
    trained = cs.trace(model, x, target=[0, 1], training=True)
    assert "bernoulli" in [step.op for step in trained.all_steps]


def normed(**options: Any) -> nn.Module:
    """A batch norm that has seen a batch before."""
    torch.manual_seed(9)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, **options), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4))
    model(images() * 2 + 1)
    return model


@pytest.mark.parametrize("momentum", [0.1, 0.99, None])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_the_running_statistics_of_batch_norm_are_updates(momentum: float | None, memory: torch.memory_format) -> None:
    model = normed(momentum=momentum).to(memory_format=memory)  # type: ignore[call-overload]
    x, before = images(), {name: tensor.clone() for name, tensor in model.named_buffers()}
    trace = cs.trace(model, x, target=[0, 1, 2, 3, 0, 1], optimizer="sgd", lr=0.1)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.named_buffers())
    found = {step.name: step.finding for step in cs.verify(trace, cells=20).steps if "running" in step.name}
    assert found == dict.fromkeys(("1.running_mean.updated", "1.running_var.updated"), "proved")
    model.train()(x)
    assert trace.training_step is not None
    assert {*trace.training_step.statistics} == {"1.running_mean", "1.running_var"}
    for name in trace.training_step.statistics:
        np.testing.assert_array_equal(trace[f"{name}.updated"].output, model.get_buffer(name))
        why = cs.explain(trace, f"{name}.updated", (1,))
        assert why.status == "proved"
        assert "(1 − momentum) × before + momentum × batch" in str(why)
        assert f"{name}[1]" in str(why)


class Scaled(nn.Module):
    """A batch norm in a model that multiplies by a number which left PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = nn.BatchNorm2d(1), nn.Linear(36, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.fc(self.norm(x * x.max().item()).flatten(1))
        return result


def test_running_statistics_are_updates_where_a_number_left_pytorch() -> None:
    trace = cs.trace(Scaled(), images(), target=[0, 1, 0, 1, 0, 1], training=True)
    assert trace.training_step is not None
    assert {*trace.training_step.statistics} == {"norm.running_mean", "norm.running_var"}
    assert trace["mul"].broken
    assert not trace["norm.running_mean.updated"].broken


def test_batch_norm_that_runs_twice_updates_its_statistics_twice() -> None:
    norm = nn.BatchNorm2d(1)
    model = nn.Sequential(norm, nn.Conv2d(1, 1, 3, padding=1), norm, nn.Flatten(), nn.Linear(36, 2))
    x = images()
    trace = cs.trace(model, x, target=[0, 1, 0, 1, 0, 1], training=True)
    assert cs.verify(trace, cells=20).mismatches == ()
    model.train()(x)
    np.testing.assert_array_equal(trace["0.running_mean.updated"].output, norm.running_mean)
    assert trace["0.running_mean.updated#2"] is trace["0.running_mean.updated"]
    earlier, last = (trace[f"0.running_mean.updated{number}"].output for number in ("#1", ""))
    assert not np.array_equal(earlier, last)
    assert "0.running_mean.updated" not in [step.name for step in cs.trace(model, x, target=[0, 1, 0, 1, 0, 1])]


class Paths(nn.Module):
    """A module used twice, a residual sum and an operation in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.fc = nn.Linear(36, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = torch.relu_(self.conv(y))
        return self.fc((y + z).flatten(1))  # type: ignore[no-any-return]


def test_sums_at_forks_have_a_step_and_a_term_for_each_use() -> None:
    torch.manual_seed(3)
    model, x = Paths(), images(3)
    trace = cs.trace(model, x, target=[0, 1, 0])
    total = trace["conv.weight.grad#sum"]
    terms = [trace["conv.weight.grad#1"].output, trace["conv.weight.grad#2"].output]
    np.testing.assert_array_equal(total.output, terms[0] + terms[1])
    assert trace["conv.weight.grad"] is total
    y = model.conv(x)
    y.retain_grad()
    twice = model.conv(y)
    twice.retain_grad()
    passed = torch.relu(twice)
    F.cross_entropy(model.fc((y + passed).flatten(1)), torch.tensor([0, 1, 0])).backward()  # type: ignore[no-untyped-call]
    np.testing.assert_array_equal(trace["conv.grad"].output, y.grad)  # two paths meet in it
    np.testing.assert_array_equal(trace["conv#2.grad"].output, twice.grad)  # before the change in place
    assert cs.verify(trace, cells=30).proved


class Wrong(Square):
    """The square, whose backward forgets the factor 2."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grads[0] * x  # type: ignore[no-any-return]


class Squares(nn.Module):
    """A linear layer behind a custom function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.fc1, self.fc2 = nn.Linear(36, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.function.apply(self.fc1(x.flatten(1))))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("function", "status"), [(Square, "proved"), (Wrong, "wrong derivative")])
def test_a_custom_backward_is_proved_only_if_it_is_the_derivative(function: Any, status: str) -> None:
    torch.manual_seed(4)
    trace = cs.trace(Squares(function), images(3), target=[0, 1, 0])
    assert cs.explain(trace, "fc1.grad", (1, 2)).status == status
    text = str(cs.explain(trace, "fc1.grad", (1, 2)))
    assert ("the derivative of the forward step gives " in text) == (function is Wrong)
    report = cs.verify(trace, cells=20)
    assert report.proved == (function is Square)
    assert [step.name for step in report.mismatches] == ([] if function is Square else ["fc1.grad"])
    assert report.wrong == (function is Wrong)


def passing_on(backward: Callable[[Tensor], Tensor]) -> Any:
    """A rounding whose gradient is that of its result, as networks with few bits are trained."""

    class Rounded(torch.autograd.Function):
        @staticmethod
        def forward(_ctx: Any, x: Tensor) -> Tensor:
            return x.round(decimals=1)

        @staticmethod
        def backward(_ctx: Any, *grads: Tensor) -> Tensor:
            return backward(grads[0])

    return Rounded


@pytest.mark.parametrize("backward", [torch.clone, Tensor.detach, lambda grad: grad.view(len(grad), -1)])
def test_what_a_custom_function_only_passes_on_stays_the_gradient_that_it_received(backward: Any) -> None:
    trace = cs.trace(Squares(passing_on(backward)), images(3), target=[0, 1, 0])
    report = cs.verify(trace, cells=30)
    findings = {step.name: step.finding for step in report.steps}
    assert [findings[name] for name in ("round.grad", "fc1.grad")] == ["proved", "wrong derivative"]
    assert not report.proved


def test_a_tensor_that_is_two_gradients_is_wrong_as_one_of_them() -> None:
    trace = cs.trace(Squares(passing_on(lambda grad: grad)), images(3), target=[0, 1, 0])
    assert trace["fc1.grad"] is trace["round.grad"]
    assert [step.name for step in cs.verify(trace, cells=30).mismatches] == ["round.grad"]


class Withheld(Wrong):
    """The square, whose backward gives no gradient at all."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> None:  # type: ignore[override]
        """None means zero."""


class Unmoved(Withheld):
    """Integers, whose derivative is zero: None is right."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return x.round()


@pytest.mark.parametrize(("function", "right"), [(Withheld, False), (Unmoved, True)])
def test_a_custom_backward_gives_no_gradient_only_where_the_derivative_is_zero(function: Any, right: bool) -> None:
    torch.manual_seed(4)
    report = cs.verify(cs.trace(Squares(function), images(3), target=[0, 1, 0]), cells=20)
    assert (report.proved, report.wrong) == (right, not right)
    assert ("gives no gradient of fc1, though its result depends on it" in "\n".join(report.lines)) != right


def test_an_optimizer_reads_gradients_in_the_layout_of_their_parameters() -> None:
    """A fused optimizer takes for granted that parameter, gradient and state lie alike in memory."""
    model = small().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), 0.01, fused=True)
    x, labels = images(), torch.tensor([0, 1, 2, 3, 0, 1])
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    trace = cs.trace(model, x, target=labels, optimizer=optimizer)
    assert cs.verify(trace, cells=20).proved
    optimizer.zero_grad()
    F.cross_entropy(model(x), labels).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    for name, tensor in model.named_parameters():
        np.testing.assert_array_equal(trace[f"{name}.updated"].output, tensor.detach())


def test_a_scheduler_sets_the_rate_of_the_step_that_is_recorded() -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    F.cross_entropy(model(images()), torch.tensor([0, 1, 2, 3, 0, 1])).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    scheduler.step()
    trace = cs.trace(model, images(), target=[0, 1, 2, 3, 0, 1], optimizer=optimizer)
    assert trace.training_step is not None
    assert trace.training_step.optimizer == "SGD (learning rate 0.05)"
    assert cs.verify(trace, cells=20).proved


class Detached(nn.Module):
    """Writes into its images; one path has no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(36, 2), nn.Linear(36, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(x).flatten(1)
        with torch.no_grad():
            fixed = self.fc2(x)
        return self.fc1(x) * fixed.detach() + self.fc1(x)  # type: ignore[no-any-return]


def test_paths_without_gradients_and_images_that_are_written_into() -> None:
    torch.manual_seed(8)
    model, x = Detached(), images(3)
    before = x.clone()
    trace = cs.trace(model, x, target=[0, 1, 0])
    assert torch.equal(x, before)
    names = [name for step in trace.all_steps for name in (step.name, *step.aliases)]
    assert "fc1.weight.grad" in names
    assert "fc2.weight.grad" not in names
    assert "input.grad" not in names
    assert cs.verify(trace, cells=20).proved


def test_a_frozen_layer_has_no_gradient() -> None:
    model = small()
    next(model.children()).requires_grad_(False)
    trace = cs.trace(model, images(2), target=[0, 1], optimizer="sgd", lr=0.1)
    with pytest.raises(UsageError, match=r"no step is called '0\.weight\.grad'"):
        trace["0.weight.grad"]
    assert "0.grad" in [step.name for step in trace.all_steps]
    assert cs.verify(trace, cells=20).proved


@pytest.mark.parametrize("name", ["adadelta", "adam", "adamw", "rmsprop", "sgd"])
def test_the_update_of_an_optimizer_that_is_named_is_proved(name: str) -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 2), nn.Flatten(), nn.Linear(9, 2))
    step = cs.trace(net, torch.rand(2, 1, 4, 4), target=[0, 1], optimizer=name, lr=0.1)
    assert cs.verify(step).proved
