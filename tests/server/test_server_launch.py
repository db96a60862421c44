"""How the explorer starts and ends: address, port, browser, Ctrl-C; in Python and on the command line."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import warnings
import webbrowser
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import convscope as cs
from convscope.cli import main
from convscope.cli.options import Loading
from convscope.server import launch
from convscope.server.http import connection as address
from convscope.server.http import page
from convscope.server.http.connection import address_of, bind, has_browser


@pytest.fixture(autouse=True)
def static(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page, so that these tests need no built one."""
    folder = tmp_path / "static"
    folder.mkdir()
    (folder / "index.html").write_text("<title>page</title>")
    monkeypatch.setattr(page, "STATIC", folder)
    return folder


@contextmanager
def occupied(port: int = 0) -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        yield other.getsockname()[1]


def asked(url: str, token: str = "") -> tuple[int, Any]:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_without_a_flag_only_this_machine_is_listened_to() -> None:
    with bind(port=0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"
        assert address_of(listening) == f"http://127.0.0.1:{listening.getsockname()[1]}/"


def test_a_used_port_means_the_next_free_one() -> None:
    with occupied() as port, bind(port=port) as listening:
        assert listening.getsockname()[1] > port


def test_used_up_ports_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "TRIED", 1)
    with occupied() as port, pytest.raises(cs.UsageError, match=f"none of the ports {port} to {port} is free for you"):
        bind(port=port)


@pytest.mark.parametrize("host", ["nowhere.invalid", "203.0.113.1", "a" * 300, "not a host"])
def test_an_address_of_another_machine_is_a_sentence(host: str) -> None:
    with pytest.raises(cs.UsageError, match="is not an address of this machine; omit --host"):
        bind(host, 0)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_a_sentence(port: int) -> None:
    with pytest.raises(cs.UsageError, match="a port is a number from 0"):
        bind(port=port)


def test_it_opens_on_a_model_of_this_session_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(threading.enumerate())
    model = cs.load_model("crosses").train()
    with cs.open(model, "crosses:plus", port=0) as explorer:
        token = explorer.url.partition("#token=")[2]
        assert explorer.url == f"{explorer.address}#token={token}"
        assert asked(explorer.address)[1] == b"<title>page</title>"
        assert asked(f"{explorer.address}api/session")[0] == 401
        status, session = asked(f"{explorer.address}api/session", token)
        assert status == 200
        assert [one["name"] for one in json.loads(session)["models"]] == ["crosses"]
        assert json.loads(session)["can_train"]
        assert repr(explorer) == f"<explorer at {explorer.url}>"
    explorer.close()  # once more does nothing
    assert repr(explorer) == "<explorer, closed>"
    assert model.training, "the model is left as found"
    assert not list(tmp_path.glob("runs"))
    assert not [thread for thread in threading.enumerate() if thread not in before and thread.name == "explorer"]
    with pytest.raises(urllib.error.URLError):
        asked(explorer.address)


def test_a_thread_can_wait_for_the_end_too() -> None:
    former = signal.getsignal(signal.SIGTERM)
    with cs.open("crosses", port=0) as explorer, ThreadPoolExecutor(1) as pool:
        waited = pool.submit(explorer.wait)
        assert asked(explorer.address)[0] == 200
        explorer.close()
        waited.result(240)
    assert signal.getsignal(signal.SIGTERM) is former


def test_each_server_has_its_own_token_and_port() -> None:
    with cs.open("crosses", port=0) as first, cs.open("crosses", port=0) as second:
        token = first.url.partition("#token=")[2]
        assert asked(f"{first.address}api/session", token)[0] == 200
        assert asked(f"{second.address}api/session", token)[0] == 401


def test_what_a_person_should_know_is_said(tmp_path: Path) -> None:
    with occupied() as port, cs.serve(tmp_path, port=port) as explorer:
        taken = explorer.address.rstrip("/").rpartition(":")[2]
        assert explorer.notes == [f"port {port} is in use; using the next free one, {taken}."]
    with cs.serve(tmp_path, host="0.0.0.0", port=0) as explorer:
        assert explorer.address.startswith("http://127.0.0.1:")
        assert "reach this page only under a host name passed to --allow-host, and none was" in explorer.notes[0]
        request = urllib.request.Request(explorer.address, headers={"Host": "0.0.0.0"})
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            urllib.request.urlopen(request)
        refused.value.close()
    with cs.serve(tmp_path, host="0.0.0.0", port=0, allow_hosts=["lab.example"]) as explorer:
        assert "other machines can reach this page as lab.example (--allow-host)" in explorer.notes[0]
        request = urllib.request.Request(explorer.address, headers={"Host": "lab.example"})
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 200


@pytest.mark.parametrize("name", ["http://lab.example", "lab.example:80", "a b", ""])
def test_a_name_that_is_none_is_a_sentence(name: str) -> None:
    with pytest.raises(cs.UsageError, match=r"--allow-host takes one such as lab\.example"):
        cs.open("crosses", allow_hosts=[name])


def test_a_wrong_image_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    bound: list[socket.socket] = []

    def noted(host: str, port: int | None) -> socket.socket:
        bound.append(bind(host, port))
        return bound[-1]

    monkeypatch.setattr(launch, "bind", noted)
    with pytest.raises(cs.ConvscopeError, match=r"there is no file nothing\.png"):
        cs.open("crosses", "nothing.png", port=0)
    assert [listening.fileno() for listening in bound] == [-1]


