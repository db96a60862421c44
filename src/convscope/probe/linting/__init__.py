"""Linting: mistakes of a model and of its training, seen while it runs.

Each check is a function from evidence to findings, in the table `CHECKS`; `findings.LESSONS` says what a teacher would.
Knows torch, data, filters and trainings; a figure is any object with axes.
"""

from convscope.probe.linting.findings import LESSONS, Finding, Lesson, Lint
from convscope.probe.linting.lint import CHECKS, lint

__all__ = ["CHECKS", "LESSONS", "Finding", "Lesson", "Lint", "lint"]
