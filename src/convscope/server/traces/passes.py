"""Forward passes: run a model as a request asks, and cache the newest passes.

Uses `cs.trace`; no routes. Edits and earlier weights are passed as overrides, so model and run are never changed.
"""

import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

import convscope as cs
from convscope.server.jobs import NOBODY, stop_if_left
from convscope.server.session.inputs import PageInput, Picture, take
from convscope.server.session.model_handle import ModelHandle
from convscope.server.session.schema import InputRef
from convscope.server.traces.array_pictures import extent, typical
from convscope.server.traces.schema import Edit, TraceInfo, TraceRequest
from convscope.typing import Array

Find = Callable[[InputRef], Picture]

TERMS = 4096
"""Maximum number of terms of a sum in one response."""
KEPT_BYTES = 200_000_000
"""Memory limit of all cached traces."""
SPARED = 4
"""Number of clients whose newest trace is never evicted; the most recent client keeps two, which it may compare."""
KEEP = 800.0
"""Memory limit of one trace in megabytes; half of it is for tensors that are recomputed for lack of room."""
LIGHT = 50_000_000
"""Bytes below which a trace is recorded without counting memory, which is twice as fast."""
RECOMPUTED = 4
"""Number of steps of a trace whose recomputation the library caches."""


@dataclass(eq=False)
class TracePass:
    """One forward pass, complete or up to the step that failed."""

    id: str
    opened: ModelHandle
    model: cs.Module | None = field(repr=False)
    """The model, with the weights it had at the time; None for a training step."""
    request: TraceRequest
    model_input: PageInput
    trace: cs.Trace
    error: str | None
    notes: tuple[str, ...]
    edited: frozenset[str]
    proved: "deque[int]" = field(default_factory=lambda: deque(maxlen=RECOMPUTED))
    """The ids of the steps recomputed most recently."""
    info: TraceInfo | None = field(default=None, repr=False)
    """Cached description for the page, made by `responses.trace_info`."""
    blocked: dict[int, NDArray[np.bool_]] = field(default_factory=dict, repr=False)
    """In a backward pass: step -> the cells that are 0 because an activation did not pass."""
    _extents: dict[int, tuple[float, float]] = field(default_factory=dict, repr=False)
    _typical: dict[int, float] = field(default_factory=dict, repr=False)

    @cached_property
    def size(self) -> int:
        """Upper bound of its memory in bytes."""
        nbytes = sum(4 * int(np.prod(ref.shape)) for s in self.trace.all_steps if not s.view for ref in s.results)
        return min(nbytes, int(KEEP * 1e6 / 2)) + self.model_input.array.nbytes + self.model_input.picture.nbytes

    def step(self, id: int) -> cs.Step:  # noqa: A002 - the name in the API
        """A step by its id.

        Raises:
            HTTPException: 404, unknown id.
        """
        if not 0 <= id < len(self.trace.all_steps):
            raise HTTPException(
                404, f"the trace has steps 0 to {len(self.trace.all_steps) - 1}; there is no step {id}."
            )
        return self.trace.all_steps[id]

    def extent(self, step: cs.Step) -> tuple[float, float]:
        """The minimum and maximum of the finite numbers of a step's whole result."""
        if step.id not in self._extents:
            self._extents[step.id] = extent(step.output)
        return self._extents[step.id]

    def typical(self, step: cs.Step) -> float:
        """The magnitude that 99 % of the finite numbers of a step's result do not exceed."""
        if step.id not in self._typical:
            self._typical[step.id] = typical(step.output)
        return self._typical[step.id]


