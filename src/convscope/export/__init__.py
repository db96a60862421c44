"""Export: files to take along, that show the same numbers and the same arithmetic without convscope."""
