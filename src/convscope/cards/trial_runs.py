"""Trial runs: determine a model's input by running a copy of it on inputs of several forms, channels and sizes.

Uses torch, through `trial_copy`. Nothing here is timed: the work is bounded by counting, so results do not vary.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

from convscope.cards.card import Form, InputLayer, input_layers, square
from convscope.cards.trial_copy import TrialCopies, TrialRun, Unrunnable, in_structure

T = TypeVar("T")
EDGE, OTHER_EDGE = 64, 96
"""A model that takes pictures of both sizes is taken to take any."""
USUAL = (28, 32, 48, 96, 128, 16, 8, 224)
EDGES = (*USUAL, *range(1, 128), 256, 299, 384, 227, 240, 512, *range(128, 520, 8))
"""Sizes that are tried where `EDGE` does not run, those that networks are usually built for first, large ones last."""
CALLS = 20_000
"""Functions of torch after which no more sizes are tried: some seconds."""
CHANNELS = (3, 1, 4, 2)
"""Tried after those that the layers name: a layer before the first convolution may change them."""
MOST = 16
"""Numbers of channels that are tried."""
TOKENS, STEPS, VOXELS = 16, 64, 16
"""Length of a sequence of integers, of a signal, and edge of a volume."""
ATTENTIVE = (
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.Transformer,
    nn.TransformerDecoderLayer,
    nn.TransformerEncoderLayer,
)
"""Layers of models that may take sequences."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """The input of a model, determined by trial runs."""

    ran: bool
    """Whether one of them came to its end; else this is from the one that came farthest."""
    form: Form = "picture"
    channels: int | None = None
    size: tuple[int, int] | None = None
    """The only size that runs, as far as was tried; None where several do, or none."""
    layers: tuple[InputLayer, ...] = ()
    """The layers that ran, in that order."""


@dataclass(slots=True, eq=False)
class _Best:
    """The attempt that came farthest."""

    attempt: TrialRun = field(default_factory=lambda: TrialRun(False, -1, ()))
    form: Form = "any"
    channels: int = 0
    other_axes: tuple[int, ...] = ()
    """The edges of its input."""

    def better(self, attempt: TrialRun, form: Form, channels: int, other_axes: tuple[int, ...]) -> bool:
        """Keep an attempt if it got further than the best one; returns whether it ran to the end."""
        if (attempt.ran, attempt.calls) > (self.attempt.ran, self.attempt.calls):
            self.attempt, self.form, self.channels, self.other_axes = attempt, form, channels, other_axes
        return attempt.ran


@dataclass(slots=True, eq=False)
class _Known:
    """The results of trial runs of one model."""

    stamp: int
    """Changes with the model's layers."""
    expectation: Expectation | None = None
    looked: bool = False
    runs: dict[str, bool | None] = field(default_factory=dict)
    """By the shapes of inputs."""


_KNOWN: "WeakKeyDictionary[nn.Module, _Known]" = WeakKeyDictionary()


def expectation(model: object) -> Expectation | None:
    """The input that a model expects; None if no copy of it can be run.

    >>> result = expectation(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 26 * 26, 2)))
    >>> result.channels, result.size
    (3, (28, 28))

    Args:
        model: Any model; it is not changed. The answer is remembered until its layers change.
    """
    if not isinstance(model, nn.Module):
        return None
    module: nn.Module = getattr(model, "_orig_mod", model)  # inside of torch.compile's wrapper
    trials = _trials_of(module)
    if not trials.looked:
        trials.expectation, trials.looked = _unless_unrunnable(lambda: _look(TrialCopies(module))), True
    return trials.expectation


def only_pictures(modules: Iterable[nn.Module]) -> bool:
    """Whether none of a model's layers hints at an input that is not a picture."""
    return not any(_hints_of(frozenset(map(type, modules))))


def runs(model: nn.Module, arguments: Sequence[object], keywords: Mapping[str, object]) -> bool | None:
    """Whether a model runs on these inputs; None where no copy of it can be run.

    >>> import torch
    >>> runs(nn.Conv1d(3, 2, 3), [torch.zeros(1, 3, 50)], {}), runs(nn.Conv1d(3, 2, 3), [torch.zeros(1, 1, 3, 50)], {})
    (True, False)

    Args:
        model: Any model; it is not changed. The answer is remembered until its layers change.
        arguments: Its inputs by position: tensors, or structures of them.
        keywords: Its inputs by name.
    """
    model = getattr(model, "_orig_mod", model)
    trials, stamp = _trials_of(model), f"{_described(arguments)} {_described(keywords)}"
    if stamp not in trials.runs:
        trials.runs[stamp] = _unless_unrunnable(lambda: TrialCopies(model).call(arguments, keywords).ran)
    return trials.runs[stamp]


