"""Export: what one takes along from a model: sizes and counts as arithmetic, and spreadsheets with live formulas."""
