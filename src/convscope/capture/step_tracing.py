"""Tracing training steps: a pass with its loss, gradients and update, also one that a run has taken.

Uses losses, optimizers and the replay of runs, which `capture.tracing` imports only for a training step.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from convscope.capture.call_inputs import CallInputs, as_call_inputs
from convscope.capture.gradients import BackwardRecorder
from convscope.capture.model_errors import failure
from convscope.capture.model_state import ModelState
from convscope.capture.training_recording import TrainingRecording
from convscope.capture.training_step import StepSettings, TrainingSession, settings_of_run, training_session
from convscope.errors import UsageError
from convscope.progress import Progress
from convscope.traces.trace import Trace
from convscope.training.replay import StepState, before_step
from convscope.training.runs import Run
from convscope.type_checks import kind_of

LEAF_WRITTEN = "a leaf Variable that requires grad is being used in an in-place operation"
"""PyTorch's message about a model that writes into its images while these are to have gradients."""


def training_step(
    subject: ModelState,
    intake: CallInputs,
    settings: StepSettings,
    *,
    run: Run | None,
    parameters: Mapping[str, Tensor],
    progress: Progress | None,
) -> Trace:
    """Record a training step on images and labels that are given; a run brings its own loss and optimizer."""
    settings = settings if run is None else settings_of_run(run, settings)
    return _recorded(training_session(subject, intake, settings, parameters=parameters, progress=progress))


def step_of_run(run: nn.Module | Run, step: int, *arguments: object) -> Trace:
    """Repeat a run up to a step, and record that step."""
    if not isinstance(run, Run):
        raise UsageError(f"at_step repeats a step of a run, not of {kind_of(run)}; cs.load_run reads a run.")
    if any(value is not None for value in arguments):
        raise UsageError(
            "at_step repeats a step with its own images, labels, loss, optimizer and rate; leave them out."
        )

    def record(state: StepState) -> Trace:
        steps = f"{state.repeated:,} step{'s' * (state.repeated != 1)}"
        settings = StepSettings(
            state.labels,
            run.recipe.loss if not run.recipe.label_smoothing else state.loss,
            state.optimizer,
            origin=f"step {step:,} of {run.name}, after repeating {steps}",
        )
        subject = ModelState.of(state.model)
        session = training_session(
            subject, as_call_inputs(subject, state.images, True), settings, parameters={}, progress=None
        )
        return _recorded(session)

    return before_step(run, step, record)  # type: ignore[no-any-return]  # what `record` returns


def _recorded(session: TrainingSession) -> Trace:
    """Record forward, loss, gradients and update; every number is kept."""
    recorder = BackwardRecorder()
    try:
        result = session.run(recorder)
    except UsageError:
        raise
    except Exception as error:
        if session.of_inputs and LEAF_WRITTEN in str(error):  # the model writes into its images
            session.of_inputs = False
            for tensor in session.intake.tensors.values():
                tensor.requires_grad_(False)
            return _recorded(session)
        if "use_reentrant=True" in str(error):
            raise UsageError(
                "a training step through reentrant checkpointing is not explained; use "
                "torch.utils.checkpoint.checkpoint(..., use_reentrant=False)."
            ) from error
        raise failure(session, error, recorder, None) from error
    finally:
        session.progress = None
    return Trace(TrainingRecording(session, recorder, result))
