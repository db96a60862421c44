"""Explanations: why a number is what it is, whether that is proved, and what each pixel adds to it."""
