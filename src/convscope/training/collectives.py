"""Collectives: how the processes of a group exchange values, so that all act alike. With one process, each is trivial.

Knows torch.distributed; no models, no data, no files.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self, TypeVar

from torch import distributed

from convscope.errors import ConvscopeError, DataError, TrainingError
from convscope.training.rendezvous import rank, said, world

Value = TypeVar("Value")


def restarted() -> bool:
    """Whether torchrun restarted this group after one of its processes died."""
    return any(gathered(int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))))


def gathered(value: Value) -> list[Value]:
    """The value of every process, by rank.

    >>> gathered("a")
    ['a']
    """
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    with companions():
        distributed.all_gather_object(values, value)
    return values


def first_says(work: Callable[[], Value]) -> Value:
    """The result of `work` in the first process, broadcast to all; an error there is raised in all of them.

    >>> first_says(lambda: 3)
    3
    """
    if world() == 1:
        return work()
    value, refused = _outcome(work) if rank() == 0 else (None, None)
    answer: list[Any] = [(value, Refused.of(refused))]
    with companions():
        distributed.broadcast_object_list(answer, src=0)
    result, error = answer[0]
    if error is not None:
        raise _shared(refused or error)
    return result  # type: ignore[no-any-return]  # it went through a list of objects


def all_do(work: Callable[[], Value]) -> Value:
    """The result of `work`, which every process runs; an error in one of them is raised in all.

    >>> all_do(lambda: 3)
    3
    """
    if world() == 1:
        return work()
    value, refused = _outcome(work)
    for number, theirs in enumerate(gathered(Refused.of(refused))):
        if theirs is not None:
            raise _shared(refused or Refused(f"process {number}: {theirs}", theirs.exit_status))
    return value  # type: ignore[return-value]  # no process raised


class Refused(ConvscopeError):
    """An error raised in another process, with its message."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message, exit_status)
        self.exit_status = exit_status

    @classmethod
    def of(cls, error: ConvscopeError | None) -> Self | None:
        """An error in a form that can be pickled and sent."""
        return None if error is None else cls(str(error), error.exit_status)

    def __str__(self) -> str:
        return str(self.args[0])


def _shared(error: ConvscopeError) -> ConvscopeError:
    error.shared = True
    return error


def _outcome(work: Callable[[], Value]) -> tuple[Value | None, ConvscopeError | None]:
    try:
        return work(), None
    except ConvscopeError as error:
        return None, error


def agree(what: str, facts: Callable[[], Mapping[str, Any]]) -> None:
    """Raise an error in all processes if they differ in a fact.

    >>> agree("training", lambda: {"data": "6bc1"})

    Raises:
        DataError: names the fact and the two processes that differ.
    """
    if world() == 1:
        return
    mine = dict(facts())
    for number, theirs in enumerate(gathered(mine)):
        for name, value in mine.items():
            if theirs[name] != value:
                one, two = sorted((rank(), number))
                differ = f"processes {one} and {two} of this {what} have different {name}"
                raise _shared(DataError(f"{differ}; give every host the same files and arguments."))


@contextmanager
def companions() -> Iterator[None]:
    """Within it, the failure or timeout of another process raises one readable error.

    Raises:
        TrainingError: another process has ended or no longer responds.
    """
    try:
        yield
    except RuntimeError as error:
        if world() == 1 or not any(word in str(error).lower() for word in ("gloo", "nccl", "peer", "timed out")):
            raise
        raise TrainingError(
            f"another process has ended or can no longer be reached ({said(error)}, reported by process {rank()}). "
            "What was saved is intact; continue with --resume."
        ) from None
