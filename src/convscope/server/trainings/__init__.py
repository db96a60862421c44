"""Trainings: child processes that train a model, report events and accept commands."""
