"""Capture leaves the model as it found it, also when the model raises, and sees all that it does."""

import copy
import pickle
import random
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convscope as cs
from convscope.errors import TraceError
from replay import same


class Busy(nn.Module):
    """Does to itself, in `forward`, all that a model might."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.bn = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.count: Tensor
        self.register_buffer("count", torch.zeros(2))
        self.cache: dict[str, Tensor] = {}
        self.seen: list[int] = []
        self.calls = 0
        self.raises = False

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.cache["last"] = x
        self.seen.append(len(self.seen))
        self.extra = x
        self.count += 1
        self.count = self.count * 2
        self.register_buffer("late", torch.zeros(1))
        self.conv.weight.data[0, 0, 0, 0] = 5
        self.conv.register_forward_hook(lambda *_: None)
        self.bn.momentum = 0.9
        self.drop.train(not self.drop.training)
        x.mul_(random.random() + np.random.random() + torch.rand(()).item())  # noqa: NPY002
        with torch.enable_grad():
            self.conv(x.clone().detach()).sum().backward()
        y: Tensor = self.drop(self.bn(self.conv(x)))
        if self.raises:
            raise RuntimeError("on purpose")
        return y


def everything(model: nn.Module) -> dict[str, Any]:
    """All that a model is: attributes, registries, numbers, versions, gradients."""
    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            kept = copy.copy(value) if isinstance(value, dict | OrderedDict | list | set) else value
            found[f"{path}:{name}"] = (id(value), kept)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found[f"{name} itself"] = (id(tensor), tensor.data_ptr(), tensor._version, tensor.detach().tolist())
        found[f"{name} grad"] = (id(tensor.grad), None if tensor.grad is None else tensor.grad.tolist())
    return found


def states() -> tuple[Any, ...]:
    numpy_state: Any = np.random.get_state()  # noqa: NPY002
    return (torch.get_rng_state().tolist(), random.getstate(), numpy_state[1].tolist(), numpy_state[2:])


@pytest.fixture(params=[False, True], ids=["evaluation", "training"])
def training(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("raises", [False, True], ids=["success", "failure"])
@pytest.mark.parametrize("keep", [None, 0, "conv"])
def test_the_model_is_left_exactly_as_found(training: bool, raises: bool, keep: Any) -> None:
    model = Busy()
    model.bn.eval()
    model.conv.weight.grad = torch.ones_like(model.conv.weight)
    model.conv.register_forward_pre_hook(lambda *_: None)
    model.raises = raises
    before, drawn = everything(model), states()
    if raises:
        with pytest.raises(TraceError, match="on purpose"):
            cs.trace(model, torch.ones(1, 5, 5), training=training, keep=keep)
    else:
        trace = cs.trace(model, torch.ones(1, 5, 5), training=training, keep=keep)
        assert trace["bn"].output.any()
    after = everything(model)
    assert after.keys() == before.keys()
    assert [name for name in before if before[name] != after[name]] == []
    assert states() == drawn


def test_a_pass_can_be_ended_where_a_module_begins_and_the_model_is_left_as_found(training: bool) -> None:
    model = Busy()
    before, drawn, told = everything(model), states(), []

    def stop(what: str, done: int, total: int) -> None:
        told.append((what, done, total))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cs.trace(model, torch.ones(1, 5, 5), training=training, progress=stop)
    assert told == [("tracing", 1, 0), ("tracing", 2, 0)]
    after = everything(model)
    assert [name for name in before if before[name] != after[name]] == []
    assert states() == drawn
    whole = cs.trace(model, torch.ones(1, 5, 5), training=training, keep=0, progress=lambda *event: told.append(event))
    count = len(told)
    assert whole["bn"].output.any()
    assert len(told) == count, "recomputation reports no progress"


def test_the_numbers_of_a_busy_model_are_those_of_an_untraced_run(training: bool) -> None:
    model = Busy().train(training)
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    trace = cs.trace(model, torch.ones(1, 5, 5), training=True)
    with torch.no_grad():
        expected = model(torch.ones(1, 1, 5, 5))
    assert same(trace.output, expected.numpy())


@pytest.fixture
def compiler() -> Iterator[Any]:
    yield torch.compile
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_is_traced_as_the_model_inside(compiler: Any) -> None:
    inside = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    names = [step.name for step in cs.trace(inside, torch.ones(1, 5, 5)).steps]
    whole = compiler(inside, backend="eager")
    part = nn.Sequential(compiler(nn.Conv2d(1, 2, 3), backend="eager"), nn.ReLU())
    by_method = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    by_method[0].compile(backend="eager")
    for model in (whole, part, by_method):
        model(torch.ones(1, 1, 5, 5))
        before = everything(model)
        trace = cs.trace(model, torch.ones(1, 5, 5))
        assert [step.name for step in trace.steps] == names
        assert "0.weight" in trace.parameters
        assert {k: v for k, v in everything(model).items() if v != before.get(k)} == {}


def test_the_image_is_brought_to_the_models_type() -> None:
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        trace = cs.trace(nn.Conv2d(1, 1, 3).to(dtype), np.ones((1, 5, 5), np.float32))
        assert trace["conv2d"].arguments["input"].dtype == str(dtype).removeprefix("torch.")
    wide = cs.trace(nn.Conv2d(1, 1, 3), np.ones((1, 5, 5)))
    assert wide.input.dtype == np.float32
    indices = cs.trace(nn.Embedding(5, 2), np.array([1, 2]))
    assert indices.output.shape == (2, 2)


def test_inside_inference_mode_and_autocast() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True))
    expected = cs.trace(model, torch.ones(1, 5, 5)).output
    with torch.inference_mode():
        trace = cs.trace(model, torch.ones(1, 5, 5))
        assert same(trace.output, expected)
        assert trace.changed() == ()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trace = cs.trace(model, torch.ones(1, 5, 5))
        with torch.no_grad():
            cast = model(torch.ones(1, 1, 5, 5))
    assert trace["0.conv2d"].dtype == "bfloat16"
    assert same(trace.output, cast.float().numpy())


def test_nan_and_infinity_are_numbers_like_others() -> None:
    given = np.array([[[np.nan, np.inf], [-np.inf, 1]]], np.float32)
    trace = cs.trace(nn.Sequential(nn.ReLU(), nn.Flatten()), given)
    assert same(trace.input, given[None])
    assert np.array_equal(trace.output, [[np.nan, np.inf, 0, 1]], equal_nan=True)


def test_hooks_of_the_user_run_and_are_seen() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())
    ran: list[str] = []

    def doubled(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        ran.append(type(module).__name__)
        return output * 2

    model[0].register_forward_hook(doubled)
    trace = cs.trace(model, torch.ones(1, 2, 2))
    assert ran == ["Conv2d"]
    assert [step.name for step in trace.steps] == ["0", "mul", "1"]
    assert same(trace["mul"].output, trace["0"].output * 2)


def test_a_forward_of_ones_own_on_one_instance_is_kept() -> None:
    model = nn.Sequential(nn.ReLU(), nn.ReLU())
    own = model[0].forward = lambda x: x + 1
    trace = cs.trace(model, torch.ones(1, 2, 2))
    assert [step.name for step in trace.steps] == ["0", "1"]
    assert [step.op for step in trace.steps] == ["add", "relu"]
    assert model[0].forward is own


def test_a_model_can_look_at_its_own_signature_and_be_copied_while_it_runs() -> None:
    import inspect

    class Adds(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Adds()

        def forward(self, x: Tensor) -> Tensor:
            assert list(inspect.signature(self.inner.forward).parameters) == ["x", "y"]
            y: Tensor = copy.deepcopy(self.inner)(x, x)
            return y

    assert cs.trace(Looks(), torch.ones(1, 2, 2)).output.sum() == 8


def test_shared_weights_and_modules_have_one_name() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    other = nn.Linear(4, 4)
    other.weight = shared.weight
    model.append(other)
    trace = cs.trace(model, torch.ones(2, 4))
    assert [step.name for step in trace.steps] == ["0", "1", "0#2", "3"]
    assert trace["3"].parameters["mat2"] == "0.weight"
    zeroed = cs.trace(model, torch.ones(2, 4), overrides={"0.weight": np.zeros((4, 4))})
    assert not zeroed.operand("3", "mat2").any()


def test_traces_in_several_threads_do_not_mix() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Dropout(), nn.ReLU())
    found: list[list[str]] = []

    def work() -> None:
        found.extend([step.name for step in cs.trace(model, torch.ones(1, 5, 5)).steps] for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    assert all(names == ["0", "1", "2"] for names in found)
    assert model.training


class Waiting(nn.Module):
    """Draws a number, waits, and draws another."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go = threading.Event(), threading.Event()

    def forward(self, x: Tensor) -> Tensor:
        first = torch.rand(1)
        self.reached.set()
        assert self.go.wait(60)
        return x + first + torch.rand(1)


