"""Figures: one file per picture that `cs.plot` draws."""
