"""Linting: mistakes of a model and of its training, seen while it runs: evidence, checks, findings.

Each check is a function from evidence to findings, in the table `CHECKS` of `probe/lint.py`; `findings.LESSONS` says
what a teacher would. Uses torch, data, filters and trainings; a figure is any object with axes.
"""
