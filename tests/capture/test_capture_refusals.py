"""What capture cannot do is answered with a sentence: models that fail, images and models that do not fit."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convscope as cs
from convscope.errors import ImageError, InputError, ModelError, ShapeError, TraceError, UsageError


def test_an_error_names_the_module_and_keeps_what_was_recorded() -> None:
    class Breaks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError(f"cannot do {x.dim()} axes")

    model = nn.Sequential(
        OrderedDict(first=nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), second=nn.Sequential(Breaks()))
    )
    with pytest.raises(TraceError) as caught:
        cs.trace(model, torch.ones(1, 5, 5))
    assert str(caught.value) == "the model failed in second.0 (Breaks): ValueError: cannot do 4 axes"
    assert caught.value.module == "second.0"
    partial = caught.value.trace
    assert isinstance(partial, cs.Trace)
    assert [step.name for step in partial.steps] == ["first.0", "first.1"]
    assert partial["first.1"].output.shape == (1, 2, 3, 3)
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_error_that_the_model_handles_is_none() -> None:
    class Tries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.narrow = nn.Linear(9, 2), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            try:
                y: Tensor = self.wide(x)
            except RuntimeError:
                y = self.narrow(x)
            return y.reshape(7, 7)

    with pytest.raises(TraceError, match=r"the model failed in Tries\.forward: RuntimeError: shape '\[7, 7\]'"):
        cs.trace(Tries(), torch.ones(2, 4))


@pytest.mark.parametrize(
    ("model", "shape", "said"),
    [
        (nn.Conv2d(3, 4, 3), (1, 8, 8), r"of shape \(1, 1, 8, 8\): the layer \(Conv2d\) expects 3 channels"),
        (nn.Sequential(nn.Conv2d(1, 4, 3)), (3, 8, 8), r"0 \(Conv2d\) expects 1 channel, .* 3; .*images of 1 channel"),
        (nn.Sequential(nn.Conv2d(1, 4, 5)), (1, 3, 3), r"kernel of \(5, 5\), larger than its input \(1, 1, 3, 3\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(9, 2)), (1, 4, 4), r"1 \(Linear\) expects 9 .* received \(1, 16\)"),
        (nn.Sequential(nn.BatchNorm2d(3)), (1, 4, 4), r"0 \(BatchNorm2d\) expects 3 channels"),
        (nn.Sequential(nn.LayerNorm(3)), (1, 4, 4), r"0 \(LayerNorm\) expects \(3,\) as its last axes"),
        (nn.Sequential(nn.MaxPool2d(9)), (1, 4, 4), r"0 \(MaxPool2d\) has a kernel of 9, larger than its input"),
        (nn.Conv2d(3, 4, 3), (2, 2, 3, 8, 8), r"expects 4 axes, the batch first, but received \(2, 2, 3, 8, 8\)"),
    ],
)  # fmt: skip
def test_an_image_that_does_not_fit(model: nn.Module, shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        cs.trace(model, torch.ones(shape))
    assert isinstance(caught.value, ShapeError)
    assert caught.value.exit_status == 2
    assert "\n" not in str(caught.value)


def test_layers_that_do_not_fit_each_other_are_not_blamed_on_the_image() -> None:
    with pytest.raises(TraceError, match=r"fails at 1 \(Conv2d\), which expects 16 .* whatever the image") as caught:
        cs.trace(nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(16, 8, 3)), torch.ones(1, 9, 9))
    assert not isinstance(caught.value, InputError)
    assert "convscope summary" in str(caught.value)


@pytest.mark.parametrize(
    ("image", "error", "said"),
    [
        (np.ones((1, 5, 5), np.uint8), ShapeError, r"the image is uint8; .* floating-point numbers: .* / 255"),
        (torch.ones(1, 5, 5, dtype=torch.int64), ShapeError, "the image is int64"),
        (np.ones((1, 0, 5), np.float32), ShapeError, r"the image of shape \(1, 0, 5\) is empty"),
        ("dog.jpg", ImageError, r"there is no file dog\.jpg"),
        (None, UsageError, "not nothing"),
        ([1, 2], UsageError, "not a list"),
        (np.array(["a"]), UsageError, "the image is an array of <U1; a model needs numbers"),
        ({}, UsageError, "none of the inputs is an array"),
        ((3,), UsageError, "none of the inputs is an array"),
        ((object(),), UsageError, "input 0 is an object; pass a NumPy array or a tensor"),
        (torch.ones(1, 5, 5, device="meta"), UsageError, "the image is on the meta device"),
    ],
)
def test_an_image_that_is_none(image: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        cs.trace(nn.Conv2d(1, 1, 3), image)


class Calls(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


class Two(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (torch.ones(1, 2, 2), "cannot be called with one input: .*'y'; pass a tuple for several inputs, or a dict"),
        ((torch.ones(2),) * 3, "cannot be called with 3 inputs"),
        ({"x": torch.ones(2), "z": torch.ones(2)}, "cannot be called with inputs named x, z: .*'z'"),
    ],
)
def test_models_that_need_other_inputs(image: Any, said: str) -> None:
    with pytest.raises(TraceError, match=said):
        cs.trace(Two(), image)


@pytest.mark.parametrize(
    ("returned", "said"), [(None, "returned nothing"), (3, "an int without tensors"), ({}, "a dict without")]
)
def test_models_that_return_no_tensor(returned: Any, said: str) -> None:
    model = nn.Sequential(nn.ReLU(), Calls(lambda _: returned))
    with pytest.raises(TraceError, match=said) as caught:
        cs.trace(model, torch.ones(1, 2, 2))
    assert isinstance(caught.value.trace, cs.Trace)
    assert caught.value.trace["0"].output.shape == (1, 1, 2, 2)


class Quantised(nn.Module):
    """Stands for a quantised layer of torch's own."""


