"""Model errors: explain an exception raised by a model, and where it happened, in one sentence.

Uses the recorder and sessions; runs nothing.
"""

from torch import Tensor, nn

from convscope.capture.recorder import Recorder
from convscope.capture.session import TracingSession
from convscope.cards.card import InputLayer, expected_input
from convscope.cards.card_inference import card_of, entering
from convscope.cards.layer_inputs import misfit
from convscope.errors import InputError, TraceError
from convscope.traces.trace import Trace

NORMALIZING = nn.modules.batchnorm._BatchNorm | nn.modules.instancenorm._InstanceNorm
"""Layers that refuse a channel of one number when they train."""


def failure(session: TracingSession, error: Exception, recorder: Recorder, trace: Trace | None) -> TraceError:
    """The error to raise instead of the model's exception."""
    recorded_failure = recorder.failed if recorder.failed is not None and recorder.failed[0] is error else None
    path, arguments = (recorded_failure[1], recorded_failure[2]) if recorded_failure else ("", ())
    module = session.subject.modules[path]
    received = next((value for value in arguments if isinstance(value, Tensor)), None)
    location = f"in {path} ({type(module).__name__})" if path else f"in {type(module).__name__}.forward"
    mismatch = misfit(module, received) if received is not None else ""
    image = next(iter(session.intake.tensors.values()))
    if mismatch:
        layers = entering(session.subject.model)
        if "channel" in mismatch and received is not None and _inner(received, image, layers):
            message = (
                f"the model fails at {path} ({type(module).__name__}), which {mismatch}, whatever the image: the "
                "layers before it decide that. cs.summary(model), or convscope summary, finds what fits."
            )
            return TraceError(message, path, trace)
        expected = expected_input(card_of(session.subject.model), layers)
        message = (
            f"the model cannot take an input of shape {tuple(image.shape)}: {path or 'the layer'} "
            f"({type(module).__name__}) {mismatch}; {expected}. "
            "cs.load_image(path, like=model) prepares a picture for it."
        )
        return InputError(message, path, trace)
    if isinstance(error, TypeError) and not path and not recorder.tape.calls:
        return TraceError(
            f"the model cannot be called with {_calls(session)}: {_first_line(error)}; "
            "pass a tuple for several inputs, or a dict for named inputs.",
            path,
            trace,
        )
    if isinstance(error, ValueError) and isinstance(module, NORMALIZING) and "more than 1" in str(error):
        shape = "its input" if received is None else tuple(received.shape)
        message = (
            f"{path or 'the model'} ({type(module).__name__}) takes mean and variance from the numbers of a channel "
            f"when it trains, and gets one number of each in {shape}; pass more or larger images, or training=False."
        )
        return TraceError(message, path, trace)
    failed = f"{recorder.phase} failed" if recorder.phase and not path else f"the model failed {location}"
    return TraceError(f"{failed}: {type(error).__name__}: {_first_line(error)}", path, trace)


def _inner(received: Tensor, image: Tensor, layers: list[InputLayer]) -> bool:
    """Whether the first layer takes the image, and a later one received another number of channels than it has."""
    if not layers or layers[0].kind != "channels" or min(image.ndim, received.ndim) < 2:
        return False
    return layers[0].count == image.shape[1] != received.shape[1]


def _calls(session: TracingSession) -> str:
    names = list(session.intake.keywords)
    if names:
        return f"inputs named {', '.join(names)}"
    count = len(session.intake.arguments)
    return "one input" if count == 1 else f"{count} inputs"


def _first_line(error: Exception) -> str:
    try:
        message = str(error).strip()
    except Exception:  # an exception of the model's may fail at that, too
        message = ""
    return (message or "no message").splitlines()[0].rstrip(".")
