"""Agreement: what the processes of a group tell each other, so that all do the same. Alone, all answer at once.

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
    """Whether torchrun has started this group anew after one of its processes died."""
    return any(gathered(int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))))


def gathered(mine: Value) -> list[Value]:
    """What every process has, by its number.

    >>> gathered("a")
    ['a']
    """
    if world() == 1:
        return [mine]
    told: list[Any] = [None] * world()
    with companions():
        distributed.all_gather_object(told, mine)
    return told


def first_says(work: Callable[[], Value]) -> Value:
    """What the first process makes of `work`, which the others do not do; what it refuses all refuse.

    >>> first_says(lambda: 3)
    3
    """
    if world() == 1:
        return work()
    value, refused = _outcome(work) if rank() == 0 else (None, None)
    answer: list[Any] = [(value, Refused.of(refused))]
    with companions():
        distributed.broadcast_object_list(answer, src=0)
    told, theirs = answer[0]
    if theirs is not None:
        raise _shared(refused or theirs)
    return told  # type: ignore[no-any-return]  # it went through a list of objects


def all_do(work: Callable[[], Value]) -> Value:
    """What this process makes of `work`, which all do; where one refuses, all do.

    >>> all_do(lambda: 3)
    3
    """
    if world() == 1:
        return work()
    value, refused = _outcome(work)
    for number, theirs in enumerate(gathered(Refused.of(refused))):
        if theirs is not None:
            raise _shared(refused or Refused(f"process {number}: {theirs}", theirs.exit_status))
    return value  # type: ignore[return-value]  # nobody refused


class Refused(ConvscopeError):
    """What another process has refused, in its words."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message, exit_status)
        self.exit_status = exit_status

    @classmethod
    def of(cls, error: ConvscopeError | None) -> Self | None:
        """An error so that it can be sent."""
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
    """Refuse to go on where processes differ in a fact.

    >>> agree("training", lambda: {"data": "6bc1"})

    Raises:
        DataError: says in what, and who.
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
    """Within it the death or silence of another process is a sentence.

    Raises:
        TrainingError: another process has ended, or says nothing any more.
    """
    try:
        yield
    except RuntimeError as error:
        if world() == 1 or not any(sign in str(error).lower() for sign in ("gloo", "nccl", "peer", "timed out")):
            raise
        raise TrainingError(
            f"another process has ended or cannot be reached any more ({said(error)}, says process {rank()}). What "
            "was saved is intact; go on with --resume."
        ) from None
