"""Every function that takes a model takes a module, a run, the path of a run and a built-in network's name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import convscope as cs

CALLS: dict[str, Callable[[Any, cs.Dataset, Path], object]] = {
    "trace": lambda model, _, __: cs.trace(model, "shapes:test/3"),
    "summary": lambda model, _, __: cs.summary(model),
    "predict": lambda model, _, __: cs.predict(model, "shapes:test/3"),
    "workbook": lambda model, _, folder: cs.workbook(
        model, "shapes:test/3", at=("conv1", (2, 10, 8)), out=folder / "net.xlsx"
    ),
    "report": lambda model, _, folder: cs.report(model, "shapes:test/3", out=folder / "net.html"),
    "attribution": lambda model, _, __: cs.probe.attribution(model, "shapes:test/3", methods=["saliency"]),
    "compare": lambda model, data, _: cs.probe.compare([model, model], data),
    "dead": lambda model, data, _: cs.probe.dead(model, data),
    "gradients": lambda model, data, _: cs.probe.gradients(model, data),
    "patches": lambda model, data, _: cs.probe.patches(model, data, "conv1"),
    "shift": lambda model, data, _: cs.probe.shift(model, data, reach=1),
    "shift of several": lambda model, data, _: cs.probe.shift({"one": model, "two": model}, data, reach=1),
    "kernels": lambda model, _, __: cs.plot.kernels(model),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> cs.Run:
    return cs.train("shapes", epochs=1, out=tmp_path_factory.mktemp("runs") / "run", watch=lambda _event: None)


@pytest.mark.parametrize("name", CALLS)
def test_models_are_taken_in_every_form(name: str, run: cs.Run, tmp_path: Path) -> None:
    data = cs.load_dataset("shapes", split="test")
    forms: tuple[nn.Module | cs.Run | str | Path, ...] = (run, run.model, run.path, str(run.path), "shapes-cnn")
    for number, form in enumerate(forms):
        (tmp_path / str(number)).mkdir()
        assert CALLS[name](form, data, tmp_path / str(number)) is not None


def test_predictions_are_shown_as_text(run: cs.Run) -> None:
    (prediction,) = cs.predict(run, "shapes:test/3")
    assert repr(prediction) == f"<Prediction {str(prediction).splitlines()[0]}>"
    assert prediction._repr_mimebundle_() == {"text/plain": str(prediction)}