Quantised.__module__ = "torch.ao.nn.quantized.modules.conv"


@pytest.mark.filterwarnings("ignore")
def scripted() -> nn.Module:
    return torch.jit.trace(nn.Conv2d(1, 1, 3), torch.ones(1, 1, 5, 5), check_trace=False)  # type: ignore[no-any-return, no-untyped-call]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("build", "error", "said"),
    [
        (scripted, ModelError, "it is TorchScript, which has no Python forward"),
        (lambda: nn.Sequential(scripted()), ModelError, "its module '0' is TorchScript"),
        (lambda: nn.Sequential(Quantised()), ModelError, "its module '0' is quantized .* before quantization"),
        (lambda: nn.Conv2d(1, 1, 3, device="meta"), ModelError, "'weight' is on the meta device .* load the weights"),
        (
            lambda: nn.Conv2d,
            UsageError,
            "a model is a torch.nn.Module, not the class Conv2d; pass an instance",
        ),
        (lambda: torch.relu, UsageError, "not a builtin_function_or_method"),
    ],
)
def test_models_that_cannot_be_traced(build: Callable[[], Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        cs.trace(build(), torch.ones(1, 5, 5))


@pytest.mark.filterwarnings("ignore")
def test_nested_tensors_in_a_pass_are_refused_with_a_sentence() -> None:
    class Nests(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.nested.nested_tensor([x[0], x[0]])

    with pytest.raises(TraceError, match="the model makes nested tensors, whose rows differ in length"):
        list(cs.trace(nn.Sequential(nn.Conv2d(1, 2, 3), Nests()), torch.ones(1, 5, 5)).steps)


def test_a_result_without_numbers_is_a_sentence() -> None:
    class Shapes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros_like(x, device="meta")

    trace = cs.trace(Shapes(), torch.ones(1, 5, 5))
    with pytest.raises(TraceError, match="is on the meta device and has no numbers"):
        cs.verify(trace)


def test_an_output_that_holds_itself_is_refused() -> None:
    def circle(x: Tensor) -> list[object]:
        result: list[object] = [x + 1]
        result.append(result)
        return result

    model = nn.Identity()
    model.forward = circle  # type: ignore[assignment]  # as notebooks patch models
    with pytest.raises(TraceError, match="hold themselves"):
        cs.trace(model, torch.ones(1, 1, 2, 2))


def test_an_exception_without_a_text_is_named() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    def fails(_: Tensor) -> Tensor:
        raise Odd

    model = nn.Identity()
    model.forward = fails  # type: ignore[assignment]
    with pytest.raises(TraceError, match="Odd: no message"):
        cs.trace(model, torch.ones(1, 1, 2, 2))