def test_the_browser_gets_an_address_that_works_once_not_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    shown = threading.Event()

    def open_browser(url: str) -> None:
        opened.append(url)
        shown.set()

    monkeypatch.setattr(webbrowser, "open", open_browser)
    monkeypatch.setattr(launch, "has_browser", lambda: True)
    with cs.open("crosses", port=0, browser=True) as explorer:
        assert shown.wait(60)
        token = explorer.url.partition("#token=")[2]
        assert opened[0].startswith(f"{explorer.address}open/")
        assert token not in opened[0]
        assert asked(opened[0])[1] == b"<title>page</title>"
        assert asked(opened[0])[0] == 410


def test_no_browser_is_started_without_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webbrowser, "get", lambda: None)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    assert not has_browser()
    monkeypatch.setenv("DISPLAY", ":0")
    assert has_browser()
    monkeypatch.setenv("SSH_CONNECTION", "somewhere")
    assert not has_browser()


# The command line

SIGNALS = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # jobs in the background ignore it
)
COMMAND = (
    f"{SIGNALS}import sys, pathlib; from convscope.server.http import page\n"
    "page.STATIC = pathlib.Path(sys.argv.pop(1))\n"
)


@contextmanager
def started(static: Path, *arguments: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-W", "error", "-c", f"{COMMAND}from convscope.cli import main; main()", str(static)]
    process = subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=dict(os.environ)
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until_caught(what: signal.Signals, process: int) -> None:
    """Until a process has its own answer to a signal, where /proc says so."""
    status, until = Path(f"/proc/{process}/status"), time.monotonic() + 120
    while status.exists():
        caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt:"))
        if int(caught.split()[1], 16) >> (what - 1) & 1:
            return
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform == "win32", reason="signals as Unix has them")
@pytest.mark.parametrize(
    ("arguments", "how"),
    [
        (("open", "crosses", "--model-arg", "published=True", "--image", "crosses:plus"), signal.SIGINT),
        (("serve", "no-runs-yet"), signal.SIGTERM),
        pytest.param(("serve", "no-runs-yet"), signal.SIGHUP, marks=pytest.mark.study),
    ],
)
def test_the_command_prints_the_address_and_ends_cleanly(
    static: Path, tmp_path: Path, arguments: tuple[str, ...], how: signal.Signals
) -> None:
    with started(static, *arguments, "--port", "0", cwd=tmp_path) as process:
        assert process.stdout is not None
        address, _, token = process.stdout.readline().removeprefix("the explorer: ").strip().partition("#token=")
        assert process.stdout.readline() == "press Ctrl-C to stop\n"
        assert asked(f"{address}api/session", token)[0] == 200
        wait_until_caught(signal.SIGTERM if how == signal.SIGINT else how, process.pid)
        process.send_signal(how)
        out, err = process.communicate(timeout=120)
    warnings = [line for line in err.splitlines() if not line.startswith("note: these weights are rounded")]
    assert (process.returncode, out, warnings) == (0, "", [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["static"], "nothing is written unasked"


STOPPED = """
import signal, socket, sys, threading, time, pathlib
from urllib.parse import urlsplit
from convscope.server.http import page
page.STATIC = pathlib.Path(sys.argv[1])
import convscope as cs
explorer = cs.serve("runs", port=0, browser=False)
main = threading.main_thread().ident

def interrupt():
    while sys._current_frames()[main].f_code.co_name != "wait" or signal.getsignal(signal.SIGTERM) is former:
        time.sleep(0.01)
    signal.pthread_kill(main, signal.SIGINT)

former = signal.getsignal(signal.SIGTERM)
interrupting = threading.Thread(target=interrupt)
interrupting.start()
explorer.wait()
interrupting.join()
place = urlsplit(explorer.address)
with socket.socket() as asking:
    refused = asking.connect_ex((place.hostname, place.port)) != 0
print(refused, [thread.name for thread in threading.enumerate()])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals as Unix has them")
def test_after_ctrl_c_nothing_of_the_server_runs_on(static: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", SIGNALS + STOPPED, str(static)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert (result.stdout, result.stderr) == ("True ['MainThread']\n", "")


@pytest.mark.parametrize("given", [None, "active"])
@pytest.mark.parametrize("command", ["open", "serve"])
def test_waiting_threads_give_way_to_the_browser_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, command: str, given: str | None
) -> None:
    def note(*_: object, **__: object) -> None:
        seen.append(os.environ["OMP_WAIT_POLICY"])
        raise cs.UsageError("seen.")

    seen = list[str]()
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setattr(Loading, "load", note)
    monkeypatch.setattr(cs, "serve", note)
    assert _refused(monkeypatch, command, *(["stripes"] if command == "open" else [])) == 2
    assert seen == [given or "passive"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("open", "no-such-model"), "no model is called 'no-such-model'"),
        (("open", "stripes", "--image", "nothing.png"), "there is no file nothing.png"),
        (("open", "stripes", "--port", "70000"), "a port is a number from 0"),
        (("open", "stripes", "--host", "nowhere.invalid"), "'nowhere.invalid' is not an address of this machine"),
        (("serve", "static/index.html"), "static/index.html is a file; give a folder that contains runs"),
    ],
)
def test_what_cannot_be_opened_is_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _refused(monkeypatch, *arguments) in {1, 2}
    err = " ".join(capsys.readouterr().err.split())
    assert err.startswith("error: ")
    assert message in err


def test_without_the_page_the_command_says_how_to_get_it(
    static: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (static / "index.html").unlink()
    assert _refused(monkeypatch, "open", "crosses") == 2
    err = capsys.readouterr().err
    assert "CONVSCOPE_NO_WEB=1" in err
    assert "make web" in err


def _refused(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["convscope", *arguments])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # which the command line replaces
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code
