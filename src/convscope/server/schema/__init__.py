"""Schema: what the page and the server say to each other. The page's TypeScript types are generated from it.

Numbers that may be infinite or no number are `Number`: "nan", "inf" and "-inf" as texts. Everything is named by an
id that the server gave out; no path and no address ever comes from the page.
"""

from convscope.server.explanations.schema import ContributionsInfo, Explained, Line, Paper, Proof
from convscope.server.http.message import PAINTED, Fit, Id, Message, Name, Number, Problem
from convscope.server.probes.schema import (
    Need,
    ProbeAnswer,
    ProbeCommand,
    ProbeInfo,
    ProbeRequest,
    ProbeSample,
    QuestionInfo,
    QuestionName,
    Split,
    TablePart,
    TextPart,
)
from convscope.server.session.input_schema import (
    Change,
    InputInfo,
    InputPart,
    InputRef,
    PixelsRef,
    SampleRef,
    Stored,
    StoredRef,
)
from convscope.server.session.schema import Expected, KernelInfo, Limits, ModelInfo, Session, SourceInfo
from convscope.server.traces.schema import (
    Answer,
    DifferenceInfo,
    Edit,
    ParameterInfo,
    StepChange,
    StepInfo,
    TraceInfo,
    TraceRequest,
)
from convscope.server.trainings.schema import TrainCommand, TrainingEvent, TrainingInfo, TrainOptions, TrainRequest

__all__ = [
    "PAINTED",
    "Answer",
    "Change",
    "ContributionsInfo",
    "DifferenceInfo",
    "Edit",
    "Expected",
    "Explained",
    "Fit",
    "Id",
    "InputInfo",
    "InputPart",
    "InputRef",
    "KernelInfo",
    "Limits",
    "Line",
    "Message",
    "ModelInfo",
    "Name",
    "Need",
    "Number",
    "Paper",
    "ParameterInfo",
    "PixelsRef",
    "ProbeAnswer",
    "ProbeCommand",
    "ProbeInfo",
    "ProbeRequest",
    "ProbeSample",
    "Problem",
    "Proof",
    "QuestionInfo",
    "QuestionName",
    "SampleRef",
    "Session",
    "SourceInfo",
    "Split",
    "StepChange",
    "StepInfo",
    "Stored",
    "StoredRef",
    "TablePart",
    "TextPart",
    "TraceInfo",
    "TraceRequest",
    "TrainCommand",
    "TrainOptions",
    "TrainRequest",
    "TrainingEvent",
    "TrainingInfo",
]
