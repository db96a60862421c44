"""The check of forty wrong functions and twenty right ones; and each known mistake is told from the others."""

import importlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wrong_functions.table import RIGHT, UNSEEN, WRONG, Wrong

import convscope as cs
from checking import learner
from commands import Commands
from convscope.checking.im2col import mixed_rows
from convscope.checking.operation import CheckedOperation, Mistake
from convscope.checking.operations import OPERATIONS


def known_mistakes() -> Iterator[Any]:
    """Every mistake of every operation; further variants of a cause are left to the long run."""
    seen = set()
    for operation in OPERATIONS.values():
        for mistake in operation.mistakes:
            key = operation.name, mistake.cause
            marks = [pytest.mark.study] if key in seen else []
            yield pytest.param(operation, mistake, id=": ".join(key), marks=marks)
            seen.add(key)


def function_of(file: str, name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(importlib.import_module(f"wrong_functions.{file}"), name)
    return function


@pytest.fixture(scope="module")
def answers() -> dict[Wrong, cs.Check]:
    return {
        wrong: cs.check(function_of(wrong.file, wrong.function), as_=wrong.operation, strict=True)
        for wrong in (*WRONG, *UNSEEN)
    }


def confusion(answers: dict[Wrong, cs.Check]) -> str:
    """The confusion table: operation and mistake, and the cause that was named."""
    width = max(len(f"{wrong.operation}: {wrong.cause}") for wrong in answers)
    lines = [
        f"{'✗✓'[answer.cause == wrong.cause]} {f'{wrong.operation}: {wrong.cause}':<{width}}  -> {answer.cause}"
        for wrong, answer in answers.items()
    ]
    return "\n".join(["", *lines])


def test_at_least_nine_of_ten_causes_are_named(
    answers: dict[Wrong, cs.Check], capsys: pytest.CaptureFixture[str]
) -> None:
    table = confusion(answers)
    with capsys.disabled():
        print(table)  # noqa: T201  # the confusion table is a result, not only a reason of failure
    named = [answers[wrong].cause == wrong.cause for wrong in WRONG]
    assert len(named) == 40
    assert sum(named) >= 36, table


@pytest.mark.parametrize("wrong", UNSEEN, ids=lambda wrong: wrong.function)
def test_a_mistake_that_had_no_name_at_first_has_one(answers: dict[Wrong, cs.Check], wrong: Wrong) -> None:
    assert answers[wrong].cause == wrong.cause, answers[wrong].to_text()


def test_no_wrong_function_passes(answers: dict[Wrong, cs.Check]) -> None:
    assert [wrong.function for wrong, answer in answers.items() if answer.right] == []


@pytest.mark.parametrize(("name", "operation"), RIGHT, ids=str)
def test_a_right_function_passes(name: str, operation: str) -> None:
    answer = cs.check(function_of("right", name), as_=operation)
    assert answer.right, answer.to_text()


def test_what_courses_teach_is_accepted_with_a_remark_unless_strict(convscope: Commands, tmp_path: Path) -> None:
    for name, operation in {
        "softmax": "softmax",
        "softmax_of_lists": "softmax",
        "softmax_loss": "cross_entropy",
        "cross_entropy_of_lists": "cross_entropy",
        "pool_backward": "max_pool2d_backward",
    }.items():
        answer = cs.check(function_of("taught", name), as_=operation)
        assert answer.right, answer.to_text()
        assert answer.notes[-1] == "To refuse this, use --strict, in Python strict=True."
        answer.require()
        assert not cs.check(function_of("taught", name), as_=operation, strict=True).right
    shutil.copyfile(Path(__file__).parent / "wrong_functions" / "taught.py", tmp_path / "taught.py")
    accepted = convscope("check", f"{tmp_path / 'taught.py'}:softmax")
    assert accepted.status == 0
    assert "a correct softmax except on logits whose exponential overflows or vanishes" in accepted.out
    assert convscope("check", f"{tmp_path / 'taught.py'}:softmax", "--strict").status == 1


def test_a_mistake_besides_what_courses_teach_is_refused() -> None:
    def softmax(x: Any) -> Any:
        return np.exp(x) / np.exp(x).sum(1, keepdims=True) * 2

    assert not cs.check(softmax).right


def test_right_functions_are_compared_in_both_precisions() -> None:
    seen = set()

    def relu(x: Any) -> Any:
        seen.add(x.dtype.name)
        return np.maximum(x, 0)

    assert cs.check(relu).right
    assert seen == {"float64", "float32"}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_the_reference_itself_is_right(operation: CheckedOperation) -> None:
    assert cs.check(learner(operation, None), as_=operation.name).right


INVISIBLE = {("linear", "result transposed")}
"""A linear layer of one row at a time is right, whichever way its result of several rows would be turned."""


ONLY_IN_ITS_LAYOUT = mixed_rows
"""As (N, C·R·S, P·Q) it is the correct (N·P·Q, C·R·S) of a case with as many windows as cells in each.

`columns_not_transposed` of the unseen functions makes it in its own layout.
"""


@pytest.mark.parametrize(("operation", "mistake"), list(known_mistakes()))
def test_each_mistake_is_told_from_the_others(operation: CheckedOperation, mistake: Mistake) -> None:
    if (operation.name, mistake.cause) in INVISIBLE or mistake.instead is ONLY_IN_ITS_LAYOUT:
        return
    if mistake.except_on:
        answer = cs.check(learner(operation, mistake), as_=operation.name)
        assert answer.right
        assert mistake.sentence in answer.notes
        assert f"is a correct {operation.name} except on {mistake.except_on}" in answer.sentence
    answer = cs.check(learner(operation, mistake), as_=operation.name, strict=True)
    if mistake.harmless:
        assert answer.right
        assert mistake.sentence in answer.notes
        assert "a valid choice that differs from the reference's" in answer.sentence
        return
    assert answer.cause == mistake.cause
    assert mistake.sentence.split(":")[0] in answer.advice


def test_two_mistakes_at_once_are_both_named() -> None:
    def conv2d(x: Any, w: Any, b: Any, stride: int = 1) -> Any:
        rows, columns = ((n - k) // stride + 1 for n, k in zip(x.shape[2:], w.shape[2:], strict=True))
        out = np.zeros((len(x), len(w), rows, columns))
        for i, j in np.ndindex(rows, columns):
            window = x[:, :, i * stride : i * stride + w.shape[2], j * stride : j * stride + w.shape[3]]
            out[:, :, i, j] = np.einsum("ncrs,kcrs->nk", window, w[:, :, ::-1, ::-1])
        return out

    assert cs.check(conv2d).cause == "kernel flipped, and bias forgotten"


def test_windows_that_no_known_mistake_has_are_measured() -> None:
    def windows(x: Any, w: Any, at: Callable[[int, int], tuple[int, int]]) -> Any:
        wide = np.pad(x, (0, 9))
        out = np.zeros((x.shape[0] - w.shape[0] + 1, x.shape[1] - w.shape[1] + 1))
        for i, j in np.ndindex(*out.shape):
            row, column = at(i, j)
            out[i, j] = (wide[row : row + w.shape[0], column : column + w.shape[1]] * w).sum()
        return out

    def swapped(x: Any, w: Any) -> Any:
        return windows(x, w, lambda i, j: (j, i))

    def far(x: Any, w: Any) -> Any:
        return windows(x, w, lambda i, j: (3 * i, j + 2))

    answer = cs.check(swapped, as_="conv2d")
    assert answer.cause == "row and column of the window swapped"
    assert "weight[r, s] · x[j + r, i + s] to out[i, j] instead of weight[r, s] · x[i + r, j + s]" in answer.advice
    assert "Measured by calling your function" in answer.to_text()
    assert (
        cs.check(far, as_="conv2d").cause
        == "stride 3 vertically instead of 1, and windows start 2 cells too late horizontally"
    )

    def gradient(dout: Any, x: Any, w: Any) -> Any:
        dx = np.zeros((*x.shape[:2], 16, 16))
        for n, k, i, j in np.ndindex(*dout.shape):
            dx[n, :, j : j + w.shape[2], i : i + w.shape[3]] += w[k] * dout[n, k, i, j]
        return dx[:, :, : x.shape[2], : x.shape[3]]

    answer = cs.check(gradient, as_="conv2d_backward")
    assert answer.cause == "row and column of the window swapped"
    assert "to dx[j + r, i + s] instead of dx[i + r, j + s]" in answer.advice


def test_windows_of_a_pooling_are_measured() -> None:
    def rows_only(x: Any, size: int) -> Any:
        rows, columns = (n // size for n in x.shape)
        return x[: rows * size, : columns * size].reshape(rows, size, -1).max(1)[:, ::size]

    answer = cs.check(rows_only, as_="max_pool2d")
    assert answer.cause == "windows of 2 × 1 cells instead of 2 × 2"
    assert "The window of out[i, j] begins at x[2·i, 2·j]" in answer.advice

    def whole(x: Any, size: int) -> Any:
        kept = x[: x.shape[0] // size * size, : x.shape[1] // size * size]
        return kept.reshape(x.shape[0] // size, size, x.shape[1] // size, size).sum((1, 3)) // size**2

    assert (
        cs.check(whole, as_="avg_pool2d").cause == "truncated to integers"
    )  # measured with ones, its windows look empty


def test_what_wrong_calls_have_in_common_is_said() -> None:
    def conv2d(x: Any, w: Any, b: Any, padding: int) -> Any:
        return cs.reference.conv2d(x, w, b, padding=padding) * (1 + padding)

    answer = cs.check(conv2d)
    assert answer.cause is None
    assert "Exactly the calls with padding above 0 differ; all others are right." in answer.to_text()
    assert answer.to_json()["pattern"] == answer.pattern

    def fails(x: Any, w: Any, stride: int = 1) -> Any:
        if stride > 1:
            raise ValueError("not yet")
        return cs.reference.conv2d(x, w, None)

    assert "not yet. Exactly the calls with a stride above 1 fail" in cs.check(fails, as_="conv2d").sentence


def test_a_function_that_is_right_for_vectors_alone_says_so() -> None:
    def mse(prediction: Any, target: Any) -> Any:
        return ((prediction - target) ** 2).sum() / len(target)

    answer = cs.check(mse)
    assert answer.right
    assert answer.notes == (
        "It is correct for arrays of the form (numbers,), but wrong for (N, outputs): mean over the batch alone.",
    )


def test_an_unknown_mistake_is_not_given_a_name_but_its_sum() -> None:
    def conv2d(x: Any, w: Any, b: Any) -> Any:
        out = cs.reference.conv2d(x, w, b)
        return out + 0.5 * x[:, :1, : out.shape[2], : out.shape[3]]

    answer = cs.check(conv2d)
    assert answer.cause is None
    assert answer.sentence == "conv2d is not a correct conv2d: out[0, 0] is 1.5 and should be 1."
    assert "No known mistake" in answer.to_text()


def test_a_function_that_mostly_fails_gets_no_name() -> None:
    def conv2d(x: Any, w: Any, b: Any, stride: int = 1) -> Any:
        out = np.zeros((len(x), len(w), (x.shape[2] - w.shape[2]) * stride + 1, (x.shape[3] - w.shape[3]) * stride + 1))
        for i, j in np.ndindex(*out.shape[2:]):
            for u, v in np.ndindex(*w.shape[2:]):
                out[:, :, i, j] += x[:, :, i + u, j + v + 1] @ w[:, :, u, v].T
        return out

    answer = cs.check(conv2d)
    assert answer.problem.startswith("IndexError")
    assert answer.cause is None
    assert answer.sentence.startswith("conv2d is not a correct conv2d: it fails. IndexError")


def test_few_results_are_too_little_for_a_name() -> None:
    def conv2d(x: Any, w: Any, b: Any) -> Any:
        if x.shape != (1, 1, 3, 3):
            raise ValueError("nine numbers")
        return cs.reference.conv2d(x, w)

    answer = cs.check(conv2d)
    assert answer.cause is None
    assert answer.sentence == "conv2d is not a correct conv2d: out[0, 0] is 0 and should be 1."


def test_the_first_wrong_cell_is_shown_as_two_sums(answers: dict[Wrong, cs.Check]) -> None:
    answer = next(a for w, a in answers.items() if (w.operation, w.cause) == ("conv2d", "kernel flipped"))
    assert answer.cell == (0, 0, 0, 0)
    text = answer.to_text()
    assert "x[0, 0] · weight[0, 0]   1 × 1 =     1     x[0, 0] · weight[1, 1]   1 × (−1) = −1" in text
    assert text.splitlines()[-1].split() == ["sum", "1", "sum", "13"]
    assert answer.sums is not None
    assert answer.expected is not None
    assert answer.yours is not None
    for terms, array in ((answer.sums.expected, answer.expected), (answer.sums.yours, answer.yours)):
        assert terms is not None
        assert sum(term.value for term in terms) == pytest.approx(array[answer.cell])


def test_sums_add_up_to_what_the_function_returned(answers: dict[Wrong, cs.Check]) -> None:
    compared = 0
    for wrong, answer in answers.items():
        if OPERATIONS[wrong.operation].sums and answer.cell and answer.sums and answer.sums.yours is not None:
            assert answer.yours is not None
            total = sum(term.value for term in answer.sums.yours)
            assert total == pytest.approx(float(answer.yours[answer.cell])), wrong.function
            compared += 1
    assert compared >= 20
