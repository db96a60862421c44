"""Calling a user's function: its result as arrays, or its error in one sentence with the lines of its traceback.

Uses NumPy. All exceptions of the function are caught; an endless loop is interrupted between two Python instructions.
"""

import contextlib
import ctypes
import io
import linecache
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np

from convscope.checking.operation import CheckedOperation, Form, Results, Values
from convscope.checking.signature import CallPlan, name_of
from convscope.errors import UsageError
from convscope.type_checks import kind_of
from convscope.typing import Array

LINES = 4
"""How many lines of a traceback are shown."""


def _no_watchdog(_seconds: float | None) -> None:
    """Without a child process, `time_limit` is the only limit."""


watchdog: Callable[[float | None], None] = _no_watchdog
"""Called before each call of a function with the seconds that it has left, and after it with None.

The child process of the command line sets it: only the function's own time is limited, not that of the check.
"""


class TimeExceeded(BaseException):
    """Raised inside a function that takes too long; no `except Exception` in it catches this."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """The result of a call, or why it failed."""

    results: Results | None
    """The results by name; None if the call failed."""
    problem: str = ""
    """One sentence: an exception, a result that cannot be read."""
    lines: tuple[str, ...] = ()
    """The lines of the user's file in the traceback."""


@dataclass(slots=True)
class Caller:
    """A function, how it is called, and how much time it has left."""

    function: Callable[..., object]
    plan: CallPlan
    seconds: float
    """Seconds for all calls together."""
    notes: dict[str, None] = field(default_factory=dict)
    late: tuple[Values, tuple[str, ...]] | None = None
    """The arguments of the interrupted call, and the line that was running."""

    def __call__(self, values: Values, form: Form, kind: str, dtype: str = "float64") -> Outcome:
        """One call; never raises what the function raises."""
        positional, keywords = self.plan.arguments(values, form, kind, dtype)
        before = [np.array(a) for a in positional if isinstance(a, np.ndarray)]
        watchdog(self.seconds)
        start = time.perf_counter()
        try:
            with quiet(), time_limit(self.seconds):
                result = self.function(*positional, **keywords)
        except TimeExceeded as error:
            self.seconds = 0.0
            self.late = self.late or (values, own_lines(error.__traceback__, self.function)[-1:])
            return Outcome(None, "It did not finish in time.")
        except (Exception, SystemExit) as error:  # learners' code raises anything
            return Outcome(None, sentence(error), own_lines(error.__traceback__, self.function))
        finally:
            watchdog(None)
        self.seconds = max(self.seconds - (time.perf_counter() - start), 0.01)
        for array, old in zip((a for a in positional if isinstance(a, np.ndarray)), before, strict=True):
            if not np.array_equal(array, old, equal_nan=True):
                self.notes["It modifies its input array in place, so the caller's array changes."] = None
        return self._read(result, values, form)

    def _read(self, result: object, values: Values, form: Form) -> Outcome:
        try:
            arrays = named(result, self.plan, values, form)
        except (TypeError, ValueError) as error:
            return Outcome(None, f"The result cannot be read as numbers: {error}.")
        if not arrays:
            kind = "None; is a `return` missing" if result is None else kind_of(result)
            return Outcome(None, f"{name_of(self.function)} returns {kind}.".replace("missing.", "missing?"))
        results = {}
        for name, array in arrays.items():
            try:
                results[name] = form.take[name](array, values) if name in form.take else array
            except (ValueError, IndexError):
                results[name] = array
        return Outcome(results)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A function called with its arrays in one form and of one kind."""

    caller: Caller
    form: Form
    kind: str

    @property
    def operation(self) -> CheckedOperation:
        """The operation that the function implements."""
        return self.caller.plan.operation

    def __call__(self, values: Values, dtype: str = "float64") -> Outcome:
        """One call."""
        return self.caller(values, self.form, self.kind, dtype)


def named(result: object, plan: CallPlan, values: Values, form: Form) -> Results:
    """A function's result by the names of the operation's results.

    A tuple is several results, or a result and what the function keeps for its backward pass; a dictionary has them by
    name.
    """
    operation = plan.operation
    if isinstance(result, Mapping):
        return {n: _array(result[k]) for n in operation.results for k in result if str(k).lower() in {n, _word(n)}}
    several = list(result) if isinstance(result, tuple) else [result]
    if len(operation.results) == 1:
        return {operation.results[0]: _array(several[0])} if several and several[0] is not None else {}
    if len(several) > 1 or operation.results[0] == "loss":
        pairs = zip(operation.results, several, strict=False)
        return {n: _array(part) for n, part in pairs if part is not None and not isinstance(part, tuple | dict)}
    return {} if result is None else _one_of(_array(result), plan, values, form)


def _one_of(array: Array, plan: CallPlan, values: Values, form: Form) -> Results:
    """The name of a single returned gradient, recognised by its shape."""
    expected = plan.operation.reference(values)
    back = {"dx": "x", "dw": "weight", "db": "bias"}
    for name in expected:
        like = values.get(back[name])
        if like is not None and np.shape(form.give[back[name]](like)) == array.shape:
            return {name: array}
    return {"dx": array}


def _word(name: str) -> str:
    return {"dx": "da", "dw": "dweight", "db": "dbias", "out": "output"}.get(name, name)


def _array(value: object) -> Array:
    detach = getattr(value, "detach", None)
    array = np.asarray(detach().cpu().numpy() if detach else value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"its dtype is {array.dtype}, which is not numeric")
    return array


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the function's prints and warnings, because it is called hundreds of times."""
    with warnings.catch_warnings(), np.errstate(all="ignore"), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


LONGEST = 86_400.0
"""The longest time limit, in seconds: a day."""


def check_limit(seconds: object) -> None:
    """Check a time limit.

    Raises:
        UsageError: it is not a number of seconds that a clock can wait.
    """
    if not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST:
        raise UsageError(f"the time limit is a number of seconds above 0, at most {LONGEST:,.0f}, not {seconds!r}.")


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeExceeded in this thread after a time, between two Python instructions.

    A single instruction that never ends, inside NumPy for instance, is not interrupted; the command line ends the
    process then.
    """
    thread, lock, over = threading.get_ident(), threading.Lock(), threading.Event()
    fired = False

    def interrupt() -> None:
        nonlocal fired
        wait = max(seconds, 0.001)
        while not over.wait(wait):  # more than once: a bare `except:` in the function may swallow one
            with lock:
                if not over.is_set():
                    fired = True
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TimeExceeded))
            wait = 0.2

    threading.Thread(target=interrupt, daemon=True).start()
    try:
        yield
    finally:
        with lock:
            over.set()
    if fired:  # the exception is on its way: let it arrive here
        while True:
            time.sleep(0.001)


def sentence(error: BaseException) -> str:
    """An exception as its name and message."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def own_lines(trace: TracebackType | None, function: Callable[..., object]) -> tuple[str, ...]:
    """The lines of a traceback that are in the function's own file."""
    return own_lines_of(trace, getattr(getattr(function, "__code__", None), "co_filename", ""))


def own_lines_of(trace: TracebackType | None, file: str) -> tuple[str, ...]:
    """The lines of a traceback that are in one file, the innermost last."""
    frames = [frame for frame in traceback.extract_tb(trace) if frame.filename == file]
    return tuple(
        f"{Path(frame.filename).name}, line {frame.lineno}, in {frame.name}: "
        f"{linecache.getline(frame.filename, frame.lineno or 0).strip()}"
        for frame in frames[-LINES:]
    )
