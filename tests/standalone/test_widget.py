"""The widget: it answers as the server does, over its own channel; in real notebooks (a study) a click shows a sum."""

import gc
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convscope as cs
from browser import browser, missing
from convscope.standalone.widget import Asker
from launching import run
from serving import TOKEN

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "build/notebooks/bin"
CELLS = (
    "import convscope as cs\nmodel = cs.load_model('shapes-cnn', seed=3)",
    "cs.widget(model, 'shapes:test/12')",
    "import time; time.sleep(12)",
)
MARIMO = """import marimo
app = marimo.App()

@app.cell
def _():
    import convscope as cs
    model = cs.load_model("shapes-cnn", seed=3)
    return cs, model

@app.cell
def _(cs, model):
    cs.widget(model, "shapes:test/12")
    return

@app.cell
def _(cs, model):
    cs.trace(model, cs.load_image("shapes:test/12", like=model))
    return
"""


@pytest.fixture(scope="module")
def widget() -> Iterator[Any]:
    """A widget whose answers are kept instead of sent."""
    pytest.importorskip("anywidget", reason="widgets need anywidget")
    from convscope.standalone.document import BUILT

    if not (BUILT / "widget.js").exists():
        missing("the page is not built: make web")
    made = cs.widget(cs.load_model("shapes-cnn", seed=3), "shapes:test/12")
    yield made
    made.close()


def asked(widget: Any, monkeypatch: pytest.MonkeyPatch, path: str, method: str = "GET", body: str = "") -> Any:
    """The answer to a message: status, headers, body."""
    sent: list[Any] = []
    monkeypatch.setattr(widget, "send", lambda head, buffers: sent.append((head, buffers)))
    widget._answer(widget, {"id": 5, "method": method, "path": path, "body": body}, [])
    (head, (content,)) = sent[0]
    assert head["id"] == 5
    return head["status"], head["headers"], content


