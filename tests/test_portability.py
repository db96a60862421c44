"""Windows and macOS, as far as Linux can show it: what their Python lacks, their errors simulated, other encodings."""

import ast
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import convscope as cs
from convscope import files
from convscope.cli.console import PLAIN, show_json
from convscope.errors import RunError
from convscope.training.loop import interruptible
from convscope.training.snapshots import Position
from convscope.training.writer import RunWriter, is_held, metrics_line, read_metrics

ROOT = Path(__file__).parent.parent
INSTALLED = [*sorted((ROOT / "src").rglob("*.py")), ROOT / "hatch_build.py"]
SOURCES = [*INSTALLED, *sorted((ROOT / "scripts").glob("*.py"))]

UNIX_MODULES = {"crypt", "curses", "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
UNIX_NAMES = {
    "os": "O_DIRECTORY O_NOFOLLOW O_NONBLOCK WNOHANG chown chroot fchmod fchown fork forkpty getegid geteuid getgid"
    " getloadavg getpgid getpriority getuid initgroups killpg lchown mkfifo mknod nice openpty pipe2 posix_fadvise"
    " posix_fallocate posix_spawn pread pwrite sched_getaffinity sched_setaffinity sendfile setpgid setsid statvfs sync"
    " sysconf uname wait4",
    "signal": "SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGUSR1 SIGUSR2 alarm pause pthread_kill"
    " pthread_sigmask setitimer sigwait",
    "socket": "AF_UNIX",
    "time": "tzset",
}
"""Names that Python has on Linux and not on Windows."""


def unix_only(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """What Windows lacks: modules, attributes, and the C library without a name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names if alias.name in UNIX_MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in UNIX_MODULES:
            yield node, node.module
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in UNIX_NAMES.get(node.value.id, "").split():
                yield node, f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Call) and ast.unparse(node) == "ctypes.CDLL(None)":
            yield node, "ctypes.CDLL(None)"


def asks_for_the_platform(test: ast.expr) -> bool:
    return any(name in ast.unparse(test) for name in ("sys.platform", "os.name", "hasattr("))


def is_guarded(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    """Whether a node is reached only after a check of the platform: within one, or after one that returns."""
    while node in parents:
        parent = parents[node]
        if isinstance(parent, ast.If | ast.IfExp) and node is not parent.test and asks_for_the_platform(parent.test):
            return True
        if isinstance(parent, ast.BoolOp):
            before = parent.values[: parent.values.index(node)] if isinstance(node, ast.expr) else []
            if any(map(asks_for_the_platform, before)):
                return True
        for block in (getattr(parent, name, None) for name in ("body", "orelse", "finalbody")):
            for earlier in block[: block.index(node)] if isinstance(block, list) and node in block else []:
                returns = isinstance(earlier, ast.If) and isinstance(earlier.body[-1], ast.Return | ast.Raise)
                if returns and asks_for_the_platform(earlier.test):
                    return True
        node = parent
    return False


def lacking(source: str) -> list[str]:
    """Names in a source text that fail on Windows."""
    tree = ast.parse(source)
    parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
    return [name for node, name in unix_only(tree) if not is_guarded(node, parents)]


def test_what_windows_lacks_is_used_after_a_check_of_the_platform() -> None:
    assert {str(path): names for path in INSTALLED if (names := lacking(path.read_text(encoding="utf-8")))} == {}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import fcntl", ["fcntl"]),
        ("def f():\n    from resource import getrlimit", ["resource"]),
        ("import os\nif ready:\n    os.nice(5)", ["os.nice"]),
        ("flags = os.O_RDONLY | os.O_NOFOLLOW", ["os.O_NOFOLLOW"]),
        ("ctypes.CDLL(None).malloc_trim(0)", ["ctypes.CDLL(None)"]),
        ("if sys.platform != 'win32':\n    os.nice(5)", []),
        ("def f():\n    if sys.platform == 'win32':\n        return\n    os.getuid()", []),
        ("def f():\n    os.getuid()\n    if sys.platform == 'win32':\n        return", ["os.getuid"]),
        ("if hasattr(signal, 'SIGHUP') and ask(signal.SIGHUP):\n    pass", []),
        ("if ask(signal.SIGHUP) and hasattr(signal, 'SIGHUP'):\n    pass", ["signal.SIGHUP"]),
    ],
)
def test_the_check_sees_what_windows_lacks(source: str, names: list[str]) -> None:
    assert lacking(source) == names


def without_encoding(source: str) -> list[str]:
    """Calls that read or write text in the encoding of the machine."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [ast.unparse(call) for call in calls if uses_local_encoding(call)]


def uses_local_encoding(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in keywords or None in keywords:
        return False
    if name in {"read_text", "write_text"}:
        return len(call.args) < (1 if name == "read_text" else 2)
    if name in {"run", "Popen", "check_output"}:
        return {"text", "universal_newlines"} & keywords.keys() != set()
    if name == "fdopen" or ast.unparse(call.func) in {"open", "io.open"}:
        mode = keywords.get("mode", call.args[1] if len(call.args) > 1 else ast.Constant("r"))
        return isinstance(mode, ast.Constant) and "b" not in str(mode.value)
    if name == "open" and isinstance(call.func, ast.Attribute):  # of a Path; others have no mode as text
        mode = keywords.get("mode", call.args[0] if call.args else ast.Constant(None))
        return isinstance(mode, ast.Constant) and str(mode.value) in {"r", "w", "a", "x", "r+", "w+", "a+"}
    return False


def test_text_is_read_and_written_in_a_named_encoding() -> None:
    assert {str(path): calls for path in SOURCES if (calls := without_encoding(path.read_text(encoding="utf-8")))} == {}


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("Path('a').read_text()", 1),
        ("Path('a').write_text(text)", 1),
        ("open('a')", 1),
        ("path.open('w')", 1),
        ("subprocess.run(command, text=True)", 1),
        ("path.open('rb'), open('a', 'wb'), path.read_text('utf-8'), path.write_text(text, encoding='utf-8')", 0),
    ],
)
def test_the_check_sees_text_without_an_encoding(source: str, count: int) -> None:
    assert len(without_encoding(source)) == count


class InUse:
    """`Path.replace` as on Windows while another program has the file open, for its first calls."""

    def __init__(self, times: int) -> None:
        self.times, self.replace = times, Path.replace

    @property
    def replacing(self) -> Callable[[Path, Path], Path]:
        """What takes its place."""

        def replacing(part: Path, path: Path) -> Path:
            if self.times:
                self.times -= 1
                raise PermissionError(13, "The process cannot access the file as it is being used by another process")
            return self.replace(part, path)

        return replacing


@pytest.mark.parametrize("write", [files.write_file, files.write_whole])
def test_a_file_in_use_is_replaced_once_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, bytes], None]
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"former")
    in_use = InUse(3)
    monkeypatch.setattr(Path, "replace", in_use.replacing)
    with pytest.raises(PermissionError):  # as everywhere but on Windows, where it means missing permissions
        write(path, b"new")
    assert path.read_bytes() == b"former"
    monkeypatch.setattr(files, "_IN_USE", 5.0)
    write(path, b"new")
    assert (path.read_bytes(), in_use.times) == (b"new", 0)


