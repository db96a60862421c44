"""Prefetch: compute the next items in a background thread while the caller uses the current one."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

DEPTH = 3


def prefetch(make: Callable[[Item], Made], items: Iterable[Item], depth: int = DEPTH) -> Generator[Made, None, None]:
    """`make(item)` for every item in order, computing up to `depth` of them in advance.

    >>> list(prefetch(str, [1, 2, 3]))
    ['1', '2', '3']
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    waiting: deque[Future[Made]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