class TraceStore:
    """A least-recently-used cache of passes, limited by their memory."""

    def __init__(self, max_bytes: int = KEPT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, TracePass] = OrderedDict()
        self._total = 0
        self._used: OrderedDict[str, list[str]] = OrderedDict()
        """Client -> the ids of its most recent passes, at most two, the newest last."""
        self._base: dict[str, str] = {}
        """Client -> the id of the pass it compares others with."""
        self._lock = Lock()

    def get(self, id: str, client: str = "", *, base: bool = False) -> TracePass:  # noqa: A002
        """A cached pass.

        Args:
            id: The pass's id.
            client: The client that asks.
            base: Whether the client compares others with this pass, which keeps it in the cache meanwhile.

        Raises:
            HTTPException: 404, it was evicted, or never made.
        """
        with self._lock:
            if id not in self._kept:
                raise HTTPException(404, "the server no longer has this trace; request it again.")
            if base:
                self._base[client] = id
            self._touch(id, client)
            return self._kept[id]

    def make(self, opened: ModelHandle, find: Find, request: TraceRequest, client: str) -> TracePass:
        """The pass of a request: from the cache, or a new one.

        Args:
            opened: The model that the request names.
            find: Returns the picture of an input reference.
            request: The request.
            client: The client that asks; its newest trace stays in the cache.

        Raises:
            ClientGone: the client disconnected, so the pass was aborted.
            HTTPException, ConvscopeError: the request is invalid or names something unknown.
        """
        model, weights = opened.read()
        step = opened.newest() if request.at is None else request.at
        name = _digest(request, weights, step)
        with self._lock:
            trace_pass = self._kept.get(name)
        if trace_pass is None or trace_pass.trace.changed():
            picture = find(request.input)
            self._make_room(opened, client)
            trace_pass = _run(picture, request, opened, model=model, name=name, step=step)
        return self._put(trace_pass, client)

    def keep(self, name: str, make: Callable[[], TracePass], client: str) -> TracePass:
        """A pass with gradients by its id: from the cache, or as `make` records it."""
        with self._lock:
            trace_pass = self._kept.get(name)
        return self._put(make() if trace_pass is None else trace_pass, client)

    def _put(self, trace_pass: TracePass, client: str) -> TracePass:
        name = trace_pass.id
        with self._lock:
            self._forget(name)
            self._kept[name] = trace_pass
            self._total += trace_pass.size
            self._touch(name, client)
            self._trim()
        return trace_pass

    def _make_room(self, opened: ModelHandle, client: str) -> None:
        """Evict, before a pass runs, what would be evicted after it anyway, to lower the peak of memory."""
        with self._lock:
            # the new pass will be about as large as the model's last one
            coming = next((p.size for p in reversed(self._kept.values()) if p.opened is opened), 0)
            recent = self._used.get(client, [])
            recent[:] = [self._base[client]] if self._base.get(client) in self._kept else recent[-1:]
            self._trim(coming)

    def _touch(self, id: str, client: str) -> None:  # noqa: A002
        """Mark a pass as used; the caller holds the lock."""
        if client != NOBODY:  # prefetched passes are protected only until the first client comes
            self._used.pop(NOBODY, None)
        self._kept.move_to_end(id)
        recent = self._used.setdefault(client, [])
        # a client keeps this pass and one more: the one it compares with, or else the one before
        base = self._base.get(client)
        earlier = [pass_id for pass_id in recent if pass_id != id]
        recent[:] = [*([base] if base in earlier else earlier[-1:]), id]
        self._used.move_to_end(client)
        # only the most recent client keeps two passes
        for earlier_client in list(self._used)[:-1]:
            del self._used[earlier_client][:-1]
        while len(self._used) > SPARED:
            oldest, _ = self._used.popitem(last=False)
            self._base.pop(oldest, None)

    def _trim(self, coming: int = 0) -> None:
        """Evict the least recently used passes until memory is within its limit; the caller holds the lock."""
        spared = {id for ids in self._used.values() for id in ids}  # noqa: A001
        if self._total + coming > self._max_bytes:
            for old in [key for key in self._kept if key not in spared]:
                self._forget(old)
                if self._total + coming <= self._max_bytes:
                    break

    def _forget(self, id: str) -> None:  # noqa: A002
        removed = self._kept.pop(id, None)
        self._total -= removed.size if removed is not None else 0


def _digest(request: TraceRequest, weights: str, step: int | None) -> str:
    """The trace id of a request: a digest of model, weights, input, change and edits."""
    content = f"{request.model_copy(update={'at': step}).model_dump_json()} {weights}"
    return f"t{hashlib.sha256(content.encode()).hexdigest()[:24]}"


