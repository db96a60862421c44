"""Rendering: an expression as text for a terminal 80 to 100 columns wide, as a worksheet, and as JSON.

Uses expressions; no steps, no proof. Every calculation can be repeated with a pocket calculator from the numbers as
they are shown; the difference that their rounding leaves is a line of its own.
"""
