"""What a model's output means: one rule for all that ask for classes, whatever a model answers with."""

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import convscope as cs
from convscope.errors import ConvscopeError, ShapeError
from convscope.training.outputs import scores_of


class Named(NamedTuple):
    """An answer with a name."""

    logits: Tensor
    features: Tensor


class Odd(nn.Module):
    """A linear classifier of 8x8 images whose scores (N, 2) are handed on in an odd form."""

    def __init__(self, form: Callable[[Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(64, 2)
        self.form = form

    def forward(self, images: Tensor) -> Any:
        return self.form(self.linear(images.flatten(1)))


def data() -> cs.Dataset:
    images = np.random.default_rng(0).integers(0, 256, (12, 1, 8, 8), np.uint8)
    return cs.Dataset("odd", images, np.arange(12) % 2, ("a", "b"))


SAME: Mapping[str, Callable[[Tensor], Any]] = {
    "as it should be": lambda scores: scores,
    "a dict": lambda scores: {"logits": scores, "features": scores.repeat(1, 4)},
    "an ordered dict of one": lambda scores: OrderedDict(out=scores),
    "a named tuple": lambda scores: Named(scores, scores[:, :1]),
    "a tuple of one": lambda scores: (scores,),
    "a tensor and a number": lambda scores: (scores, 0.5),
    "an object of transformers": lambda scores: OrderedDict(logits=scores, hidden_states=None),
    "left by global pooling": lambda scores: scores[:, :, None, None],
    "a sequence of one": lambda scores: scores[:, None],
    "in double precision": lambda scores: scores.double(),
    "in half precision": lambda scores: scores.bfloat16().float(),
}


@pytest.mark.parametrize("form", SAME.values(), ids=SAME)
def test_scores_in_another_form_mean_the_same(form: Callable[[Tensor], Any]) -> None:
    plain, odd, images = Odd(lambda scores: scores), Odd(form), data()
    for image in images.images[:3] / np.float32(255):
        one, two = cs.predict(plain, image)[0], cs.predict(odd, image)[0]
        assert (one.best, one.output.shape) == (two.best, two.output.shape)
        assert one.probabilities is not None
        assert two.probabilities is not None
        np.testing.assert_allclose(one.probabilities, two.probabilities, atol=0.01)
    compared = cs.probe.compare([plain, odd], images)
    assert compared.models[0].accuracy == compared.models[1].accuracy
    steady = cs.probe.shift([plain, odd], images, kind="noise", levels=[(0.0,)])
    assert (steady.models[0].right == steady.models[1].right).all()
    linted = cs.probe.lint(odd, images)
    assert len(linted.looked_for) > 5
    assert [f.check for f in linted.findings] == [f.check for f in cs.probe.lint(plain, images).findings]


@pytest.mark.parametrize("name", ["a dict", "a named tuple", "left by global pooling"])
def test_a_network_that_answers_so_is_trained_and_evaluated_like_any(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [
        cs.train(data(), Odd(form), epochs=2, out=str(k))
        for k, form in enumerate([SAME["as it should be"], SAME[name]])
    ]
    for one, two in zip(*(run.model.parameters() for run in runs), strict=True):
        assert torch.equal(one, two)
    scored = [cs.evaluate(run, data()) for run in runs]
    assert (scored[0].confusion == scored[1].confusion).all()


def test_answers_without_a_gradient_are_refused_in_training(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    forms: Mapping[str, Callable[[Tensor], Any]] = {
        "argmax": lambda scores: scores.argmax(1),
        "detach": lambda scores: scores.detach(),
        "numpy": lambda scores: scores.numpy(force=True),
    }
    for name, form in forms.items():
        with pytest.raises(ConvscopeError, match="no gradient"):
            cs.train(data(), Odd(form), epochs=1, out=name, loss="mse")


REFUSED: Mapping[str, tuple[Callable[[Tensor], Any], str]] = {
    "maps": (lambda scores: scores[:, :, None, None].expand(-1, -1, 8, 8), "maps of 2x8x8 numbers, like"),
    "one map": (lambda scores: scores[:, :1, None, None].expand(-1, -1, 8, 8), "maps of 1x8x8 numbers"),
    "maps in a dict, as torchvision's": (
        lambda scores: OrderedDict(out=scores[:, :, None, None].expand(-1, -1, 8, 8)),
        "maps of 2x8x8",
    ),
    "a sequence": (lambda scores: scores[:, None].expand(-1, 5, -1), "5 rows of 2 numbers, a sequence"),
    "volumes": (lambda scores: scores[..., None, None, None].expand(-1, -1, 3, 3, 3), "numbers of shape 2x3x3x3"),
    "several outputs": (lambda scores: (scores, scores), "2 tensors .*none of them is called logits"),
    "several named": (lambda scores: {"a": scores, "b": scores}, r"2 tensors \(a: \d+x2, b: \d+x2\)"),
    "none": (lambda _: None, "returns None"),
    "an empty list": (lambda _: [], "returns a list"),
    "a text": (lambda _: "cat", "returns a str"),
    "a number": (lambda _: 3.0, "returns a float"),
    "complex": (lambda scores: scores.to(torch.complex64), "numbers of type complex64"),
    "truth values": (lambda scores: scores > 0, "numbers of type bool"),
    "empty": (lambda scores: scores[:, :0], r"returns shape \d+x0"),
    "one mean": (lambda scores: torch.cat([scores, scores]), "one row of scores per image"),
    "sparse": (lambda scores: scores.to_sparse(), "sparse or nested tensor"),
}


def asked(model: nn.Module) -> Mapping[str, Callable[[], Any]]:
    """All that asks a model for classes."""
    images, image = data(), data().images[0] / np.float32(255)
    plain = Odd(lambda scores: scores)
    return {
        "predict": lambda: cs.predict(model, image),
        "train": lambda: cs.train(images, model, epochs=1, out="run"),
        "lint": lambda: cs.probe.lint(model, images),
        "compare": lambda: cs.probe.compare([plain, model], images),
        "shift": lambda: cs.probe.shift(model, images, kind="noise", levels=[(0.1,)]),
        "interpret": lambda: cs.interpret(model, model(torch.from_numpy(image[None]))),
    }


@pytest.mark.parametrize(("form", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("question", asked(nn.Identity()))
def test_what_names_no_class_is_refused_in_one_sentence_by_all_that_ask(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, form: Callable[[Tensor], Any], message: str, question: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConvscopeError, match=message) as caught:
        asked(Odd(form))[question]()
    assert "\n" not in str(caught.value)


def test_maps_are_refused_with_what_takes_them_and_that_does() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1))
    with pytest.raises(ShapeError, match="trace, explain and verify accept it"):
        cs.predict(model, np.zeros((1, 8, 8), np.float32))
    trace = cs.trace(model, np.zeros((1, 8, 8), np.float32))
    assert cs.verify(trace).proved
    assert cs.explain(trace, "0", (1, 7, 7)).proved


NUMBERS: Mapping[str, Callable[[Tensor], Any]] = {
    "one output": lambda scores: scores[:, :1],
    "squeezed": lambda scores: scores[:, 0],
    "squeezed wholly": lambda scores: scores[:, :1].squeeze(),
    "class numbers": lambda scores: scores.argmax(1),
}


@pytest.mark.parametrize("form", NUMBERS.values(), ids=NUMBERS)
def test_one_number_for_each_image_is_the_nearest_class_number(form: Callable[[Tensor], Any]) -> None:
    model, images = Odd(form), data()
    wanted = form(model.linear(torch.zeros(1, 64))).reshape(-1)
    prediction = cs.predict(model, np.zeros((1, 8, 8), np.float32))[0]
    assert (prediction.output.shape, prediction.probabilities) == ((1,), None)
    assert prediction.best == int(wanted.float().round().clamp(0, 1))
    assert "no class names that say what it means" in prediction.notes[-1]
    assert len(cs.probe.compare([model, model], images).models) == 2


class Functional(nn.Module):
    """Ends in a softmax that is no module."""

    def __init__(self, classes: int, scale: float) -> None:
        super().__init__()
        self.linear, self.scale = nn.Linear(64, classes), scale

    def forward(self, images: Tensor) -> Tensor:
        return torch.softmax(self.scale * self.linear(images.flatten(1)), 1)


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("scale", [1, 20])
def test_a_softmax_in_forward_is_not_applied_twice(classes: int, scale: float) -> None:
    torch.manual_seed(classes)
    model = Functional(classes, scale)
    for image in np.random.default_rng(0).random((5, 1, 8, 8), np.float32):
        prediction = cs.predict(model, image)[0]
        np.testing.assert_array_equal(prediction.probabilities, prediction.output)


def test_outputs_of_a_sigmoid_are_probabilities_by_themselves() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Sigmoid())
    prediction = cs.predict(model, np.ones((1, 8, 8), np.float32))[0]
    np.testing.assert_array_equal(prediction.probabilities, prediction.output)
    assert "need not add up" in prediction.notes[-1]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("form", [lambda scores: scores, lambda scores: scores[:, :1]], ids=["two", "one"])
def test_numbers_that_are_not_finite_are_said(value: float, form: Callable[[Tensor], Any]) -> None:
    model = Odd(lambda scores: form(scores) * value)
    prediction = cs.predict(model, np.ones((1, 8, 8), np.float32))[0]
    assert prediction.best in {0, 1}
    assert any("not finite" in note for note in prediction.notes)


def test_evaluating_counts_the_answers_that_are_not_finite(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = cs.train("crosses", epochs=1, out="run")
    assert cs.evaluate(run).notes == ()
    with torch.no_grad():
        for weight in run.model.parameters():
            weight.fill_(float("nan"))
    result = cs.evaluate(run)
    assert re.match(r"(\d+) of the \1 outputs have values that are not finite", result.notes[-1])


SHAPES = st.lists(st.integers(0, 4), max_size=5)
TYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8,
                         torch.bool, torch.complex64])  # fmt: skip


@given(SHAPES, TYPES, st.integers(1, 4))
def test_any_tensor_is_scores_or_a_sentence(shape: list[int], dtype: torch.dtype, images: int) -> None:
    output = torch.ones(shape, dtype=dtype)
    scores = None
    with suppress(ShapeError):
        scores = scores_of(output, images)
    if scores is None:
        return
    assert scores.ndim == 2
    assert len(scores) == images
    assert scores.numel() == output.numel()
    assert scores.is_floating_point()


def test_the_command_line_refuses_maps_in_one_sentence(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from convscope.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "n.py").write_text("from torch import nn\n\ndef net():\n    return nn.Conv2d(1, 2, 3, padding=1)\n")
    for command in (["predict", "n.py:net", "shapes:test/3"], ["probe", "lint", "n.py:net", "shapes"],
                    ["probe", "shift", "shapes", "n.py:net"]):  # fmt: skip
        monkeypatch.setattr("sys.argv", ["convscope", *command])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 2, command
        assert re.search(r"error: for each image the model returns maps of 2x28x28", capsys.readouterr().err), command


def test_the_explorer_names_no_class_for_maps_and_reads_logits_in_a_dict() -> None:
    from convscope.server.traces.descriptions import answers_of

    image = np.ones((1, 8, 8), np.float32)
    maps = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1))
    assert answers_of(maps, cs.trace(maps, image).output) == ([], [])
    model = Odd(SAME["a dict"])
    answers, _ = answers_of(model, cs.trace(model, image).output)
    assert answers[0].index == cs.predict(model, image)[0].best


def test_attribution_explains_the_answer_not_the_last_step() -> None:
    pytest.importorskip("captum")
    model = Odd(lambda scores: {"logits": scores, "features": scores.repeat(1, 4).relu()})
    image = np.random.default_rng(0).random((1, 8, 8), np.float32)
    result = cs.probe.attribution(model, image, 1, methods=["input-x-gradient"])
    assert result.value == pytest.approx(float(cs.predict(model, image)[0].output[1]))
    assert result.exact.sum() + result.constant == pytest.approx(result.value, abs=1e-5)
    assert result.methods[0].correlation == pytest.approx(1)
