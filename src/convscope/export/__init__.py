"""Export: a model's sizes and counts as arithmetic, and spreadsheets with live formulas."""
