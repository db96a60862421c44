"""Capture: run a model once and keep every tensor it makes.

Uses torch; makes traces, which hold NumPy arrays. No explanations, plots or HTTP.
"""
