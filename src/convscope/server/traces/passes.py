"""Traces: a request becomes a pass through a model, and the newest passes are kept.

Knows `cs.trace`; no routes. Edits and weights of the past are overrides: model and run stay as they are.
"""

import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import Event, Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

import convscope as cs
from convscope.server import schema
from convscope.server.jobs.workers import NOBODY, ClientGone
from convscope.server.session.inputs import Picture, Taken, take
from convscope.server.session.model_handle import ModelHandle
from convscope.server.traces.array_pictures import extent

Find = Callable[[schema.InputRef], Picture]

TERMS = 4096
"""Terms of a sum in one answer."""
KEPT_BYTES = 200_000_000
"""Of all traces that are kept."""
SPARED = 4
"""Clients whose newest trace is kept whatever it takes; of the one who asked last two, for they are compared."""
KEEP = 800.0
"""Megabytes that one trace may take, half of them for what is made again because there was no room to keep it."""
LIGHT = 50_000_000
"""Bytes of a trace that are not counted while it is made, which takes half the time."""
RECOMPUTED = 4
"""Steps of a trace whose recomputation the library keeps."""


@dataclass(eq=False)
class TracePass:
    """One pass through a model, whole or as far as it came."""

    id: str
    opened: ModelHandle
    model: Any = field(repr=False)
    """The model itself, as its run had it then."""
    request: schema.TraceRequest
    taken: Taken
    trace: cs.Trace
    error: str | None
    notes: tuple[str, ...]
    edited: frozenset[str]
    proved: "deque[int]" = field(default_factory=lambda: deque(maxlen=RECOMPUTED))
    """The steps that were recomputed lately."""
    told: schema.TraceInfo | None = field(default=None, repr=False)
    """What the page is told of it; `answers` makes it once."""
    _extents: dict[int, tuple[float, float]] = field(default_factory=dict, repr=False)

    @cached_property
    def size(self) -> int:
        """Bytes that it takes, at most."""
        made = sum(4 * int(np.prod(ref.shape)) for s in self.trace.all_steps if not s.view for ref in s.results)
        return min(made, int(KEEP * 1e6 / 2)) + self.taken.array.nbytes + self.taken.picture.nbytes

    def step(self, id: int) -> cs.Step:  # noqa: A002 - what the page calls it
        """A step by its id.

        Raises:
            HTTPException: 404, it has none of that id.
        """
        if not 0 <= id < len(self.trace.all_steps):
            raise HTTPException(
                404, f"the trace has steps 0 to {len(self.trace.all_steps) - 1}; there is no step {id}."
            )
        return self.trace.all_steps[id]

    def extent(self, step: cs.Step) -> tuple[float, float]:
        """The smallest and largest finite number of a step's whole result."""
        if step.id not in self._extents:
            self._extents[step.id] = extent(step.output)
        return self._extents[step.id]


class TraceStore:
    """The passes that were used last, bounded by the memory they take."""

    def __init__(self, most: int = KEPT_BYTES) -> None:
        self._most = most
        self._kept: OrderedDict[str, TracePass] = OrderedDict()
        self._total = 0
        self._used: OrderedDict[str, list[str]] = OrderedDict()
        """Client -> the ids of the passes it used last, two at most, the newest last."""
        self._base: dict[str, str] = {}
        """Client -> the pass that it compares others with."""
        self._lock = Lock()

    def get(self, id: str, client: str = "", *, base: bool = False) -> TracePass:  # noqa: A002
        """A pass that is kept.

        Args:
            id: Its id.
            client: Who asks.
            base: Whether to compare others with it: then it stays while others come and go.

        Raises:
            HTTPException: 404, it was forgotten, or never made.
        """
        with self._lock:
            if id not in self._kept:
                raise HTTPException(404, "this server does not have that trace any more; ask for it again.")
            if base:
                self._base[client] = id
            self._touch(id, client)
            return self._kept[id]

    def make(
        self, opened: ModelHandle, find: Find, request: schema.TraceRequest, client: str, left: Event | None = None
    ) -> TracePass:
        """The pass of a request: the one that is kept, or a new one.

        Args:
            opened: The model that the request names.
            find: Gives the picture that an input names.
            request: What is asked.
            client: Who asks: the newest trace of each is kept.
            left: Set when the client has left.

        Raises:
            Left: it did, so the pass was not ended.
            HTTPException, ConvscopeError: the request names what is not there, or cannot be meant.
        """
        model, weights = opened.read()
        at = opened.newest() if request.at is None else request.at
        name = _digest(request, weights, at)
        with self._lock:
            found = self._kept.get(name)
        if found is None or found.trace.changed():
            picture = find(request.input)
            self._make_room(opened, client)
            found = _run(picture, request, opened, model=model, name=name, at=at, left=left)
        with self._lock:
            self._forget(name)
            self._kept[name] = found
            self._total += found.size
            self._touch(name, client)
            self._trim()
        return found

    def _make_room(self, opened: ModelHandle, client: str) -> None:
        """Let go what would go anyway once there is another pass of this model."""
        with self._lock:
            coming = next((p.size for p in reversed(self._kept.values()) if p.opened is opened), 0)
            mine = self._used.get(client, [])
            mine[:] = [self._base[client]] if self._base.get(client) in self._kept else mine[-1:]
            self._trim(coming)

    def _touch(self, id: str, client: str) -> None:  # noqa: A002
        """Note that a pass was used; the lock is held. What was made for nobody is kept until somebody comes."""
        if client != NOBODY:
            self._used.pop(NOBODY, None)
        self._kept.move_to_end(id)
        mine = self._used.setdefault(client, [])
        base = self._base.get(client)
        others = [other for other in mine if other != id]
        mine[:] = [*([base] if base in others else others[-1:]), id]
        self._used.move_to_end(client)
        for other in list(self._used)[:-1]:
            del self._used[other][:-1]
        while len(self._used) > SPARED:
            gone, _ = self._used.popitem(last=False)
            self._base.pop(gone, None)

    def _trim(self, coming: int = 0) -> None:
        """Forget the passes that were used longest ago, as far as memory asks for it; the lock is held."""
        spared = {id for ids in self._used.values() for id in ids}  # noqa: A001
        if self._total + coming > self._most:
            for old in [key for key in self._kept if key not in spared]:
                self._forget(old)
                if self._total + coming <= self._most:
                    break

    def _forget(self, id: str) -> None:  # noqa: A002
        gone = self._kept.pop(id, None)
        self._total -= gone.size if gone is not None else 0


