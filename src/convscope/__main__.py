"""`python -m convscope` is the command line."""

import os
import sys

if not sys.flags.safe_path and sys.path[:1] in ([""], [os.getcwd()]):  # noqa: PTH109  # pathlib could come from there
    del sys.path[0]  # as for the installed command: a file of the working folder is never taken for a library

from convscope.cli import main

if __name__ == "__main__":
    main()