def test_a_slow_model_holds_up_no_other_and_random_states_stay() -> None:
    slow, quick = Waiting(), nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    slow.go.set()
    before = torch.get_rng_state()
    alone = cs.trace(slow, torch.zeros(1, 5, 5)).output
    slow.reached.clear()
    slow.go.clear()
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(cs.trace(slow, torch.zeros(1, 5, 5)).output))
    thread.start()
    assert slow.reached.wait(60)
    for _ in range(3):
        assert len(cs.trace(quick, torch.ones(1, 5, 5)).steps) == 2  # while the other waits
    slow.go.set()
    thread.join()
    assert np.array_equal(found[0], alone)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_traced_model_still_pickles_and_trains() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    cs.trace(model, torch.ones(1, 5, 5))
    pickle.dumps(model)
    model(torch.ones(1, 1, 5, 5)).sum().backward()
    assert model[0].weight.grad is not None


def test_tracing_does_not_import_the_compiler() -> None:
    import subprocess

    code = (
        "import sys, torch, convscope as cs; cs.trace(torch.nn.ReLU(), torch.ones(1, 2, 2)).steps; "
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


class Sparse(nn.Module):
    """Goes through a sparse matrix, whose memory is none of its own."""

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = torch.sparse.mm(x[0, 0].to_sparse(), x[0, 0])
        return made[None]


@pytest.mark.parametrize("keep", [0, 0.0001, 800])
def test_sparse_tensors_are_kept_or_made_again_like_others(keep: float) -> None:
    whole = cs.trace(Sparse(), torch.eye(5)[None])
    some = cs.trace(Sparse(), torch.eye(5)[None], keep=keep)
    assert [step.name for step in some.steps] == [step.name for step in whole.steps]
    for mine, other in zip(some.steps, whole.steps, strict=True):
        np.testing.assert_array_equal(mine.output, other.output)
