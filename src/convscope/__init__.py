"""convscope shows every number inside a convolutional network, and proves each one.

The public names, resolved when first used, so that importing convscope loads no torch.
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convscope import blocks as blocks
    from convscope import filters as filters
    from convscope import lessons as lessons
    from convscope import plot as plot
    from convscope import probe as probe
    from convscope import reference as reference
    from convscope.capture.tracing import trace as trace
    from convscope.cards.card import Card as Card
    from convscope.cards.card_inference import card_of as card_of
    from convscope.checking.checker import check as check
    from convscope.checking.child_process import check_file as check_file
    from convscope.checking.result import Check as Check
    from convscope.checking.result import WrongResult as WrongResult
    from convscope.data.catalog import DATASETS as DATASETS
    from convscope.data.catalog import PLACES as PLACES
    from convscope.data.catalog import at_hand as at_hand
    from convscope.data.catalog import load_dataset as load_dataset
    from convscope.data.dataset import Dataset as Dataset
    from convscope.errors import ConvscopeError as ConvscopeError
    from convscope.errors import ImageError as ImageError
    from convscope.errors import TraceError as TraceError
    from convscope.errors import TrustError as TrustError
    from convscope.errors import UsageError as UsageError
    from convscope.escaping import brief as brief
    from convscope.escaping import spelled as spelled
    from convscope.export.sum_sheet import save_sum as save_sum
    from convscope.export.summary import Summary as Summary
    from convscope.export.summary import summary as summary
    from convscope.export.workbook import workbook as workbook
    from convscope.export.xlsx import check_workbook_path as check_workbook_path
    from convscope.files import check_destination as check_destination
    from convscope.files import read_file as read_file
    from convscope.files import write_whole as write_whole
    from convscope.images import FORMATS as FORMATS
    from convscope.images import read_image as read_image
    from convscope.inputs.model_inputs import ModelInput as ModelInput
    from convscope.inputs.model_inputs import ModelInputs as ModelInputs
    from convscope.inputs.model_inputs import prepare_inputs as prepare_inputs
    from convscope.inputs.model_inputs import random_inputs as random_inputs
    from convscope.inputs.pictures import Prepared as Prepared
    from convscope.inputs.pictures import load_image as load_image
    from convscope.inputs.pictures import prepare as prepare
    from convscope.inputs.pictures import prepare_batch as prepare_batch
    from convscope.inputs.pictures import random_image as random_image
    from convscope.json_values import json_text as json_text
    from convscope.lessons.notebooks import lesson as lesson
    from convscope.models import Module as Module
    from convscope.models.catalog import DEFAULT_MODELS as DEFAULT_MODELS
    from convscope.models.catalog import MODELS as MODELS
    from convscope.models.loading import load_model as load_model
    from convscope.models.network_arguments import parse_model_args as parse_model_args
    from convscope.models.user_code import files_of as files_of
    from convscope.preprocess import Preprocess as Preprocess
    from convscope.proof.contributions import Contributions as Contributions
    from convscope.proof.explanation import Explanation as Explanation
    from convscope.proof.explanation import explain as explain
    from convscope.proof.status import STATUSES as STATUSES
    from convscope.proof.status import Status as Status
    from convscope.proof.status import Tone as Tone
    from convscope.proof.step_effect import StepEffect as StepEffect
    from convscope.proof.step_effect import image_losses as image_losses
    from convscope.proof.step_effect import step_effect as step_effect
    from convscope.proof.step_effect import update_direction as update_direction
    from convscope.proof.verification import verify as verify
    from convscope.proof.verification_report import StepReport as StepReport
    from convscope.proof.verification_report import Verification as Verification
    from convscope.server.launch import Explorer as Explorer
    from convscope.server.launch import open as open  # noqa: A004  # people say cs.open
    from convscope.server.launch import serve as serve
    from convscope.server.launch import serve_lesson as serve_lesson
    from convscope.standalone.report import Report as Report
    from convscope.standalone.report import report as report
    from convscope.standalone.widget import widget as widget
    from convscope.traces.difference import Difference as Difference
    from convscope.traces.difference import difference as difference
    from convscope.traces.step import Ref as Ref
    from convscope.traces.step import Step as Step
    from convscope.traces.trace import Trace as Trace
    from convscope.training.evaluation import Evaluation as Evaluation
    from convscope.training.evaluation import Prediction as Prediction
    from convscope.training.evaluation import evaluate as evaluate
    from convscope.training.evaluation import interpret as interpret
    from convscope.training.evaluation import predict as predict
    from convscope.training.events import EpochEvent as EpochEvent
    from convscope.training.events import Event as Event
    from convscope.training.events import ProgressEvent as ProgressEvent
    from convscope.training.events import StartEvent as StartEvent
    from convscope.training.events import TrainEvent as TrainEvent
    from convscope.training.processes import launch as launch
    from convscope.training.runs import Run as Run
    from convscope.training.runs import load_run as load_run
    from convscope.training.start import free_path as free_path
    from convscope.training.start import train as train

# PyTorch looks this up when it first makes a tensor: large ones then come in pages of 2 MB, which Linux hands out
# faster than 512 small ones; a trace keeps every result, so most of its memory is new. Set it to 0 to do without.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"

_ROOMS = ("blocks", "filters", "lessons", "plot", "probe", "reference")
_PUBLIC = {
    "Card": "cards.card",
    "Check": "checking.result",
    "Contributions": "proof.contributions",
    "ConvscopeError": "errors",
    "DATASETS": "data.catalog",
    "Dataset": "data.dataset",
    "Difference": "traces.difference",
    "Evaluation": "training.evaluation",
    "Explanation": "proof.explanation",
    "ImageError": "errors",
    "MODELS": "models.catalog",
    "Prediction": "training.evaluation",
    "Preprocess": "preprocess",
    "Ref": "traces.step",
    "Report": "standalone.report",
    "Run": "training.runs",
    "STATUSES": "proof.status",
    "Step": "traces.step",
    "StepEffect": "proof.step_effect",
    "Summary": "export.summary",
    "Trace": "traces.trace",
    "TraceError": "errors",
    "TrustError": "errors",
    "UsageError": "errors",
    "Verification": "proof.verification_report",
    "WrongResult": "checking.result",
    "card_of": "cards.card_inference",
    "check": "checking.checker",
    "difference": "traces.difference",
    "evaluate": "training.evaluation",
    "explain": "proof.explanation",
    "launch": "training.processes",
    "lesson": "lessons.notebooks",
    "load_dataset": "data.catalog",
    "load_image": "inputs.pictures",
    "load_model": "models.loading",
    "load_run": "training.runs",
    "open": "server.launch",
    "predict": "training.evaluation",
    "prepare": "inputs.pictures",
    "prepare_inputs": "inputs.model_inputs",
    "random_image": "inputs.pictures",
    "random_inputs": "inputs.model_inputs",
    "read_image": "images",
    "report": "standalone.report",
    "serve": "server.launch",
    "step_effect": "proof.step_effect",
    "summary": "export.summary",
    "trace": "capture.tracing",
    "train": "training.start",
    "verify": "proof.verification",
    "widget": "standalone.widget",
    "workbook": "export.workbook",
}
"""Names for users: where each is defined."""
_INTERNAL = {
    "DEFAULT_MODELS": "models.catalog",
    "EpochEvent": "training.events",
    "Event": "training.events",
    "Explorer": "server.launch",
    "FORMATS": "images",
    "ModelInput": "inputs.model_inputs",
    "ModelInputs": "inputs.model_inputs",
    "Module": "models",
    "PLACES": "data.catalog",
    "Prepared": "inputs.pictures",
    "ProgressEvent": "training.events",
    "StartEvent": "training.events",
    "StepReport": "proof.verification_report",
    "Status": "proof.status",
    "Tone": "proof.status",
    "TrainEvent": "training.events",
    "at_hand": "data.catalog",
    "check_destination": "files",
    "check_workbook_path": "export.xlsx",
    "check_file": "checking.child_process",
    "files_of": "models.user_code",
    "image_losses": "proof.step_effect",
    "free_path": "training.start",
    "interpret": "training.evaluation",
    "json_text": "json_values",
    "parse_model_args": "models.network_arguments",
    "read_file": "files",
    "save_sum": "export.sum_sheet",
    "prepare_batch": "inputs.pictures",
    "serve_lesson": "server.launch",
    "brief": "escaping",
    "spelled": "escaping",
    "update_direction": "proof.step_effect",
    "write_whole": "files",
}
"""Names that the command line and the server need besides; `dir` does not list them."""
_NAMES = {**_PUBLIC, **_INTERNAL}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return _imported(name)
    if name in _NAMES:
        return getattr(_imported(_NAMES[name]), name)
    raise AttributeError(f"convscope has no {name!r}; it has {', '.join(__dir__())}")


def _imported(name: str) -> Any:
    path = f"convscope.{name}"
    if path in sys.modules:
        return importlib.import_module(path)  # waits for a thread that is still importing it
    from convscope.memory import collection_paused  # noqa: PLC0415  # the first name that is used loads far more

    with collection_paused():
        return importlib.import_module(path)


def __dir__() -> list[str]:
    return sorted([*_ROOMS, *_PUBLIC])


def _in_notebook() -> None:
    """Where IPython runs, let it show convscope's objects."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if getattr(shell, "display_formatter", None) is not None:
        from convscope.notebook import register  # noqa: PLC0415  # elsewhere it is not needed

        register(shell.display_formatter)


_in_notebook()
