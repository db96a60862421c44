"""Trust: whose code may be executed when a run folder is loaded.

A run names its network. A built-in one loads; any other is code, and nothing of it is imported before the user has
named it, or has trusted the run: by training it here, or by saying so once. A record in the user's state folder,
outside the run, holds a digest of the network's name and arguments, and one of every file that the code comes from; all
are compared before anything is imported, and each file again when it is.
"""

import hashlib
import json
import os
import shlex
import stat
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from platformdirs import user_state_path

from convscope.errors import RunError, TrustError, UsageError
from convscope.files import open_to_read, read_file, read_opened, replace_file
from convscope.json_values import parse_json
from convscope.memory import available
from convscope.models import user_code
from convscope.models.checked_imports import Imports

STATE = "CONVSCOPE_STATE_DIR"
"""Environment variable that names another state folder."""
SHOWN = 400
"""Maximum characters of a network's arguments shown in a message."""

_IN_PROCESS: dict[Path, dict[str, Any]] = {}
"""Records that could not be written, which are valid in this process only."""


def state_folder() -> Path:
    """The folder of this user's records: $CONVSCOPE_STATE_DIR, else as the system has it (~/.local/state/convscope)."""
    folder = os.environ.get(STATE, "")
    return Path(folder).expanduser() if folder else user_state_path("convscope")


def allowed_imports(run: Path, source: str, args: Mapping[str, object], *, trust: bool = False) -> Imports:
    """The files that the code named by a run may import, according to the record; imports nothing.

    Args:
        run: The run's folder.
        source: The network that it names, not a built-in one.
        args: The arguments that it names.
        trust: Whether the user trusts the run from now on: any file may be imported then, see `remember`.

    Raises:
        TrustError: the user has not trusted this code, or it has changed since.
        RunError: the code does not exist here.
    """
    try:
        user_code.check_exists(source)
    except UsageError as error:
        raise RunError(f"{run} was trained on {source}, which cannot be built here: {error}") from error
    if trust:
        return Imports()
    try:
        record = _record(run.resolve())
    except FileNotFoundError:
        raise refusal(run, source, args, "which you have not trusted") from None
    except (OSError, ValueError) as error:
        reason = f"and the record that you trusted it cannot be used ({_file_of(run.resolve())}: {_reason(error)})"
        raise refusal(run, source, args, reason) from None
    if record["model"] != _digest(source, args):
        raise refusal(run, source, args, "which is other code, or has other arguments, than what you trusted")
    changed = next((file for file, digest in record["files"].items() if _file_digest(file) != digest), None)
    if changed is not None:
        raise refusal(run, source, args, f"of which {changed!r} has changed since you trusted it")
    return Imports(record["files"])


def refusal(run: Path, source: str, args: Mapping[str, object], reason: str) -> TrustError:
    """The error that says which code a run names, why it is not executed, and how to allow it."""
    command = shlex.join(["convscope", "open", str(run), "--trust"])
    return TrustError(
        f"{run} runs the code {_in_words(source, args)}, {reason}; read the code, then trust this run once with "
        f"--trust "
        f"({command}), or in Python with load_model({str(run)!r}, trust=True).",
        source,
    )


def _in_words(source: str, args: Mapping[str, object]) -> str:
    """Code and arguments quoted for a message, so that a run's text cannot be mistaken for the message itself."""
    message = ", ".join(f"{name if name.isidentifier() else repr(name)}={value!r}" for name, value in args.items())
    if len(message) > SHOWN:
        message = f"{message[:SHOWN]} (and {len(message) - SHOWN:,} letters more in its config.json)"
    return f"{source!r} with {message}" if args else repr(source)


def remember(run: Path, source: str, args: Mapping[str, object], imports: Imports) -> str:
    """Trust a run from now on, in these versions of the files that its code comes from.

    Args:
        run: The run's folder.
        source: The network that it names.
        args: Its arguments.
        imports: The files that were imported; those that its import statements mean are added.

    Returns:
        A sentence where the record cannot be written, so that it holds in this process alone; else nothing.
    """
    files = {file: digest for file in user_code.files_of(source) if (digest := _file_digest(file)) is not None}
    path = run.resolve()
    record = {"run": str(path), "model": _digest(source, args), "source": source, "files": {**files, **imports.files}}
    try:
        _write(_file_of(path), json.dumps(record, indent=1).encode())
        _IN_PROCESS.pop(path, None)
    except OSError as error:
        _IN_PROCESS[path] = record
        return (
            f"that you trust {run} cannot be remembered ({error.filename or state_folder()}: "
            f"{error.strerror or error}), so other processes will ask; name another state folder by {STATE}."
        )
    return ""


def _digest(source: str, args: Mapping[str, object]) -> str:
    """A digest of code and arguments, the same whether they come from Python or from config.json."""
    plain = json.loads(json.dumps([source, dict(args)]))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _file_digest(file: str) -> str | None:
    """The digest of a file's content; None if it does not exist or is not a regular file."""
    try:
        return hashlib.sha256(read_file(Path(file), limit=available())).hexdigest()
    except (OSError, ValueError):
        return None


def _file_of(run: Path) -> Path:
    return state_folder() / "trust" / f"{hashlib.sha256(os.fsencode(run)).hexdigest()}.json"


def _record(run: Path) -> dict[str, Any]:
    """The record of a run.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read, or others could have written it.
        ValueError: it is damaged, or it may come from the run itself.
    """
    if run in _IN_PROCESS:
        return _IN_PROCESS[run]
    file = _file_of(run)
    if not file.is_absolute() or file.resolve().is_relative_to(run):
        raise ValueError(f"the folder that {STATE} names may belong to the run")
    record = parse_json(_read_own(file))
    try:
        if record["run"] == str(run) and isinstance(record["model"], str):
            return {"model": record["model"], "files": {str(path): str(sha) for path, sha in record["files"].items()}}
    except (KeyError, TypeError, AttributeError):
        pass
    raise ValueError("it is not a record of this run")


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _read_own(file: Path) -> bytes:
    """The content of a file that only this user can write, in a folder that only this user can write.

    Windows reports neither owner nor access by `stat`; there the user's profile is closed to other users by default.
    """
    with open_to_read(file, follow=False) as opened:
        if sys.platform != "win32":
            for status in (os.fstat(opened.fileno()), file.parent.stat()):
                if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                    raise PermissionError("another user owns it or can write to it")
        return read_opened(opened, file)


def _write(file: Path, content: bytes) -> None:
    """Write a file atomically, readable by this user only."""
    if not file.is_absolute():
        raise NotADirectoryError(20, "not an absolute path", str(state_folder()))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.parent.chmod(0o700)
    handle, part = tempfile.mkstemp(dir=file.parent)  # its mode is 0600
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(content)
        replace_file(Path(part), file)
    except OSError:
        Path(part).unlink(missing_ok=True)
        raise
