"""`cs.check` as learners and autograders meet it: its sentences, layouts, time limits and refusals."""

import contextlib
from typing import Any

import numpy as np
import pytest

import convscope as cs
from convscope.checking import calling
from convscope.checking.operations import operation_of


def test_an_autograder_gets_one_sentence() -> None:
    def relu(x: Any) -> Any:
        return abs(x)

    answer = cs.check(relu)
    with pytest.raises(cs.WrongResult, match="relu is not a correct relu: absolute value"):
        answer.require()
    assert issubclass(cs.WrongResult, AssertionError)
    cs.check(lambda x: np.maximum(x, 0), as_="relu").require()


def test_layout_decides_where_both_would_do() -> None:
    def conv(x: Any, w: Any) -> Any:
        return np.transpose(cs.reference.conv2d(x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1)), (0, 2, 3, 1))

    assert cs.check(conv, layout="nhwc").form == "(N, H, W, C)"
    assert cs.check(conv).form == "(N, H, W, C)"
    assert not cs.check(conv, layout="nchw").right
    with pytest.raises(cs.UsageError, match=r"conv2d has no layout 'hwcn'; its layouts are nchw, nhwc"):
        cs.check(conv, layout="hwcn")


def test_a_function_that_changes_its_input_is_noted() -> None:
    def relu(x: Any) -> Any:
        x[x < 0] = 0
        return x

    answer = cs.check(relu)
    assert answer.right
    assert "modifies its input array in place" in answer.notes[0]


@pytest.mark.parametrize("cut", [np.s_[:, :, :0, :0], np.s_[:0], np.s_[:, :0], np.s_[..., :0]])
def test_an_empty_result_is_shown_with_its_shape(cut: Any) -> None:
    answer = cs.check(lambda x: np.maximum(x, 0)[cut], as_="relu")
    assert not answer.right
    assert "empty, of shape (" in str(answer)


def test_the_time_of_the_check_itself_is_not_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float | None] = []
    monkeypatch.setattr(calling, "watchdog", seen.append)
    assert cs.check(abs, as_="relu", seconds=3).cause == "absolute value"
    assert all(left is not None and 0 < left <= 3 for left in seen[::2])
    assert set(seen[1::2]) == {None}


def test_an_endless_function_is_interrupted_even_if_it_catches_exceptions() -> None:
    def relu(x: Any) -> Any:
        while True:
            with contextlib.suppress(Exception):
                list(x)

    answer = cs.check(relu, seconds=0.2)
    assert answer.late
    assert "did not finish within 0.2 s and was interrupted" in answer.problem
    assert "test_check.py" in answer.lines[0]


def test_a_failing_function_shows_its_own_lines_alone() -> None:
    def conv2d(image: Any, kernel: Any) -> Any:
        return np.concatenate([image, [1]])

    answer = cs.check(conv2d)
    assert answer.problem.startswith("ValueError: all the input arrays must have same number of dimensions")
    assert len(answer.lines) == 1
    assert answer.lines[0].endswith("in conv2d: return np.concatenate([image, [1]])")


def unknown(*, x: Any, w: Any, b: Any, stride: int, foo: int, bar: int, baz: int, qux: int) -> Any:
    return x


@pytest.mark.parametrize(
    ("function", "as_", "message"),
    [
        (3, "relu", "check takes a function, not an int"),
        (lambda x: x, None, "does not say which operation this is; choose one with --as NAME"),
        (lambda x: x, "conv3d", "no operation to check is called 'conv3d'; did you mean 'conv2d'"),
        (unknown, "conv2d", "the parameter 'qux' of unknown is not one of conv2d's"),
        (lambda: 0, "relu", "has no parameter for x"),
    ],
)
def test_bad_usage_is_one_sentence(function: Any, as_: str | None, message: str) -> None:
    with pytest.raises(cs.UsageError) as error:
        cs.check(function, as_=as_)
    assert message in str(error.value)


@pytest.mark.parametrize("seconds", [0, -1, "long", float("nan"), float("inf"), 1e12])
def test_a_time_limit_is_a_positive_number(seconds: Any) -> None:
    with pytest.raises(cs.UsageError, match="the time limit is a number of seconds above 0"):
        cs.check(abs, as_="relu", seconds=seconds)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("None", "returns None; is a `return` missing?"),
        ("'text'", "cannot be read as numbers"),
        ("[[1, 2], [3]]", "cannot be read as numbers"),
        ("exit(3)", "SystemExit: 3"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_results_that_are_none(result: str, message: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"def relu(x): return {result}", scope)  # one line each
    answer = cs.check(scope["relu"])
    assert not answer.right
    assert message in answer.problem


@pytest.mark.parametrize(
    ("function", "operation"),
    [
        ("conv_forward_im2col", "conv2d"),
        ("conv2d_unfold", "conv2d"),
        ("max_pool_forward_im2col", "max_pool2d"),
        ("im2col_indices", "im2col"),
        ("softmax_loss", "cross_entropy"),
        ("relu_bwd", "relu_backward"),
    ],
)
def test_the_name_of_a_function_selects_its_operation(function: str, operation: str) -> None:
    assert operation_of(None, function).name == operation


def test_shapes_of_a_function_of_planes_have_two_axes() -> None:
    def conv2d(image: Any, kernel: Any) -> Any:
        return np.zeros((1, 1))

    answer = cs.check(conv2d)
    assert "out should have the shape (2, 2); yours has (1, 1)." in answer.to_text()
    with pytest.raises(cs.WrongResult, match=r"the shape \(1, 1\) and should have \(2, 2\)"):
        answer.require()
