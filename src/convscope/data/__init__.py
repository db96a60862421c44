"""Data sets: a name, a folder or an archive becomes a `Dataset` in memory."""
