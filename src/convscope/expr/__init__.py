"""Expressions: what made one number, as a small expression of recorded numbers with its value and error bound.

Uses NumPy; no torch, no traces, and no operation in particular.
"""
