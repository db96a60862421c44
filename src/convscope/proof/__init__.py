"""Proof: where recorded tensor, expression and reference meet.

Uses traces, rules and the reference; no torch, plots, HTTP.
"""