def test_messages_are_answered_as_requests_are(widget: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    status, _, content = asked(widget, monkeypatch, "session")
    model = json.loads(content)["models"][0]
    assert status == 200
    request = json.dumps({"model": model["id"], "input": model["start"]})
    trace = json.loads(asked(widget, monkeypatch, "traces", "POST", request)[2])
    step = trace["steps"][0]["id"]
    path = f"traces/{trace['id']}/steps/{step}"
    why = json.loads(asked(widget, monkeypatch, f"{path}/explain?cell=2,10,8")[2])
    loaded = cs.load_model("shapes-cnn", seed=3)
    own = cs.trace(loaded, cs.load_image("shapes:test/12", like=loaded))
    assert why["explanation"]["recorded"] == cs.explain(own, step, (2, 10, 8)).recorded
    _, headers, numbers = asked(widget, monkeypatch, f"{path}/output?channel=3")
    assert headers["x-shape"] == "28,28"
    assert np.array_equal(np.frombuffer(numbers, "<f4").reshape(28, 28), own[step].output[0, 3])


def test_the_first_answers_of_a_view_are_those_of_the_kernel(widget: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = {name: json.loads(text) for name, text in widget.first.items()}
    assert json.loads(asked(widget, monkeypatch, "session")[2]) == first["session"]
    assert json.loads(asked(widget, monkeypatch, "traces", "POST", widget.first["request"])[2]) == first["traces"]
    step = f"traces/{first['traces']['id']}/steps/0"
    assert asked(widget, monkeypatch, f"{step}/explain?cell=2,10,8")[0] == 200


def test_bad_messages_do_no_harm(widget: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    status, _, content = asked(widget, monkeypatch, "traces/nothing/input")
    assert (status, "trace" in json.loads(content)["message"]) == (404, True)
    assert asked(widget, monkeypatch, "../../etc/passwd")[0] == 404
    widget._answer(widget, "nonsense", [])
    widget._answer(widget, {"id": 1}, [])


def test_without_a_front_end_it_is_text(widget: Any) -> None:
    bundle = widget._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert data["text/plain"].startswith("<Trace of shapes-cnn: 8 steps>")
    assert "application/vnd.jupyter.widget-view+json" in data
    assert TOKEN not in repr(widget)


def test_a_run_is_taken_as_the_explorer_takes_it(tmp_path: Path) -> None:
    pytest.importorskip("anywidget", reason="widgets need anywidget")
    trained = cs.train("crosses", epochs=1, out=tmp_path / "crosses")
    made = cs.widget(trained, "crosses:plus")
    assert repr(made).startswith("<explorer of <Trace of crosses")
    made.close()
    explorer = cs.open(trained, "crosses:plus", browser=False, port=0)
    assert explorer.url.startswith("http://127.0.0.1:")
    explorer.close()


def test_an_image_that_cannot_be_shown_leaves_no_half_made_widget(monkeypatch: pytest.MonkeyPatch) -> None:
    complaints: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    with pytest.raises(cs.ConvscopeError):
        cs.widget(cs.load_model("crosses"), np.zeros((7, 7, 7), np.float32))
    gc.collect()
    assert not complaints


def test_a_widget_that_cannot_be_made_answers_with_a_sentence() -> None:
    def fails() -> Any:
        raise RuntimeError("no application")

    asker = Asker(fails, {})
    try:
        answer = asker.ask("GET", "session", b"")
    finally:
        asker.close()
    assert (answer.status, "could not be made" in json.loads(answer.body)["message"]) == (500, True)


def test_a_workspace_has_imported_what_its_threads_use(tmp_path: Path) -> None:
    """Packages that import each other fail when two threads import them at once."""
    code = (
        "import sys, threading\nfrom convscope.server.session.workspace import Workspace\nWorkspace()\n"
        "print('convscope.proof.explanation' in sys.modules, threading.active_count())"
    )
    assert run(sys.executable, "-c", code, cwd=tmp_path).stdout.split() == ["True", "1"]


def test_without_anywidget_a_sentence_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['anywidget'] = None; import convscope as cs\n"
        "try: cs.widget('crosses')\nexcept cs.UsageError as error: print(error)"
    )
    assert "pip install 'convscope[notebook]'" in run(sys.executable, "-c", code, cwd=tmp_path).stdout


@pytest.mark.parametrize("name", ["trace", "explain", "verify", "difference"])
def test_results_say_by_themselves_what_a_notebook_shows(name: str) -> None:
    model = cs.load_model("crosses")
    trace = cs.trace(model, cs.load_image("crosses:plus", like=model))
    results: dict[str, Any] = {
        "trace": trace,
        "explain": cs.explain(trace, 0, (0, 1, 1)),
        "verify": cs.verify(trace),
        "difference": cs.difference(trace, trace),
    }
    bundle = results[name]._repr_mimebundle_()
    assert bundle["text/plain"]
    assert bundle.get("image/svg+xml", "<?xml").startswith("<?xml")
    assert ("image/svg+xml" in bundle) == (name in {"trace", "explain"})


def test_the_examples_of_the_page_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("anywidget", reason="widgets need anywidget")
    shown, make = list[Any](), cs.widget
    monkeypatch.setattr(cs, "widget", lambda *given: shown.append(make(*given)), raising=False)
    text = (ROOT / "docs/how-to/notebook.md").read_text(encoding="utf-8")
    exec("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)), {})  # it is our own
    assert "× kernel 2 of conv1, plus its bias" in capsys.readouterr().out
    shown[0].close()


@contextmanager
def served(port: int, *command: str) -> Iterator[None]:
    """A notebook server of the study's environment, until the block ends."""
    if not NOTEBOOKS.exists():
        pytest.skip("the study's notebooks are not installed: make notebooks")
    environment = {**os.environ, "PATH": f"{NOTEBOOKS}{os.pathsep}{os.environ['PATH']}"}
    environment["JUPYTER_PATH"] = str(Path(sys.prefix) / "share/jupyter")  # the extensions of anywidget and ipywidgets
    options: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([str(NOTEBOOKS / command[0]), *command[1:]], env=environment, **options)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/").close()
                break
            except OSError:
                process.poll()
                if process.returncode is not None:
                    pytest.fail(f"{command[0]} has ended with {process.returncode}")
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.2)
        yield
    finally:
        process.terminate()
        process.wait()


def read_a_sum(page: Any) -> None:
    """Click a map and a cell, go on by a key, and compare the number with Python's."""
    page.locator(".strip .scroller [data-map][aria-label='conv1, channel 0']").click()
    viewer = page.locator(".viewer canvas")
    viewer.click(position={"x": 60, "y": 60})
    page.wait_for_selector("[data-status=proved]")
    before = page.get_attribute("h2[data-at]", "data-at")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector(f"h2[data-at]:not([data-at='{before}'])")
    step, *cell = page.get_attribute("h2[data-at]", "data-at").replace(".", " ").split()
    model = cs.load_model("shapes-cnn", seed=3)
    trace = cs.trace(model, cs.load_image("shapes:test/12", like=model))
    number = page.get_attribute("h2 [data-number]", "data-number")
    assert float(number) == cs.explain(trace, int(step), tuple(map(int, cell))).recorded


@pytest.mark.study
def test_in_jupyterlab(tmp_path: Path) -> None:
    cells: list[dict[str, Any]] = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "execution_count": None, "outputs": [], "source": source}
        for i, source in enumerate(CELLS)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "a.ipynb").write_text(json.dumps(book))
    options = ("--no-browser", "--port=8899", "--IdentityProvider.token=", f"--ServerApp.root_dir={tmp_path}")
    with served(8899, "jupyter-lab", *options, "--allow-root"), browser() as chromium:
        page = chromium.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(60_000)
        page.goto("http://127.0.0.1:8899/lab/tree/a.ipynb")
        page.get_by_text("(ipykernel) | Idle").wait_for()
        page.locator(".jp-Cell").first.click()
        for cell in (1, 2):
            page.keyboard.press("Shift+Enter")
            page.locator(f".jp-Cell >> nth={cell - 1} >> .jp-InputPrompt", has_text=f"[{cell}]").wait_for()
        read_a_sum(page)
        page.locator(".jp-Cell").nth(2).locator(".jp-Editor").click()
        page.keyboard.press("Shift+Enter")
        page.locator(".jp-Cell >> nth=2 >> .jp-InputPrompt", has_text="[*]").wait_for()
        page.locator(".strip .scroller [data-map][aria-label='tanh1, channel 0']").click()
        page.locator(".crumbs", has_text="tanh1").wait_for()  # answered meanwhile, or once the cell has finished
        page.locator(".viewer canvas").click(position={"x": 60, "y": 60})
        page.wait_for_selector("[data-status=proved]")


@pytest.mark.study
def test_in_marimo(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(MARIMO)
    options = ("run", "--headless", "--port=8898", "--no-token", str(tmp_path / "a.py"))
    with served(8898, "marimo", *options), browser() as chromium:
        page = chromium.new_page(viewport={"width": 1440, "height": 1000})
        page.goto("http://127.0.0.1:8898/")
        read_a_sum(page)
        assert page.locator("img[src^='data:image/svg'], svg:has(#figure_1)").count() > 0
