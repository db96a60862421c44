"""The reference against PyTorch: every operation, in float64 and float32, within its own bound."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from convscope.errors import ShapeError, UsageError
from convscope.reference.operation import Operation
from convscope.reference.table import OPERATIONS, lookup
from reference_cases import CASES, Case

U = {torch.float64: 2.0**-53, torch.float32: 2.0**-24}
Array = np.ndarray[Any, Any]
Outputs = tuple[Any, ...]
Q = np.zeros((1, 1, 2, 4))


def overload(case: Case) -> Any:
    name, form = case.op.split(".")
    return getattr(getattr(torch.ops.aten, name), form)


def known(case: Case) -> Operation:
    operation = lookup(case.op)
    assert operation is not None, f"{case.op} has no reference"
    return operation


def as_type(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.to(dtype)
    return [as_type(v, dtype) for v in value] if isinstance(value, list) else value


def as_array(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        array: Array = value.detach().double().numpy(force=True) if value.is_floating_point() else value.numpy()
        array = array.view()
        array.flags.writeable = False  # no operation may write into what it is given
        return array
    return [as_array(v) for v in value] if isinstance(value, list) else value


def named(case: Case) -> dict[str, Any]:
    """The case's arguments by the names of its schema, as arrays."""
    names = [argument.name for argument in overload(case)._schema.arguments]
    return {n: as_array(v) for n, v in [*zip(names, case.args, strict=False), *case.kwargs.items()]}


def run(case: Case, dtype: torch.dtype) -> tuple[Array | None, ...]:
    """What PyTorch gives, as arrays; what it leaves empty as None."""
    torch.set_default_dtype(dtype)
    try:
        names = [argument.name for argument in overload(case)._schema.arguments]
        args = [
            dtype if name == "input_dtype" else as_type(value, torch.float32 if i in case.single else dtype)
            for i, (name, value) in enumerate(zip(names, case.args, strict=False))
        ]
        args = [a.clone() if isinstance(a, torch.Tensor) else a for a in args]
        result = overload(case)(*args, **{k: as_type(v, dtype) for k, v in case.kwargs.items()})
    finally:
        torch.set_default_dtype(torch.float32)
    outputs = result if isinstance(result, tuple | list) else (result,)
    return tuple(as_array(o) for o in outputs if o is not None)  # what a mask of outputs leaves out is no result


def both(case: Case, u: float, u_out: float = 0.0) -> tuple[Outputs, Outputs]:
    """What the reference gives, and its bounds, as tuples."""
    operation, arguments = known(case), named(case)
    result = operation.compute(**arguments)
    bound = operation.bound(u=u, u_out=u_out, result=result, **arguments)
    return (result, bound) if isinstance(result, tuple) and isinstance(bound, tuple) else ((result,), (bound,))


def distance(theirs: Array, ours: Array) -> Array:
    """How far apart, cell by cell; nothing between equal numbers, equal infinities, and NaN and NaN."""
    theirs, ours = (x.astype(np.float64) for x in (theirs, ours))
    with np.errstate(invalid="ignore"):
        return np.where((theirs == ours) | (np.isnan(theirs) & np.isnan(ours)), 0.0, np.abs(theirs - ours))


def check(recorded: Outputs, result: Outputs, bound: Outputs) -> float:
    """Every number lies within its bound, infinities and NaN in the same cells; returns the worst share."""
    worst = 0.0
    assert len(recorded) == len(result) == len(bound)
    for theirs, ours, off in zip(recorded, result, bound, strict=True):
        if ours is None:
            continue
        assert theirs.shape == ours.shape
        assert (theirs.dtype.kind == "f") == (ours.dtype.kind == "f"), (theirs.dtype, ours.dtype)
        apart = distance(theirs, ours)
        wrong = np.argwhere(~(apart <= off))
        for at in map(tuple, wrong[:1]):
            limit = np.broadcast_to(off, ours.shape)[at]
            pytest.fail(f"cell {at}: {theirs[at]} is not {ours[at]} within {limit}; {len(wrong)} such cells")
        moved = (apart > 0) & np.isfinite(off)
        share = np.where(moved, apart, 0.0) / np.where(moved, off, 1.0)
        worst = max(worst, float(share.max(initial=0.0)))
    return worst


@pytest.mark.parametrize("name", CASES)
def test_pytorch_lies_within_the_bound_of_the_reference(name: str) -> None:
    for dtype, rounding in U.items():
        if dtype == torch.float64 and CASES[name].op.startswith("mkldnn"):
            continue  # oneDNN has this layer in float32 alone
        result, bound = both(CASES[name], rounding)
        check(run(CASES[name], dtype), result, bound)