def test_a_file_that_stays_in_use_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"former")
    monkeypatch.setattr(Path, "replace", InUse(10**9).replacing)
    monkeypatch.setattr(files, "_IN_USE", 0.1)
    with pytest.raises(PermissionError, match="used by another process"):
        files.write_whole(path, b"new")
    assert path.read_bytes() == b"former"
    assert [item.name for item in tmp_path.iterdir()] == ["a.png"]


def test_no_open_file_is_replaced_when_a_run_is_cut_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Windows refuses that: a replaced file must not be open in this process."""
    replace = Path.replace

    def refuse_open(part: Path, path: Path) -> Path:
        open_here = {os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()}
        assert str(path) not in open_here
        assert str(part) not in open_here
        return replace(part, path)

    if not Path("/proc/self/fd").exists():
        pytest.skip("only Linux lists a process' open files")
    monkeypatch.setattr(Path, "replace", refuse_open)
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(metrics_line({"event": "train", "step": 1, "epoch": 1}) + b"cut off\n")
    with RunWriter(tmp_path) as writer:
        writer.begin(Position(step=1), [], 0)
        writer.log({"event": "train", "step": 2, "epoch": 1, "lr": 0.1, "seconds": 0.5})
    assert [event["step"] for event in read_metrics(tmp_path).events] == [1, 2]
    assert b"cut off" not in metrics.read_bytes()


def test_where_no_room_can_be_reserved_it_is_written_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"former")
    monkeypatch.setattr(sys, "platform", "darwin")  # whose Python has no posix_fallocate
    monkeypatch.delattr(os, "posix_fallocate")
    files._overwrite(path, b"longer than the former")
    assert path.read_bytes() == b"longer than the former"

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files._overwrite(path, bytes(100))
    assert path.read_bytes() == b"longer than the former"


def test_a_training_can_be_interrupted_where_terminals_send_no_hangup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "SIGHUP")
    with interruptible() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.asked


def test_the_lock_of_a_run_is_held_by_one_writer(tmp_path: Path) -> None:
    with RunWriter(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(RunError, match="another training is writing to"), RunWriter(tmp_path):
            pass
    assert not is_held(tmp_path)
    (tmp_path / "lock").unlink()
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="it is a link, which is not followed"), RunWriter(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()


COMMANDS = """
import sys
from convscope.cli import main
FOLDER = sys.argv[1]
for words in (
    ["explain", "crosses", "crosses:damaged-plus", "--model-arg", "published=True", "--at", "pool:0,0,0"],
    ["verify", "crosses", "crosses:plus"],
    ["explain", "crosses", "crosses:plus", "--at", "pool:0,0,0", "--json"],
    ["train", "crosses", "--epochs", "1", "--out", FOLDER],
    ["predict", FOLDER, "crosses:plus"],
    ["trace", FOLDER + "x", "crosses:plus"],
):
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as ended:
        print(f"== {ended.code or 0}", flush=True)
