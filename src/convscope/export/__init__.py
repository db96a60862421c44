"""Export: what one takes along of a model: its sizes and counts as arithmetic."""

from convscope.export.summary import Layer, Summary, summary

__all__ = ["Layer", "Summary", "summary"]
