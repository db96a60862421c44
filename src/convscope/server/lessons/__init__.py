"""The lesson beside the page: its screens, its questions, and the places it leads to."""