def test_every_operation_has_a_case() -> None:
    named_by_cases = {case.op.split(".")[0] for case in CASES.values()}
    updates = {name for name in OPERATIONS if name.startswith("convscope::")}  # see capture/test_training_step.py
    newer = {name for name in OPERATIONS if not hasattr(torch.ops.aten, name)} - updates
    assert set(OPERATIONS) - named_by_cases - newer == updates


def test_bounds_are_not_silly() -> None:
    """Among the cases that round at all, the worst cell uses a good part of its bound."""
    shares = []
    for case in CASES.values():
        result, bound = both(case, U[torch.float32])
        if any(y is not None and y.dtype.kind == "f" and np.any(off > 0) for y, off in zip(result, bound, strict=True)):
            shares.append(check(run(case, torch.float32), result, bound))
    used = [share for share in shares if share > 0]
    assert len(used) > 150
    assert max(used) < 1
    assert np.median(used) > 0.05
    assert np.quantile(used, 0.05) > 1e-4


@pytest.mark.parametrize("name", CASES)
def test_one_wrong_cell_is_seen(name: str) -> None:
    """Whatever an operation returns, a change beyond its bound of one cell in the middle does not pass."""
    result, bound = both(CASES[name], U[torch.float32])
    recorded = list(run(CASES[name], torch.float32))
    ours, off = next((y, b) for y, b in zip(result, bound, strict=True) if y is not None)
    limit = np.broadcast_to(off, ours.shape).ravel()
    at = ours.size // 2
    changed = np.array(recorded[0]).ravel()
    if not np.isfinite(changed[at].astype(float)):
        changed[at] = 1.0
    elif changed.dtype == bool:
        changed[at] = ~changed[at]
    else:
        changed[at] += 1 if changed.dtype.kind == "i" else 2.5 * limit[at] + np.abs(changed[at]) * 1e-6 + 1e-30
    recorded[0] = changed.reshape(ours.shape)
    with pytest.raises(pytest.fail.Exception, match="is not"):
        check(tuple(recorded), result, bound)


BROKEN: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "a dropped bias": lambda a: a | {"bias": None},
    "a smaller bias": lambda a: a | {"bias": a["bias"] * (1 - 1e-4)},
    "flipped kernels": lambda a: a | {"weight": np.flip(a["weight"], (2, 3))},
    "one kernel cell": lambda a: a | {"weight": a["weight"] + 1e-4 * (a["weight"] == a["weight"].max())},
    "swapped channels": lambda a: a | {"input": a["input"][:, ::-1]},
    "another stride": lambda a: a | {"stride": a["stride"][::-1], "padding": [1, 2]},
    "a shifted padding": lambda a: a | {"input": np.roll(a["input"], 1, 2)},
}


@pytest.mark.parametrize("change", BROKEN)
def test_a_broken_convolution_is_seen(change: str) -> None:
    case = Case(
        "convolution.default",
        (*CASES["convolution plain"].args[:3], [2, 3], [1, 2], [1, 1], False, [0, 0], 1),
    )
    operation = OPERATIONS["convolution"]
    wrong = BROKEN[change](named(case))
    result, bound = operation.compute(**wrong), operation.bound(u=2.0**-24, **wrong)
    with pytest.raises((pytest.fail.Exception, AssertionError)):
        check(run(case, torch.float32), (result,), (bound,))


@pytest.mark.parametrize("name", CASES)
def test_narrow_types_lie_within_the_bound_of_their_own_rounding(name: str) -> None:
    checked = 0
    for dtype, u_out in ((torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)):
        args, kwargs = CASES[name].args, CASES[name].kwargs
        narrow = Case(
            CASES[name].op,
            tuple(as_type(as_type(a, dtype), torch.float64) for a in args),
            {k: as_type(as_type(v, dtype), torch.float64) for k, v in kwargs.items()},
            CASES[name].single,
        )
        try:
            theirs = run(narrow, dtype)
        except RuntimeError:  # PyTorch has no such kernel
            continue
        check(theirs, *both(narrow, 2.0**-24, u_out))
        checked += 1
    if not checked:
        pytest.skip("PyTorch has no kernel of a narrow type")


def test_float32_arrays_are_widened_first() -> None:
    x = np.array([0.1, 0.7], np.float32)
    assert OPERATIONS["exp"].compute(self=x).dtype == np.float64  # type: ignore[union-attr]
    together = OPERATIONS["cat"].compute(tensors=[x, x.astype(np.float64)], dim=0)
    assert isinstance(together, np.ndarray)
    assert together.tolist() == [*x.astype(float), *x.astype(float)]


