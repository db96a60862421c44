"""Operation: what an operation means, and how far a sound kernel may be from it.

Uses precision and errors; no operation in particular.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeAlias, TypeVar

import numpy as np

from convscope.errors import ConvscopeError, UsageError
from convscope.reference.precision import largest, smallest
from convscope.typing import Array, Numbers

P = ParamSpec("P")
T = TypeVar("T")
Result: TypeAlias = Array | tuple[Array | None, ...]
"""What an operation makes: an array, or several in ATen's order; None is an output for the kernel's own use."""
Errors: TypeAlias = Numbers | tuple[Numbers | None, ...]
"""How far a kernel may be from each number of a result: one number for all cells, or one for each."""
Arguments: TypeAlias = Mapping[str, Any]
"""An operation's arguments by name: arrays for tensors, numbers, lists of them and texts as its schema in ATen says."""

OURS = 2.0**-53
"""The reference rounds too: float64. It is added to the kernel's own unit roundoff."""

NAMES = {
    "self": "x", "input": "x", "min": "low", "max": "high", "min_val": "low", "max_val": "high",
    "pad": "padding", "ord": "order", "num_groups": "group",
    "N": "images", "C": "channels", "HxW": "cells",
    "mat": "left", "mat1": "left", "batch1": "left",
    "mat2": "right", "batch2": "right", "vec": "right", "tensor": "right", "other": "right",
}  # fmt: skip
"""ATen's names for arguments that a function here calls otherwise: Python's own words, several names for one role."""

