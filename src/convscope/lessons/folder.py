"""The folder in which a lesson runs."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def in_temporary_folder() -> Iterator[Path]:
    """A working folder that is removed at the end of the block, so that a lesson may write files."""
    former = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="convscope-lesson-", ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(former)
