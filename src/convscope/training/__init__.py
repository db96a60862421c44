"""Training: from a data set and a model to a run folder that survives a crash, then its evaluation.

Uses torch, data, models and inputs; no plots, no HTTP, no command line.
"""

from convscope.training.evaluation import Evaluation, Prediction, evaluate, interpret, predict
from convscope.training.processes import launch
from convscope.training.recipes import FAST, TUTORIAL, Recipe
from convscope.training.runs import Run, load_run
from convscope.training.start import free_path, train

__all__ = [
    "FAST",
    "TUTORIAL",
    "Evaluation",
    "Prediction",
    "Recipe",
    "Run",
    "evaluate",
    "free_path",
    "interpret",
    "launch",
    "load_run",
    "predict",
    "train",
]
