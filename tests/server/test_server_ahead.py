"""Warm-up: the first view's forward pass runs once before the page requests it, and is kept until then."""

import threading
from typing import Any

import pytest
from torch import Tensor, nn

import convscope as cs
from asking import opened
from convscope.server import launch
from convscope.server.jobs import NOBODY
from convscope.server.launch import begin_first_views
from convscope.server.session.schema import SampleRef
from convscope.server.session.workspace import Workspace
from convscope.server.traces import passes as trace_passes
from convscope.server.traces.passes import TraceStore
from convscope.server.traces.schema import TraceRequest

CALM = {"rotate": 0, "down": 0, "right": 0, "noise": 0, "seed": 0}


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the passes that were made; each waits until `begin` is set."""
    made: list[str] = []
    plain = trace_passes._run

    def run(*args: Any, **more: Any) -> Any:
        made.append(more["name"])
        return plain(*args, **more)

    monkeypatch.setattr(trace_passes, "_run", run)
    return made


def first_view(gallery: Workspace) -> dict[str, Any]:
    """What the page asks for when its address names nothing."""
    (model,) = gallery.session().models
    assert model.start is not None
    start = model.start.model_dump()
    return {"model": model.id, "input": start, "change": CALM, "edits": [], "at": None, "fit": None}


@pytest.mark.parametrize("image", [None, "shapes:test/12"])
def test_the_pages_first_request_finds_what_was_made_for_it(passes: list[str], image: Any) -> None:
    gallery, made = Workspace.of_model(cs.load_model("shapes-cnn", seed=1), image), passes
    with opened(gallery) as page:
        begin_first_views(gallery)
        info = page.post("traces", **first_view(gallery))
        assert made == [info["id"]]
        assert info["answers"]


class Slow(nn.Module):
    """Waits in its pass."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, 1, 3)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def forward(self, x: Tensor) -> Tensor:
        self.begun.set()
        assert self.go_on.wait(240)
        result: Tensor = self.one(x)
        return result


def test_a_request_that_comes_meanwhile_waits_for_it(passes: list[str]) -> None:
    model, made = Slow(), passes
    model.go_on.set()
    gallery = Workspace.of_model(model)
    model.begun.clear()
    model.go_on.clear()
    with opened(gallery) as page:
        begin_first_views(gallery)
        assert model.begun.wait(240)
        threading.Timer(0.2, model.go_on.set).start()
        info = page.post("traces", **first_view(gallery))
        assert made == [info["id"]]


def test_a_failing_first_view_is_reported_only_when_requested(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Conv2d(1, 1, 3)

        def forward(self, _: Tensor) -> Tensor:
            raise ValueError("no such thing")

    gallery = Workspace.of_model(Failing(), "shapes:test/12")
    with opened(gallery) as page:
        begin_first_views(gallery)
        assert "no such thing" in page.post("traces", **first_view(gallery))["error"]
    assert not caplog.records


def test_it_is_kept_until_requested() -> None:
    gallery = Workspace.of_model(cs.load_model("shapes-cnn", seed=1))
    gallery.traces = kept = TraceStore(max_bytes=1)
    model = gallery.model("shapes-cnn")

    def make(index: int, client: str) -> str:
        shown = SampleRef(source="shapes", split="test", index=index)
        request = TraceRequest(model="shapes-cnn", input=shown)
        return kept.make(model, gallery.picture, request, client).id

    first = make(0, NOBODY)
    assert kept.get(first, NOBODY).id == first
    other = make(1, "me")
    with pytest.raises(Exception, match="request it again"):
        kept.get(first)
    assert kept.get(other, "me").id == other
    gallery.close()


def test_it_is_made_once_and_only_where_a_page_comes(static: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Workspace] = []
    monkeypatch.setattr(launch, "begin_first_views", begun.append)
    monkeypatch.setattr(launch, "has_browser", lambda: True)
    monkeypatch.setattr("webbrowser.open", lambda _: True)
    with cs.open(cs.load_model("shapes-cnn"), port=0, browser=False) as explorer:
        assert not begun
        assert explorer.show()
        threading.Timer(0.05, explorer.close).start()
        explorer.wait()
        assert len(begun) == 1