def runs_at(model: nn.Module, channels: int, size: tuple[int, int]) -> bool:
    """Whether a model runs on a picture of this size."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return bool(runs(model, [torch.zeros(1, channels, *size, dtype=dtype)], {}))


def goes_further(model: nn.Module, shape: tuple[int, ...], other: tuple[int, ...] | None) -> bool:
    """Whether a model comes further with an input of this shape than with the other one; shapes without batch axis.

    >>> goes_further(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(5, 2)), (4,), (1, 2, 2))
    True
    """

    def progress(of: tuple[int, ...]) -> tuple[bool, int]:
        attempt = TrialCopies(model).attempt((1, *of))
        return attempt.ran, attempt.calls

    def compare() -> bool:
        return progress(shape) > ((False, 0) if other is None else progress(other))

    return bool(_unless_unrunnable(compare))


def _described(inputs: object) -> str:
    return str(in_structure(inputs, lambda tensor: (tuple(tensor.shape), tensor.dtype)))  # type: ignore[arg-type, return-value]


def _unless_unrunnable(action: Callable[[], T]) -> T | None:
    try:
        return action()
    except Unrunnable:
        return None


def _trials_of(model: nn.Module) -> _Known:
    stamp = hash(tuple((name, type(m), tuple(_shapes(m))) for name, m in model.named_modules()))
    try:
        trials = _KNOWN.get(model)
        if trials is None or trials.stamp != stamp:
            trials = _KNOWN[model] = _Known(stamp)
    except TypeError:  # a model that compares by value cannot be a key
        trials = _Known(stamp)
    return trials


def _shapes(module: nn.Module) -> Iterator[tuple[int, ...]]:
    for tensor in (*module._parameters.values(), *module._buffers.values()):
        if tensor is not None and not nn.parameter.is_lazy(tensor):
            yield tuple(tensor.shape)


@dataclass(frozen=True, slots=True)
class _Hints:
    """The kinds of layers in a model."""

    flat: bool
    """Those of two dimensions, for pictures."""
    signal: bool
    volume: bool
    tokens: bool
    sequence: bool

    rows: bool
    """Norms that take a batch of numbers or of signals."""

    def __iter__(self) -> Iterator[bool]:
        yield from (self.signal, self.volume, self.tokens, self.sequence, self.rows)

    @property
    def forms(self) -> tuple[Form, ...]:
        """The forms that are worth a try, in order."""
        forms: dict[Form, bool] = {"tokens": self.tokens, "signal": self.signal, "volume": self.volume}
        hinted_forms = [form for form, hinted in forms.items() if hinted]
        last: list[Form] = ["any"] if self.sequence else []
        return ("picture", *hinted_forms, *last) if self.flat or not hinted_forms else (*hinted_forms, "picture", *last)


def _hints(model: nn.Module) -> _Hints:
    return _hints_of(frozenset(map(type, model.modules())))


@cache
def _hints_of(kinds: frozenset[type]) -> _Hints:
    bases = {base for kind in kinds for base in kind.__mro__ if base.__module__.startswith("torch.nn")}
    names = {base.__name__ for base in bases if "Norm" not in base.__name__}
    flat, signal, volume = (any(name.endswith(f"{n}d") for name in names) for n in (2, 1, 3))
    tokens = bool(bases & {nn.Embedding, nn.EmbeddingBag})
    return _Hints(flat, signal, volume, tokens, bool(bases & {*ATTENTIVE}), nn.BatchNorm1d in bases)


def _look(trial_copies: TrialCopies) -> Expectation:
    counts = _counts(trial_copies)
    batch = next(n for n in (2, 5, 7, 11) if n not in counts)  # else a batch would pass for channels
    best = _Best()
    for form in _hints(trial_copies.model).forms:
        if _try(trial_copies, best, form, counts, batch):
            break
    if best.form != "picture":
        channels = best.channels if _only(trial_copies, best, batch) else None
        return Expectation(best.attempt.ran, best.form, channels, None, best.attempt.layers)
    return _picture(trial_copies, best, batch, counts)


def _try(trial_copies: TrialCopies, best: _Best, form: Form, counts: list[int], batch: int) -> bool:
    """Try one form; whether it ran."""
    match form:
        case "tokens":
            return best.better(trial_copies.attempt((batch, TOKENS), integers=True), form, 0, ())
        case "any":
            widths = _widths(trial_copies.model)
            return any(_sized(trial_copies, best, batch, [(n, 1) for n in widths if n <= EDGES[-1]])) or any(
                best.better(trial_copies.attempt((batch, TOKENS, width)), form, 0, ()) for width in widths
            )
        case "picture":
            return _try_form(trial_copies, best, form, counts, (batch, EDGE, EDGE)) or any(
                _sized(trial_copies, best, batch, _squares(best))
            )
    return _try_form(trial_copies, best, form, counts, (batch, STEPS) if form == "signal" else (batch, *(VOXELS,) * 3))


def _picture(trial_copies: TrialCopies, best: _Best, batch: int, counts: list[int]) -> Expectation:
    """The channels and the size of a picture."""
    reached = best.attempt.layers
    if not best.attempt.ran and trial_copies.inputs == 1 and input_layers(trial_copies.model):
        edges = USUAL if reached and reached[0].kind == "numbers" else EDGES
        tried = [best.channels] if reached else counts[:3]  # a forward may compare sizes before any layer
        any(_sized(trial_copies, best, batch, ((edge, count) for edge in dict.fromkeys(edges) for count in tried)))
    attempt, edge = best.attempt, (*best.other_axes, 0)[0]
    has_channel_layer = any(layer.kind == "channels" for layer in attempt.layers) and not trial_copies.lazy
    if not attempt.ran:
        return Expectation(False, "picture", best.channels if has_channel_layer else None, None, attempt.layers)
    other_edge = OTHER_EDGE if edge == EDGE else 2 * edge
    fixed = trial_copies.inputs == 1 and not (edge >= EDGE and _runs(trial_copies, best, batch, other_edge))
    channels = best.channels if has_channel_layer or fixed or _only(trial_copies, best, batch) else None
    return Expectation(True, "picture", channels, (edge, edge) if fixed else None, attempt.layers)


def _runs(trial_copies: TrialCopies, best: _Best, batch: int, edge: int) -> bool:
    return trial_copies.attempt((batch, best.channels, edge, edge)).ran


def _only(trial_copies: TrialCopies, best: _Best, batch: int) -> bool:
    """Whether other channels than those of the best attempt do not run."""
    if not best.channels or not best.other_axes:
        return False
    return not best.attempt.ran or not trial_copies.attempt((batch, best.channels + 2, *best.other_axes)).ran


def _try_form(trial_copies: TrialCopies, best: _Best, form: Form, counts: list[int], shape: tuple[int, ...]) -> bool:
    """Try one form with several numbers of channels, those too that the layers turn out to take."""
    (batch, *other_axes), waiting, tried_counts = shape, list(counts), set[int]()
    while waiting and len(tried_counts) < MOST:
        channels = waiting.pop(0)
        if channels in tried_counts:
            continue
        tried_counts.add(channels)
        attempt = trial_copies.attempt((batch, channels, *other_axes))
        if best.better(attempt, form, channels, tuple(other_axes)):
            return True
        waiting += [layer.count for layer in attempt.layers[:1] if layer.kind == "channels"]
    return False


def _sized(trial_copies: TrialCopies, best: _Best, batch: int, sizes: Iterable[tuple[int, int]]) -> Iterator[bool]:
    """Try pictures of these edges and channels, one after the other: whether each ran."""
    first = best.attempt.layers[0] if best.attempt.layers else None
    for edge, channels in sizes:
        if trial_copies.calls > CALLS:
            break
        if first is None or first.kind != "numbers" or first.count != edge:  # else its rows alone would fit
            yield best.better(trial_copies.attempt((batch, channels, edge, edge)), "picture", channels, (edge, edge))


def _squares(best: _Best) -> Iterator[tuple[int, int]]:
    """Edges and channels of the square pictures that have as many numbers as a linear layer takes, if one is first."""
    first = best.attempt.layers[0] if best.attempt.layers else None
    if first is None or first.kind != "numbers":
        return
    for channels in (1, 3):
        edge = square(first, channels)
        if edge:
            yield edge, channels


def _counts(trial_copies: TrialCopies) -> list[int]:
    """Numbers of channels that the layers name: colour first, then in the order of definition, then what is usual."""
    layer_counts = [layer.count for layer in input_layers(trial_copies.model) if layer.kind == "channels"]
    layer_counts += [p.shape[1] for p in trial_copies.model.parameters() if not nn.parameter.is_lazy(p) and p.dim() > 2]
    norms = [getattr(m, "num_features", getattr(m, "num_channels", None)) for m in trial_copies.model.modules()]
    layer_counts += [count for count in norms if isinstance(count, int)]
    return list(
        dict.fromkeys([*([3] if 3 in layer_counts else []), *layer_counts[: MOST // 2], *CHANNELS, *layer_counts])
    )


def _widths(model: nn.Module) -> list[int]:
    """Numbers that a place of a sequence may hold, as recurrent, attention and linear layers take them."""
    names = ("input_size", "embed_dim", "in_features")
    result = (getattr(module, name, None) for module in model.modules() for name in names)
    return list(dict.fromkeys(width for width in result if isinstance(width, int)))[: MOST // 2]
