"""`convscope` and `python -m convscope` are the command line."""

import atexit
import gc
import os
import signal
import sys

if not sys.flags.safe_path and sys.path[:1] in ([""], [os.getcwd()]):  # noqa: PTH109  # pathlib could come from there
    del sys.path[0]  # as for the installed command: a file of the working folder is never taken for a library


def main() -> None:
    """Run the command line; while it loads, Ctrl-C has its default action and ends the process without a traceback."""
    atexit.register(gc.freeze)  # at exit Python would search all objects of PyTorch for garbage, a third of a second
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # it may be ignored, as in the background
    if usual:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from convscope.cli import main as command  # noqa: PLC0415  # half a second, in which nothing catches Ctrl-C

    if usual:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command()


if __name__ == "__main__":
    main()