"""


@pytest.mark.parametrize(
    ("encoding", "folder", "environment"),
    [
        ("cp1252", "Größe − 1", {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}),
        ("ascii", "run", {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    ],
)
def test_commands_work_on_a_console_without_utf8(
    encoding: str, folder: str, environment: dict[str, str], tmp_path: Path
) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "PYTHONIO"))}
    result = subprocess.run(
        [sys.executable, "-c", COMMANDS, folder],
        capture_output=True, env={**inherited, **environment}, cwd=tmp_path, check=False,
    )  # fmt: skip
    out, err = result.stdout.decode(encoding), result.stderr.decode(encoding)
    assert "Traceback" not in err, err
    explained, verified, as_json, trained, predicted, refused, rest = out.split("== ")
    assert [part[0] for part in (verified, as_json, trained, predicted, refused)] == ["0"] * 5, out + err
    assert rest.startswith("2"), out + err
    assert "ok proved" in explained
    assert json.loads(as_json.partition("\n")[2])["status"] is not None
    assert f"{folder}x".translate(PLAIN).encode(encoding, "backslashreplace").decode(encoding) in err
    assert (tmp_path / folder / "weights.safetensors").exists()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_json_stays_json_in_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding, errors="backslashreplace"))
    show_json({"Größe": "− 1 \U0001f600"})
    assert json.loads(content.getvalue().decode(encoding)) == {"Größe": "− 1 \U0001f600"}


def test_every_sign_of_a_calculation_has_a_plain_form() -> None:
    assert all(isinstance(plain, str) and plain.isascii() for plain in PLAIN.values())
    rooms = [ROOT / "src" / "convscope" / room for room in ("expr", "render")]
    texts = [path.read_text(encoding="utf-8") for room in rooms for path in room.rglob("*.py")]
    assert {sign for text in texts for sign in text if not sign.isascii()} - {chr(sign) for sign in PLAIN} == set()


def explained(queue: "multiprocessing.SimpleQueue[str]") -> None:
    """In a process that begins anew, as those of Windows and macOS do."""
    trace = cs.trace(cs.load_model("crosses"), cs.load_image("crosses:plus"))
    queue.put(cs.explain(trace, "pool", (0, 0, 0)).status)


def test_a_spawned_process_can_use_it() -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=explained, args=(queue,))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    assert "proved" in queue.get()
