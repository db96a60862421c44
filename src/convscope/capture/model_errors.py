"""Model errors: explain an exception raised by a model, and where it happened, in one sentence.

Knows torch's layers and their expected inputs; runs nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from convscope.capture.recorder import Recorder
from convscope.capture.session import TracingSession
from convscope.cards.card import expected_input
from convscope.cards.card_inference import card_of, entering
from convscope.errors import InputError, TraceError
from convscope.traces.trace import Trace


def failure(session: TracingSession, error: Exception, recorder: Recorder, trace: Trace | None) -> TraceError:
    """The error to raise instead of the model's exception."""
    known = recorder.failed if recorder.failed is not None and recorder.failed[0] is error else None
    path, arguments = (known[1], known[2]) if known else ("", ())
    module = session.subject.modules[path]
    given = next((value for value in arguments if isinstance(value, Tensor)), None)
    where = f"in {path} ({type(module).__name__})" if path else f"in {type(module).__name__}.forward"
    unfit = _unfit(module, given) if given is not None else ""
    image = next(iter(session.intake.tensors.values()))
    if unfit:
        expected = expected_input(card_of(session.subject.model), entering(session.subject.model))
        said = (
            f"the model cannot take an input of shape {tuple(image.shape)}: {path or 'the layer'} "
            f"({type(module).__name__}) {unfit}; {expected}. cs.load_image(path, like=model) prepares a picture so."
        )
        return InputError(said, path, trace)
    if isinstance(error, TypeError) and not path and not recorder.tape.calls:
        return TraceError(
            f"the model cannot be called with {_calls(session)}: {_first_line(error)}; "
            "pass a tuple for several inputs, or a dict for named inputs.",
            path,
            trace,
        )
    return TraceError(f"the model failed {where}: {type(error).__name__}: {_first_line(error)}", path, trace)


def _calls(session: TracingSession) -> str:
    names = list(session.intake.keywords)
    if names:
        return f"inputs named {', '.join(names)}"
    count = len(session.intake.arguments)
    return "one input" if count == 1 else f"{count} inputs"


def _unfit(module: nn.Module, received: Tensor) -> str:
    """How the input violates a layer's expectations, or ""."""
    shape = tuple(received.shape)
    reason = next((check(module, shape) for kind, check in EXPECTS.items() if isinstance(module, kind)), "")
    weight = getattr(module, "weight", None)
    if not reason and isinstance(weight, Tensor) and received.is_floating_point() and weight.dtype != received.dtype:
        return f"holds {weight.dtype} but received {received.dtype}".replace("torch.", "")
    return reason


def _convolution(module: nn.modules.conv._ConvNd, shape: tuple[int, ...]) -> str:
    kernel = module.kernel_size
    if len(shape) not in {len(kernel) + 1, len(kernel) + 2}:
        return f"expects {len(kernel) + 2} axes, the batch first, but received {shape}"
    channels = shape[-len(kernel) - 1]
    if channels != module.in_channels:
        return f"expects {_count(module.in_channels)}, but received {channels}"
    small = any(n < k for n, k in zip(shape[-len(kernel) :], kernel, strict=True))
    return f"has a kernel of {kernel}, larger than its input {shape}" if small else ""


def _linear(module: nn.Linear, shape: tuple[int, ...]) -> str:
    fits = shape[-1:] == (module.in_features,)
    return "" if fits else f"expects {module.in_features:,} numbers in the last axis, but received {shape}"


def _batch_norm(module: nn.modules.batchnorm._NormBase, shape: tuple[int, ...]) -> str:
    fits = len(shape) > 1 and shape[1] == module.num_features
    return "" if fits else f"expects {_count(module.num_features)}, but received {shape}"


def _layer_norm(module: nn.LayerNorm, shape: tuple[int, ...]) -> str:
    wanted = tuple(module.normalized_shape)
    return "" if shape[-len(wanted) :] == wanted else f"expects {wanted} as its last axes, but received {shape}"


def _pooling(module: nn.modules.pooling._MaxPoolNd | nn.modules.pooling._AvgPoolNd, shape: tuple[int, ...]) -> str:
    return f"has a kernel of {module.kernel_size}, larger than its input {shape}"


def _count(channels: int) -> str:
    return f"{channels} channel{'s' * (channels != 1)}"


EXPECTS: Mapping[type[nn.Module], Callable[[Any, tuple[int, ...]], str]] = {
    nn.modules.conv._ConvNd: _convolution,
    nn.Linear: _linear,
    nn.modules.batchnorm._NormBase: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.modules.pooling._MaxPoolNd: _pooling,
    nn.modules.pooling._AvgPoolNd: _pooling,
}
"""Layer class -> the function that explains why a shape does not fit."""


def _first_line(error: Exception) -> str:
    try:
        message = str(error).strip()
    except Exception:  # an exception of the model's may fail at that, too
        message = ""
    return (message or "no message").splitlines()[0].rstrip(".")