SILENT = {
    "dtype", "device", "layout", "pin_memory", "memory_format", "non_blocking", "generator", "implicit", "stable",
    "sorted", "cudnn_enabled", "cudnn_enable", "benchmark", "deterministic", "allow_tf32", "half_to_float", "sparse",
    "scale_grad_by_freq", "sparse_grad", "enable_gqa", "padding_idx", "momentum",
}  # fmt: skip
"""Arguments that no output depends on, or that another argument implies. A function with such a parameter gets it."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: its definition in float64 and the error that a floating-point kernel may make.

    >>> double = Operation(lambda x: 2 * x, lambda y, u, **arguments: u * abs(y))
    >>> double.compute(self=np.array([1.5, 2.0]))
    array([3., 4.])
    >>> bool((double.bound(self=np.array([1.5, 2.0]), u=2.0**-24) < 3e-7).all())
    True
    """

    forward: Callable[..., Result]
    """The definition; takes ATen's arguments by name, after `NAMES`."""
    error: Callable[..., Errors]
    """(result, u, the same arguments) -> how far a kernel may be from the result: a number, an array, or a tuple.

    An error with a parameter `u_out` knows that kernels calculate in a wider type than they store in; for the others
    every rounding counts as one to the narrower type.
    """
    normwise: Callable[..., Errors] | None = None
    """The error of kernels that go through another basis (Winograd, Fourier), where the operation has such."""
    moves: bool = False
    """Whether it only moves numbers, whatever their type."""
    widens: bool = False
    """Whether it takes arrays in the type that they have, and makes float64 of some of their numbers at a time."""

    def compute(self, /, **arguments: object) -> Result:
        """The result, in float64 (integers and booleans as they are).

        Args:
            **arguments: As the ATen schema names them; arrays for tensors, of any float width.

        Returns:
            An array, or a tuple in ATen's order; None stands for an output that is the kernel's own affair.

        Raises:
            UsageError: the operation has no such argument, or not in this form, or cannot take its value.
        """
        with np.errstate(all="ignore"):
            return self._result_of(prepared(self.forward, arguments, widen=not self.widens))

    def bound(
        self,
        /,
        *,
        u: float,
        u_out: float = 0.0,
        normwise: bool = False,
        result: Result | None = None,
        **arguments: object,
    ) -> Result:
        """How far the output of any sound kernel may be from `compute`, cell by cell.

        Args:
            u: Unit roundoff of the type the kernel calculates in: 2**-24 for float32, 2**-53 for float64.
            u_out: Unit roundoff of the output's type, where it is narrower (2**-8: bfloat16, 2**-11: float16).
            normwise: The bound of Winograd and Fourier kernels, where the operation has one.
            result: What `compute` gave for the same arguments, to save the time of computing it again.
            **arguments: As for `compute`.

        Returns:
            An array that broadcasts to the output, or a tuple of them; 0 where only the same number will do, which
            is so wherever the result is an infinity or no number; inf where ties leave an index open, and where the
            result may be too large for the type.

        Raises:
            UsageError: as `compute`.
        """
        prepared_arguments = prepared(self.forward, arguments, widen=not self.widens)
        with np.errstate(all="ignore"):
            outputs = self._result_of(prepared_arguments) if result is None else result
            return self._bound(outputs, prepared_arguments, u, u_out, normwise=normwise)

    def evaluate(
        self,
        /,
        roundoffs: Sequence[tuple[float, float]],
        *,
        normwise: bool = False,
        lean: bool = False,
        **arguments: object,
    ) -> list[tuple[Array, Array] | None]:
        """The result and its bound for each output, from arguments that are widened to float64 only once.

        Args:
            roundoffs: `u` and `u_out` of each output, as for `bound`.
            normwise: As for `bound`.
            lean: Leave numbers that are only moved in the type they have.
            **arguments: As for `compute`.

        Raises:
            UsageError: as `compute`.
        """
        prepared_arguments = prepared(self.forward, arguments, widen=not (self.widens or (lean and self.moves)))
        with np.errstate(all="ignore"):
            outputs = self._result_of(prepared_arguments)
            values = outputs if isinstance(outputs, tuple) else (outputs,)
            bounds = {}
            for u, u_out in set(roundoffs[: len(values)]):
                bound = self._bound(outputs, prepared_arguments, u, u_out, normwise=normwise)
                bounds[u, u_out] = bound if isinstance(bound, tuple) else (bound,)
        evaluated: list[tuple[Array, Array] | None] = []
        for place, (value, roundoff) in enumerate(zip(values, roundoffs, strict=False)):
            limit = bounds[roundoff][place]
            evaluated.append(None if value is None else (value, np.asarray(0.0 if limit is None else limit)))
        return evaluated

    def _bound(
        self, outputs: Result, prepared_arguments: Mapping[str, object], u: float, u_out: float, *, normwise: bool
    ) -> Result:
        error_of = self.normwise if normwise and self.normwise else self.error
        if "u_out" in _signature(error_of).parameters:
            error = error_of(outputs, u + OURS, u_out=u_out, **prepared_arguments)
        else:
            error = error_of(outputs, max(u, u_out) + OURS, **prepared_arguments)
        exact = isinstance(error, float) and error == 0.0
        if not isinstance(outputs, tuple):
            assert not isinstance(error, tuple), "one result has one error"
            return _settle(error, outputs, u, 0.0 if exact else u_out)
        errors = error if isinstance(error, tuple) else (error,) * len(outputs)
        return tuple(
            None if y is None else _settle(e, y, u, 0.0 if exact else u_out)
            for e, y in zip(errors, outputs, strict=True)
        )

    def _result_of(self, prepared_arguments: Mapping[str, object]) -> Result:
        try:
            return _result(self.forward(**prepared_arguments))
        except ConvscopeError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise UsageError(f"the reference {name_of(self.forward)} cannot take these arguments: {error}.") from error


def exact(_result: object, _u: float, **_: object) -> float:
    """The error of operations that move, compare or select numbers: none."""
    return 0.0


def ulps(count: float) -> Callable[..., Numbers]:
    """The error of operations whose result went through `count` roundings: count·u·|result|; integers are exact."""
    return lambda y, u, **_: count * u * np.abs(y) if y.dtype.kind == "f" else 0.0


def wide(error: Callable[..., T]) -> Callable[..., T]:
    """`error`, of kernels that calculate in float32 even where their tensors are float16 or bfloat16."""

    def wide_error(y: Result, u: float, u_out: float = 0.0, **arguments: object) -> T:
        return error(y, u, **arguments)

    return wide_error