def _run(
    picture: Picture,
    request: TraceRequest,
    opened: ModelHandle,
    *,
    model: cs.Module,
    name: str,
    step: int | None,
) -> TracePass:
    card = cs.card_of(model)
    model_input = take(picture, card, request.change, request.fit)
    overrides = overrides_of(opened, model, model_input, step, request.edits)
    notes = [opened.gone] if opened.gone else []
    keep = None if model_input.array.size <= opened.light else KEEP
    trace, error = _recorded(model, model_input, overrides, keep)
    model_input = model_input.traced(trace.inputs)
    changed = frozenset(edit.parameter for edit in request.edits)
    trace_pass = TracePass(name, opened, model, request, model_input, trace, error, tuple(notes), changed)
    if trace_pass.size < LIGHT:
        opened.light = max(opened.light, model_input.array.size)
    return trace_pass


def overrides_of(
    opened: ModelHandle, model: cs.Module, model_input: PageInput, step: int | None, edits: Sequence[Edit]
) -> dict[str, Array]:
    """The parameters that a request changes: those of training step `step`, then the edited ones."""
    overrides = {} if step is None else _past(opened, model, model_input, step)
    return overrides | edited(edits, {**_parameters(model), **overrides})


def _recorded(
    model: cs.Module, model_input: PageInput, overrides: Mapping[str, Array], keep: float | None = KEEP
) -> tuple[cs.Trace, str | None]:
    """Run the model; returns the trace, and the error's message if the pass failed part of the way."""
    try:
        return cs.trace(model, model_input.value, keep=keep, overrides=overrides or None, progress=stop_if_left), None
    except cs.TraceError as failed:
        if not isinstance(failed.trace, cs.Trace):
            raise
        return failed.trace, str(failed)


def _past(opened: ModelHandle, model: cs.Module, model_input: PageInput, training_step: int) -> dict[str, Array]:
    """The weights after training step `training_step` of those parameters that the model's steps read."""
    weights = opened.weights_at(training_step)
    if not opened.used:
        steps = _recorded(model, model_input, {})[0].all_steps
        opened.used = frozenset(ref.name for step in steps for _, _, ref in step.refs() if ref.kind == "parameter")
    return {name: value for name, value in weights.items() if name in opened.used}


def _parameters(model: cs.Module) -> dict[str, object]:
    """The model's parameters and buffers by name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def edited(edits: Sequence[Edit], parameters: Mapping[str, object]) -> dict[str, Array]:
    """The edited parameters by name, with their new values.

    >>> weight = np.zeros((2, 1, 1, 2), np.float32)
    >>> edit = Edit(parameter="weight", cell=[1, 0, 0], values=[3.0, 4.0])
    >>> edited([edit], {"weight": weight})["weight"].ravel().tolist()
    [0.0, 0.0, 3.0, 4.0]

    Raises:
        HTTPException: 404, unknown parameter; 422, the cell does not exist, or the number of values is wrong.
    """
    changed: dict[str, Array] = {}
    for edit in edits:
        if edit.parameter not in parameters:
            names = ", ".join(list(parameters)[:20])
            raise HTTPException(404, f"the model has no parameter {edit.parameter!r}; it has {names}.")
        if edit.parameter not in changed:
            value = parameters[edit.parameter]
            plain = value.detach().cpu().float().numpy() if hasattr(value, "detach") else np.asarray(value)
            changed[edit.parameter] = np.array(plain)
        _put(changed[edit.parameter], edit)
    return changed


def _put(array: Array, edit: Edit) -> None:
    cell, shape = tuple(edit.cell), array.shape
    inside = len(cell) <= len(shape) and all(0 <= i < n for i, n in zip(cell, shape, strict=False))
    if not inside:
        raise HTTPException(
            422, f"{edit.parameter} has the shape {_size(shape)}, so it has no cell {_size(cell, ', ')}."
        )
    count = int(np.prod(shape[len(cell) :]))
    if len(edit.values) != count:
        raise HTTPException(
            422,
            f"the cell {_size(cell, ', ') or '()'} of {edit.parameter} holds {count:,} numbers, "
            f"but {len(edit.values):,} were sent.",
        )
    with np.errstate(all="ignore"):
        array[cell] = np.asarray(edit.values).astype(array.dtype).reshape(shape[len(cell) :])


def _size(shape: Sequence[int], sign: str = "x") -> str:
    return sign.join(map(str, shape))
