"""What a model swaps or caches in `forward`: recorded as it happened, and put back."""

from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import convscope as cs
from convscope.capture import recompute as memory_budget
from replay import same


class Binary(nn.Module):
    """Weights are replaced by their signs through `.data`, as code for binary networks does."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(3, 4, 3)
        self.real: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.real is None:
            self.real = self.c.weight.data.clone()
        self.c.weight.data = self.real.sign()
        made: Tensor = torch.tanh(self.c(x))
        return made


class Twice(nn.Module):
    """Swaps a weight, runs, swaps it back to its real numbers, runs again."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        real = self.c.weight.data
        self.c.weight.data = real.sign()
        y = self.c(x)
        self.c.weight.data = real
        made: Tensor = self.c(F.relu(y))
        return made


class Assigned(nn.Module):
    """A result gets other numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.c(x)
        y.data = y.data + 1
        return torch.relu(y)


class Bigger(nn.Module):
    """A buffer gets another shape and type, an input other numbers, both in `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor([2.0]))
        self.scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.scale.data = torch.full((1, 3, 1, 1), 0.5)
        x.data = x * 3
        return x * self.scale


class SetIn(nn.Module):
    """The same through `set_`, which torch dispatches."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.c(x)
        self.c.weight.set_(torch.zeros(1))  # type: ignore[call-overload]  # missing in torch's stubs
        return y.relu()


class Turned(nn.Module):
    """A plain tensor that the model holds is turned in place."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.arange(6.0).reshape(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.table.t_()
        return x * self.table.sum(1)[:, None, None]


SWAPS = (Binary, Twice, Assigned, Bigger, SetIn, Turned)


@pytest.fixture(params=[None, "all", 0, "budget"], ids=["whole", "all", "nothing", "beyond the budget"])
def keep(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param != "budget":
        return request.param
    monkeypatch.setattr(memory_budget, "UNCOUNTED", 0)
    monkeypatch.setattr(memory_budget, "LARGE", 0)
    monkeypatch.setattr(memory_budget, "UNASKED", 0)
    monkeypatch.setattr(memory_budget, "free_memory", lambda _device: 2_000)
    return None


def held(model: nn.Module) -> dict[str, Any]:
    """Every tensor of a model: which it is, where it lies, how, and what it holds."""
    own = {f"own {name}": v for name, v in vars(model).items() if isinstance(v, Tensor)}
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers()), **own}
    return {
        name: (id(t), t.data_ptr(), t._version if "own" not in name else 0, t.shape, t.stride(), t.dtype, t.tolist())
        for name, t in tensors.items()
    }


@pytest.mark.parametrize("kind", SWAPS)
def test_swapped_memory_is_recorded_as_it_was_and_put_back(kind: type[nn.Module], keep: Any) -> None:
    torch.manual_seed(0)
    model, image = kind(), torch.randn(1, 3, 8, 8)
    before, kept = held(model), image.clone()
    trace = cs.trace(model, image, keep=keep)
    assert held(model) == before
    assert torch.equal(image, kept)
    assert trace.changed() == ()
    report = cs.verify(trace)
    assert [(step.name, step.op, str(step.mismatch)) for step in report.mismatches] == []
    if kind is not SetIn:
        assert report.proved
    assert held(model) == before
    expected = kind()
    expected.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert same(trace.output, expected(image.clone()).numpy())
    assert same(cs.trace(model, image).output, trace.output), "the second trace is as the first"


def test_the_step_before_an_assignment_keeps_what_it_returned() -> None:
    model = Assigned()
    trace = cs.trace(model, torch.randn(1, 3, 8, 8))
    with torch.no_grad():
        assert same(trace["c"].output, model.c(torch.from_numpy(trace.input.copy())).numpy())
    assert same(trace.operand("relu", "self"), trace["c"].output + 1)


def test_swapped_weights_are_steps_not_the_parameter() -> None:
    trace = cs.trace(Binary(), torch.randn(1, 3, 8, 8))
    conv = trace["c"]
    assert "weight" not in conv.parameters
    assert set(np.unique(trace.operand("c", "weight"))) <= {-1.0, 0.0, 1.0}
    assert cs.explain(trace, "c", (0, 0, 0)).proved
    assert not np.isin(trace.parameters["c.weight"], [-1, 0, 1]).any()


def test_a_watched_pass_counts_as_the_sketch_did() -> None:
    from convscope.capture.activations import ActivationWatch

    model = nn.Sequential(Assigned(), nn.MaxPool2d(2))
    watch = ActivationWatch(model, ["1"])
    with torch.no_grad():
        found = watch(torch.randn(5, 3, 8, 8), lambda _step, result: tuple(result.shape))
    assert found == {"1": (5, 4, 3, 3)}


class Cache:
    """A model's own object."""

    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.count = 0

    def update(self, x: Tensor) -> None:
        self.keys.append(x)
        self.count += 1
        self.late = x


class Slots:
    __slots__ = ("kept", "other")

    def __init__(self) -> None:
        self.kept = 1


@dataclass(frozen=True)
class Frozen:
    found: dict[str, Any] = field(default_factory=dict)


class Caches(nn.Module):
    """Keeps what it sees, in every kind of place."""

    def __init__(self) -> None:
        super().__init__()
        self.cache, self.slots, self.frozen = Cache(), Slots(), Frozen()
        self.nested: dict[str, Any] = {"a": [1, {"b": {2}}], "c": deque([1, 2], maxlen=2)}
        self.ordered = OrderedDict(a=1, b=2)
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.seen = {1, 2}
        self.pair = ([0], {"k": 0})
        self.space = SimpleNamespace(x=1)
        self.array = np.zeros(3)
        self.real: Tensor | None = None
        self.list_of = [Cache(), Cache()]

    def forward(self, x: Tensor) -> Tensor:
        self.cache.update(x)
        self.slots.kept, self.slots.other = 5, x  # type: ignore[attr-defined]
        self.frozen.found["x"] = x
        self.nested["a"][1]["b"].add(3)
        self.nested["a"].append(4)
        self.nested["c"].append(3)
        self.ordered.move_to_end("a")
        self.counts["calls"] += 1
        self.seen.discard(1)
        self.pair[0].append(1)
        self.pair[1]["k"] = 1
        self.array += 1
        self.real = x
        self.list_of[1].update(x)
        return x * 2


def state(value: Any) -> Any:
    """A value with all that is in it, comparable."""
    if isinstance(value, Cache | Frozen):
        return type(value).__name__, id(value), {name: state(v) for name, v in vars(value).items()}
    if isinstance(value, Slots):
        return id(value), {name: state(getattr(value, name)) for name in value.__slots__ if hasattr(value, name)}
    if isinstance(value, dict):
        return id(value), [(name, state(v)) for name, v in value.items()]
    if isinstance(value, list | tuple | deque):
        return id(value), [state(v) for v in value]
    return id(value) if isinstance(value, Tensor) else (value.tolist() if isinstance(value, np.ndarray) else value)


@pytest.mark.parametrize("raises", [False, True], ids=["success", "failure"])
def test_what_a_model_keeps_in_its_own_objects_is_put_back(keep: Any, raises: bool) -> None:
    model = Caches()
    names = [name for name in vars(model) if not name.startswith("_")]
    before = {name: state(vars(model)[name]) for name in names}
    net: nn.Module = nn.Sequential(model, nn.Conv2d(7, 1, 1)) if raises else model
    if raises:
        with pytest.raises(cs.TraceError):
            cs.trace(net, torch.ones(1, 1, 2, 2), keep=keep)
    else:
        trace = cs.trace(net, torch.ones(1, 1, 2, 2), keep=keep)
        assert trace.output.sum() == 8
    after = {name: state(vars(model)[name]) for name in names}
    assert [name for name in names if after[name] != before[name]] == []
    assert model.space.x == 1


def test_a_model_with_endless_objects_is_traced_all_the_same() -> None:
    model = Caches()
    model.nested["loop"] = model.nested
    model.list_of = [Cache() for _ in range(30_000)]
    assert cs.trace(model, torch.ones(1, 1, 2, 2)).output.sum() == 8