def test_dropout_takes_the_mask_that_was_drawn() -> None:
    x = torch.randn(5, 40)
    theirs, mask = torch.ops.aten.native_dropout(x, 0.3, True)
    arguments = {"input": as_array(x), "p": 0.3, "train": True, "mask": mask.numpy()}
    result, bound = (
        OPERATIONS["native_dropout"].compute(**arguments),
        OPERATIONS["native_dropout"].bound(u=2.0**-24, **arguments),
    )
    check((as_array(theirs), mask.numpy()), tuple(result), tuple(bound))


def test_factors_taken_for_zero_widen_the_bound_whatever_the_sign_of_alpha() -> None:
    arguments: dict[str, Any] = {
        "input": np.zeros((1, 1)), "mat1": np.full((1, 3), 1e-39), "mat2": np.full((3, 1), 1e30),
    }  # fmt: skip
    narrow: dict[str, Any] = {"u": 2.0**-24, "u_out": 2.0**-8}
    for alpha in (1.0, -1.0):
        bound = OPERATIONS["addmm"].bound(**arguments, **narrow, alpha=alpha)
        assert isinstance(bound, np.ndarray)
        assert bound.item() >= 3e-9


@pytest.mark.parametrize(
    ("size", "stride", "offset"), [([2], [-1], 0), ([2], [3], 0), ([1], [1], -1), ([1], [1], 1 << 60)]
)
def test_as_strided_reads_no_memory_beside_its_input(size: list[int], stride: list[int], offset: int) -> None:
    with pytest.raises(UsageError, match="reads memory outside its input"):
        OPERATIONS["as_strided"].compute(self=np.arange(3.0), size=size, stride=stride, storage_offset=offset)


def test_as_strided_reads_any_layout_of_its_input() -> None:
    x = torch.arange(24.0).view(2, 3, 4).permute(2, 0, 1)[1:]
    taken = x.as_strided((2, 5), (12, 2), 1)
    read = OPERATIONS["as_strided"].compute(
        self=x.numpy(), size=[2, 5], stride=[12, 2], storage_offset=1, memory=(x.stride(), x.storage_offset())
    )
    np.testing.assert_array_equal(read, taken.numpy())
    empty = OPERATIONS["as_strided"].compute(self=np.zeros((0, 2)), size=[0], stride=[1], storage_offset=0)
    assert isinstance(empty, np.ndarray)
    assert empty.shape == (0,)


def test_a_fourier_convolution_lies_within_the_normwise_bound() -> None:
    rng = np.random.default_rng(0)
    x, weight = (rng.normal(size=s).astype(np.float32) for s in ((2, 3, 20, 24), (4, 3, 5, 3)))
    size = (1, 1, 24, 26)
    spectra = np.fft.rfft2(x, size[2:])[:, None] * np.conj(np.fft.rfft2(weight, size[2:]))[None]
    fourier = np.fft.irfft2(spectra.sum(2), size[2:])[..., :16, :22].astype(np.float32)
    arguments: dict[str, Any] = {
        "input": x, "weight": weight, "bias": None, "stride": [1, 1], "padding": [0, 0], "dilation": [1, 1],
        "transposed": False, "output_padding": [0, 0], "groups": 1,
    }  # fmt: skip
    operation = OPERATIONS["convolution"]
    result = operation.compute(**arguments)
    assert spectra.dtype == np.complex64
    check((fourier.astype(float),), (result,), (operation.bound(u=2.0**-24, normwise=True, **arguments),))


@pytest.mark.parametrize("name", ["aten.relu_.default", "aten::relu", "relu_", "aten.relu.out", "relu"])
def test_lookup_reads_all_forms_of_a_name(name: str) -> None:
    assert lookup(name) is OPERATIONS["relu"]


def test_lookup_knows_what_it_does_not_know() -> None:
    assert lookup("aten.bernoulli_.float") is None
    assert lookup("aten.slice_copy.Tensor") is OPERATIONS["slice"]


def test_a_form_without_a_definition_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"reference view has no form .* takes x, size"):
        OPERATIONS["view"].compute(self=np.zeros(4), dtype="int32")
    with pytest.raises(UsageError, match=r"dropout_p=0.5 is random"):
        OPERATIONS["scaled_dot_product_attention"].compute(query=Q, key=Q, value=Q, dropout_p=0.5)
    with pytest.raises(ShapeError, match=r"take 2 channels, but the input .* has 3"):
        OPERATIONS["convolution"].compute(input=np.zeros((1, 3, 4, 4)), weight=np.zeros((1, 2, 1, 1)), bias=None)
    with pytest.raises(ShapeError, match="does not fit into the padded input"):
        OPERATIONS["convolution"].compute(input=np.zeros((1, 1, 2, 2)), weight=np.zeros((1, 1, 3, 1)), bias=None)
