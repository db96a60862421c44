"""Wrong objects in Python: one sentence that says what was wanted, what was given, what to do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import convscope as cs
from convscope.errors import ModelError, UsageError

LAYER = nn.Conv2d(1, 1, 3)


@pytest.fixture(scope="module")
def things() -> dict[str, Any]:
    data = cs.load_dataset("shapes", size=20)
    trace = cs.trace(cs.load_model("shapes-cnn"), data.image(0))
    return {"data": data, "model": cs.load_model("shapes-cnn"), "trace": trace, "image": data.image(0)}


api: Any = cs  # which mypy lets be called wrongly


def _drawn(name: str) -> Callable[[Any], Any]:
    return lambda t: getattr(api.plot, name)(t["trace"])


WRONG: dict[str, Callable[[Any], Any]] = {
    "verify(model)": lambda t: api.verify(t["model"]),
    "verify(model, image)": lambda t: api.verify(t["model"], t["image"]),
    "verify(class)": lambda _t: api.verify(nn.Conv2d),
    "verify(None)": lambda _t: api.verify(None),
    "explain(model, step, cell)": lambda t: api.explain(t["model"], "conv1", (0, 0, 0)),
    "explain(trace, cell, step)": lambda t: api.explain(t["trace"], (0, 0, 0), "conv1"),
    "explain(trace, step, cell as text)": lambda t: api.explain(t["trace"], "conv1", "0,0,0"),
    "difference(model, model)": lambda t: api.difference(t["model"], t["model"]),
    "trace(image, model)": lambda t: api.trace(t["image"], t["model"]),
    "trace(class)": lambda t: api.trace(nn.Conv2d, t["image"]),
    "trace(trace)": lambda t: api.trace(t["trace"], t["image"]),
    "evaluate(model)": lambda t: api.evaluate(t["model"]),
    "predict(trace)": lambda t: api.predict(t["trace"]),
    "predict(image, model)": lambda t: api.predict(t["image"], t["model"]),
    "dead(data, model)": lambda t: api.probe.dead(t["data"], t["model"]),
    "dead(model, array)": lambda t: api.probe.dead(t["model"], t["data"].images),
    "shift(data, models)": lambda t: api.probe.shift(t["data"], [t["model"]]),
    "compare(data, models)": lambda t: api.probe.compare(t["data"], [t["model"]]),
    "compare(model, data)": lambda t: api.probe.compare(t["model"], t["data"]),
    "patches(data, model)": lambda t: api.probe.patches(t["data"], t["model"]),
    "patches(trace, data)": lambda t: api.probe.patches(t["trace"], t["data"]),
    "attribution(image, model)": lambda t: api.probe.attribution(t["image"], t["model"]),
    "shortcut(model)": lambda t: api.probe.shortcut(t["model"]),
    "receptive_field(model)": lambda t: api.probe.receptive_field(t["model"], "conv1"),
    "receptive_field(trace, step)": lambda t: api.probe.receptive_field(t["trace"], t["trace"]["conv1"]),
    "receptive_fields(model)": lambda t: api.probe.receptive_fields(t["model"]),
    "plot.maps(model)": lambda t: api.plot.maps(t["model"]),
    "plot.maps_by_class(trace, data)": lambda t: api.plot.maps_by_class(t["trace"], t["data"], "conv1", [0]),
    "plot.network(model)": lambda t: api.plot.network(t["model"]),
    "plot.samples(model)": lambda t: api.plot.samples(t["model"]),
    "plot.explanation(trace)": lambda t: api.plot.explanation(t["trace"]),
    "plot.contributions(why)": lambda t: api.plot.contributions(api.explain(t["trace"], "conv1", (0, 0, 0))),
    "plot.receptive_field(trace)": lambda t: api.plot.receptive_field(t["trace"]),
    **{f"plot.{name}(trace)": _drawn(name) for name in (
        "attribution", "compare", "dead", "lint", "patches", "shift", "shortcut",
    )},
}  # fmt: skip


PLAIN: dict[str, Callable[[Any], Any]] = {
    "explain(ops=None)": lambda t: api.explain(t["trace"], "conv1", (0, 0, 0), ops=None),
    "explain(ops={name: 3})": lambda t: api.explain(t["trace"], "conv1", (0, 0, 0), ops={"mylib::swirl": 3}),
    "explain(references=text)": lambda t: api.explain(t["trace"], "conv1", (0, 0, 0), references="abc"),
    "explain(output=text)": lambda t: api.explain(t["trace"], "conv1", (0, 0, 0), output="a"),
    "verify(ops={name: 3})": lambda t: api.verify(t["trace"], ops={"mylib::swirl": 3}),
    "report(3)": lambda _t: api.report(3),
    "report(trace)": lambda t: api.report(t["trace"]),
    "widget(3)": lambda _t: api.widget(3),
    "verify(cells=text)": lambda t: api.verify(t["trace"], cells="many"),
    "verify(cells=20.0)": lambda t: api.verify(t["trace"], cells=20.0),
    "verify(seed=text)": lambda t: api.verify(t["trace"], seed="first"),
    "verify(progress=3)": lambda t: api.verify(t["trace"], progress=3),
    "trace(training=text)": lambda t: api.trace(t["model"], t["image"], training="yes"),
    "trace(batched=text)": lambda t: api.trace(t["model"], t["image"], batched="no"),
    "trace(overrides=3)": lambda t: api.trace(t["model"], t["image"], overrides=3),
    "trace(overrides={3: array})": lambda t: api.trace(t["model"], t["image"], overrides={3: t["image"]}),
    "trace(overrides={name: text})": lambda t: api.trace(t["model"], t["image"], overrides={"fc.bias": "a"}),
    "trace(lr=text)": lambda t: api.trace(t["model"], t["image"], target=[0], optimizer="sgd", lr="fast"),
    "train(3)": lambda _t: api.train(3),
    "train(model=3)": lambda t: api.train(t["data"], 3),
    "train(lr=text)": lambda t: api.train(t["data"], lr="fast"),
    "load_dataset(3)": lambda _t: api.load_dataset(3),
    "load_dataset(split=3)": lambda _t: api.load_dataset("shapes", split=3),
    "load_model(3)": lambda _t: api.load_model(3),
    "open(port=text)": lambda t: api.open(t["model"], t["image"], port="http", browser=False),
    "Trace.load(3)": lambda _t: api.Trace.load(3),
    "Trace.save(3)": lambda t: t["trace"].save(3),
    "to_paths(3)": lambda t: api.explain(t["trace"], "conv1", (0, 0, 0)).to_paths(3),
    "to_text(depth=text)": lambda t: api.explain(t["trace"], "conv1", (0, 0, 0)).to_text(depth="deep"),
    "Dataset.image(3.5)": lambda t: t["data"].image(3.5),
}
WRONG |= PLAIN


@pytest.mark.parametrize("call", WRONG)
def test_a_wrong_object_is_refused_in_one_sentence(call: str, things: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as refused:
        WRONG[call](things)
    said = str(refused.value)
    assert said.endswith(".")
    assert "\n" not in said
    assert len(said) < 250


def test_exchanged_arguments_are_said_to_be_so(things: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"exchanged: dead\(model, data\)"):
        cs.probe.dead(things["data"], things["model"])
    with pytest.raises(UsageError, match=r"^verify takes a Trace as its trace, not a Conv2d; cs.trace\(model, image\)"):
        api.verify(LAYER)


def test_what_python_would_convert_is_let_through(things: dict[str, Any]) -> None:
    report = api.verify(things["trace"], cells=np.int64(20), seed=np.uint8(3))
    assert report.proved
    assert api.trace(things["model"], things["image"], training=np.bool_(False), batched=False).steps
    with pytest.raises(TypeError, match="unexpected keyword argument"):  # Python's own sentence names it
        api.verify(things["trace"], cell=3)


def test_indexes_of_numpy_are_indexes(things: dict[str, Any]) -> None:
    why = api.explain(things["trace"], np.int64(0), np.array([0, 1, 1]))
    assert why.cell == (0, 0, 1, 1)
    assert api.explain(things["trace"], "fc", np.int64(1)).proved


def test_a_module_that_never_became_one_is_refused() -> None:
    class Forgot(nn.Module):
        def __init__(self) -> None:
            self.k: Any = 3

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = x * self.k
            return made

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.__dict__["_modules"]["inner"] = Forgot()

    for model in (Forgot(), Outer()):
        with pytest.raises(ModelError, match=r"Forgot.__init__ does not call super\(\).__init__\(\)"):
            cs.trace(model, torch.ones(1, 2, 2))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_pooling_window_that_reads_padding_alone_is_unsupported_not_a_crash(dims: int) -> None:
    kind = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[dims - 1]
    pool = kind(3, stride=6, padding=1, dilation=2, ceil_mode=True)
    trace = cs.trace(nn.Sequential(pool, nn.Identity()), torch.randn(1, 1, *[1] * (dims - 1), 24 if dims > 1 else 1))
    step = next(step for step in trace.all_steps if "max_pool" in step.op)
    cell = (0,) * len(step.shape)
    for output in range(len(step.results)):
        why = cs.explain(trace, step, cell, output=output)
        assert not why.proved
        assert np.isfinite(why.recorded) or "a window" in why.to_text()
    if not np.isfinite(step.output[cell]):
        with pytest.raises(UsageError, match="padding alone"):
            cs.explain(trace, step, cell).to_input()
    assert not cs.verify(trace).mismatches


def test_names_are_loaded_as_the_commands_load_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = cs.train("shapes", "shapes-cnn-1", epochs=1, batch_size=500, out="run")
    image = cs.load_image("shapes:test/3", like=run.model)
    named = cs.trace("run", "shapes:test/3")
    assert np.array_equal(named.output, cs.trace(run.model, image).output)
    assert cs.trace(Path("run"), "shapes:train/0-4").output.shape == (5, 2)
    step = cs.trace("run", "shapes:train/0-1", target=[0, 1])
    assert step.training_step is not None
    assert step.training_step.updated  # the run brings its optimizer
    with pytest.raises(UsageError, match="no model is called 'rum'"):
        cs.trace("rum", "shapes:test/3")
    with pytest.raises(UsageError, match="has images 0 to 199"):
        cs.trace("run", "shapes:test/190-200")