def flushing(error: Callable[..., Any], magnitude: Callable[..., Any], *factors: str) -> Callable[..., Any]:
    """`error`, of kernels that may treat subnormal factors of bfloat16 as 0.

    Processors multiply pairs of bfloat16 numbers this way (Intel, Instruction Set Extensions Programming Reference,
    VDPBF16PS, which rounds denormal inputs to 0); a product then loses all of its magnitude.

    Args:
        error: The error of the operation.
        magnitude: The operation itself: a sum of products of the factors, of which it takes the magnitudes.
        *factors: The names of the arguments that are multiplied.
    """

    def flushing_error(y: Any, u: float, u_out: float = 0.0, **arguments: Any) -> Any:
        narrow = {"u_out": u_out} if "u_out" in _signature(error).parameters else {}
        bound = error(y, u, **narrow, **arguments)
        if u_out != 2.0**-8:
            return bound
        sizes = {name: np.abs(arguments[name]) for name in factors}
        normal = {name: np.where(size < smallest(u_out), 0.0, size) for name, size in sizes.items()}
        if all(np.array_equal(sizes[name], normal[name], equal_nan=True) for name in factors):
            return bound
        full, flushed = (magnitude(**{**arguments, **factor_values}) for factor_values in (sizes, normal))
        if not isinstance(bound, tuple):
            return bound + np.abs(full - flushed)  # which a negative alpha makes a negative number
        return tuple(b if b is None else b + np.abs(w - k) for b, w, k in zip(bound, full, flushed, strict=True))

    return flushing_error


def first(function: Callable[P, tuple[T, *tuple[object, ...]]]) -> Callable[P, T]:
    """`function` (or an error) of several outputs, as an operation that returns the first alone."""

    @wraps(function)
    def only(*arguments: P.args, **named: P.kwargs) -> T:
        return function(*arguments, **named)[0]

    return only


def prepared(
    forward: Callable[..., object], arguments: Mapping[str, object], *, widen: bool = True
) -> dict[str, object]:
    """`arguments` as `forward` takes them: our names, float64, without those that change no value."""
    signature = _signature(forward)
    renamed = {
        name if name in signature.parameters else NAMES.get(name, name): value for name, value in arguments.items()
    }
    accepted = {n: v for n, v in renamed.items() if n in signature.parameters or n not in SILENT}
    prepared_arguments = {n: _widened(v) for n, v in accepted.items()} if widen else accepted
    try:
        signature.bind(**prepared_arguments)
    except TypeError as error:
        names = ", ".join(signature.parameters)
        raise UsageError(
            f"the reference {name_of(forward)} has no form for these arguments ({error}); it takes {names}."
        ) from None
    return prepared_arguments


def name_of(function: Callable[..., object]) -> str:
    """What to call a function in a message."""
    return str(getattr(getattr(function, "func", function), "__name__", "operation"))


@lru_cache(maxsize=1024)
def _signature(function: Callable[..., object]) -> inspect.Signature:
    return inspect.signature(function)


def _widened(value: object) -> object:
    if isinstance(value, np.ndarray | np.floating):
        narrow = value.dtype.kind == "f" and value.dtype != np.float64
        with np.errstate(invalid="ignore"):  # memory that nothing was written to may hold a signalling nan
            return value.astype(np.float64) if narrow else value
    if isinstance(value, list | tuple) and type(value) in {list, tuple}:  # what parts of a row share is wide already
        return type(value)(map(_widened, value)) if any(isinstance(v, np.ndarray) for v in value) else value
    return value


def _result(result: object) -> Result:
    if isinstance(result, tuple | list):
        return tuple(None if r is None else np.asarray(r) for r in result)
    return np.asarray(result)


def _settle(error: Numbers | None, y: Array, u: float, u_out: float) -> Array:
    """With second-order terms (1 %), a narrower output's rounding, under- and overflow; 0 where y is not finite."""
    if isinstance(error, float) and error == 0.0:
        return np.zeros(())
    if y.dtype.kind != "f" or not y.size:
        return np.asarray(error)
    size = np.abs(y)
    total = 1.01 * np.asarray(error)
    if u_out:
        total = total + u_out * size
    tiny = smallest(u) + (smallest(u_out) if u_out else 0.0)
    lossy = total.min() > 0 or (total > 0) | ((size > 0) & (size < tiny))
    total = total + tiny * lossy
    if size.max() + total.max() < largest(u_out or u):  # false for NaN
        return total
    return np.where(np.isfinite(y), np.where(size + total >= largest(u_out or u), np.inf, total), 0.0)


def moved(function: Callable[..., Result]) -> Operation:
    """An operation whose results are copies of its operands, without rounding."""
    return Operation(function, exact)
