"""Training: from a data set and a model to a run folder that survives a crash, then its evaluation.

Uses torch, data, models and inputs; no plots, no HTTP, no command line.
"""