def _digest(request: schema.TraceRequest, weights: str, at: int | None) -> str:
    """A name for what a request means: model, weights, input, change and edits."""
    meant = f"{request.model_copy(update={'at': at}).model_dump_json()} {weights}"
    return f"t{hashlib.sha256(meant.encode()).hexdigest()[:24]}"


def _run(
    picture: Picture,
    request: schema.TraceRequest,
    opened: ModelHandle,
    *,
    model: Any,
    name: str,
    at: int | None,
    left: Event | None,
) -> TracePass:
    card = cs.card_of(model)
    taken = take(picture, card, request.change, request.fit)
    overrides: dict[str, NDArray[Any]] = {}
    if at is not None:
        overrides = _past(opened, model, taken, at)
    overrides |= edited(request.edits, {**_parameters(model), **overrides})
    notes = [opened.gone] if opened.gone else []
    keep = None if taken.array.size <= opened.light else KEEP
    trace, error = _recorded(model, taken, overrides, keep, left)
    taken = taken.traced(trace.inputs)
    changed = frozenset(edit.parameter for edit in request.edits)
    done = TracePass(name, opened, model, request, taken, trace, error, tuple(notes), changed)
    if done.size < LIGHT:
        opened.light = max(opened.light, taken.array.size)
    return done


def _recorded(
    model: Any,
    taken: Taken,
    overrides: Mapping[str, NDArray[Any]],
    keep: float | None = KEEP,
    left: Event | None = None,
) -> tuple[cs.Trace, str | None]:
    """The trace, and what failed where it is only part of one."""

    def going_on(_what: str, _done: int, _total: int) -> None:
        if left is not None and left.is_set():
            raise ClientGone

    try:
        return cs.trace(model, taken.value, keep=keep, overrides=overrides or None, progress=going_on), None
    except cs.TraceError as failed:
        if not isinstance(failed.trace, cs.Trace):
            raise
        return failed.trace, str(failed)


def _past(opened: ModelHandle, model: Any, taken: Taken, at: int) -> dict[str, NDArray[Any]]:
    """The weights after so many training steps, of those parameters that a step reads."""
    weights = opened.weights_at(at)
    if not opened.used:
        steps = _recorded(model, taken, {})[0].all_steps
        opened.used = frozenset(ref.name for step in steps for _, _, ref in step.refs() if ref.kind == "parameter")
    return {name: value for name, value in weights.items() if name in opened.used}


def _parameters(model: Any) -> dict[str, Any]:
    """Parameters and buffers by name, as they are."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def edited(edits: Sequence[schema.Edit], parameters: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The parameters that are edited, with their new numbers.

    >>> weight = np.zeros((2, 1, 1, 2), np.float32)
    >>> edit = schema.Edit(parameter="weight", cell=[1, 0, 0], values=[3.0, 4.0])
    >>> edited([edit], {"weight": weight})["weight"].ravel().tolist()
    [0.0, 0.0, 3.0, 4.0]

    Raises:
        HTTPException: 404, no such parameter; 422, it has no such cell, or the values do not fill it.
    """
    changed: dict[str, NDArray[Any]] = {}
    for edit in edits:
        if edit.parameter not in parameters:
            near = ", ".join(list(parameters)[:20])
            raise HTTPException(404, f"the model has no parameter {edit.parameter!r}; it has {near}.")
        if edit.parameter not in changed:
            now = parameters[edit.parameter]
            plain = now.detach().cpu().float().numpy() if hasattr(now, "detach") else np.asarray(now)
            changed[edit.parameter] = np.array(plain)
        _put(changed[edit.parameter], edit)
    return changed


def _put(array: NDArray[Any], edit: schema.Edit) -> None:
    cell, shape = tuple(edit.cell), array.shape
    inside = len(cell) <= len(shape) and all(0 <= i < n for i, n in zip(cell, shape, strict=False))
    if not inside:
        raise HTTPException(
            422, f"{edit.parameter} has the shape {_size(shape)}, and no cell {_size(cell, ', ')} in it."
        )
    count = int(np.prod(shape[len(cell) :]))
    if len(edit.values) != count:
        raise HTTPException(
            422,
            f"the cell {_size(cell, ', ') or '()'} of {edit.parameter} holds {count:,} numbers, "
            f"and {len(edit.values):,} were given.",
        )
    with np.errstate(all="ignore"):
        array[cell] = np.asarray(edit.values).astype(array.dtype).reshape(shape[len(cell) :])


def _size(shape: Sequence[int], sign: str = "x") -> str:
    return sign.join(map(str, shape))
