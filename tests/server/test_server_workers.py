"""The explorer's server at once and for long: its queue, its threads, and what it forgets."""

import asyncio
import http.client
import json
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from starlette.exceptions import HTTPException
from torch import Tensor, nn

import convscope as cs
from asking import opened
from convscope.server.app import make_app
from convscope.server.jobs import ClientGone, MemoryTrimmer, Workers, WorkItem
from convscope.server.session.schema import Change, SampleRef, StoredRef
from convscope.server.session.workspace import Workspace
from convscope.server.traces.passes import TraceStore
from convscope.server.traces.schema import TraceRequest
from serving import ACCESS, KEY, served


@pytest.fixture(scope="module")
def net() -> Any:
    return cs.load_model("shapes-cnn", seed=3)


# Memory


def test_the_oldest_traces_go_but_each_clients_newest_stays(net: Any) -> None:
    gallery = Workspace.of_model(net)
    model = gallery.model("shapes-cnn")
    gallery.traces = traces = TraceStore(max_bytes=300_000)

    def make(index: int, client: str) -> str:
        shown = SampleRef(source="shapes", split="test", index=index)
        request = TraceRequest(model="shapes-cnn", input=shown)
        return traces.make(model, gallery.picture, request, client).id

    mine = make(0, "me")
    others = [make(index, "another") for index in range(1, 12)]
    assert traces.get(mine).id == mine
    assert traces.get(others[-1]).id == others[-1]
    with pytest.raises(Exception, match="request it again"):
        traces.get(others[0])
    assert make(1, "another") == others[0]
    gallery.close()


def test_memory_is_given_back_once_after_heavy_work_has_ended() -> None:
    arguments = threading.Semaphore(0)

    async def strokes() -> bool:
        tidy = MemoryTrimmer(0.5, arguments.release)
        for _ in range(5):
            tidy.soon()
            await asyncio.sleep(0)
        once = await asyncio.to_thread(arguments.acquire, timeout=60)
        await asyncio.sleep(0.2)
        return once and not arguments.acquire(blocking=False)

    assert asyncio.run(strokes())


def test_a_trace_that_others_are_compared_with_stays(net: Any) -> None:
    gallery = Workspace.of_model(net)
    gallery.traces = traces = TraceStore(max_bytes=1)
    model, shown = gallery.model("shapes-cnn"), SampleRef(source="shapes", split="test", index=0)

    def make(right: int) -> str:
        change = Change(right=right)
        request = TraceRequest(model="shapes-cnn", input=shown, change=change)
        return traces.make(model, gallery.picture, request, "me").id

    base, first = make(0), make(1)
    for right in range(2, 6):
        assert traces.get(base, "me", base=True).id == base
        newest = make(right)
        for _ in range(3):
            assert traces.get(newest, "me").id == newest
    with pytest.raises(HTTPException, match="request it again"):
        traces.get(first, "me")
    gallery.close()


def test_uploads_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch, net: Any) -> None:
    monkeypatch.setattr("convscope.server.session.workspace.KEPT_BYTES", 10_000)
    gallery = Workspace.of_model(net, np.zeros((28, 28), np.uint8))
    start = gallery.model("shapes-cnn").start
    kept = [gallery.keep(f"{k}", np.full((1, 50, 50), k, np.uint8)).id for k in range(9)]
    assert start is not None
    assert gallery.picture(start)
    assert gallery.picture(StoredRef(id=kept[-1]))
    with pytest.raises(Exception, match="upload it again"):
        gallery.picture(StoredRef(id=kept[0]))
    gallery.close()


# At once


class Slow(nn.Module):
    """Waits until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go = threading.Event(), threading.Event()

    def forward(self, x: Tensor) -> Tensor:
        self.reached.set()
        assert self.go.wait(240)
        return x.flatten(1)


def test_a_slow_model_holds_up_no_other(net: Any) -> None:
    gallery, slow = Workspace.of_model(net), Slow()
    name = gallery.open(slow, np.ones((1, 4, 4), np.float32))
    with opened(gallery) as page:
        start = gallery.model(name).start
        assert start is not None
        result: list[Any] = []
        waiting = threading.Thread(target=lambda: result.append(page.trace(start.model_dump(), model=name)))
        waiting.start()
        assert slow.reached.wait(240)
        info = page.trace(model="shapes-cnn")
        assert page.get(f"traces/{info['id']}/steps/0/explain", cell="0,0,0")["proof"]["proved"]
        assert not result
        slow.go.set()
        waiting.join()
        assert result[0]["error"] is None


class Asking:
    """A request of some client, who may leave."""

    def __init__(self, client: str = "") -> None:
        self.headers = {"x-client": client}
        self.client = None
        self.left = asyncio.Event()

    async def receive(self) -> dict[str, str]:
        await self.left.wait()
        return {"type": "http.disconnect"}


def ask(workers: Workers, work: Callable[[], Any], client: str = "", key: str = "") -> tuple[Any, "asyncio.Task[Any]"]:
    request: Any = Asking(client)
    return request, asyncio.create_task(workers.run(request, key, work))


async def everyone_waits() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_clients_take_turns() -> None:
    async def many() -> list[str]:
        workers, gate, order = Workers(threads=1), threading.Event(), list[str]()
        _, first = ask(workers, lambda: gate.wait(240), "greedy")
        tasks = [ask(workers, lambda: order.append("greedy"), "greedy")[1] for _ in range(10)]
        await everyone_waits()
        tasks += [ask(workers, lambda: order.append("late"), "late")[1] for _ in range(2)]
        await everyone_waits()
        gate.set()
        await asyncio.gather(first, *tasks)
        workers.close()
        return order

    order = asyncio.run(many())
    assert [path for path, client in enumerate(order) if client == "late"] == [1, 3]


def test_work_with_one_key_runs_alone_and_what_waits_for_it_holds_no_thread() -> None:
    async def many() -> tuple[int, str]:
        workers, gate = Workers(threads=2), threading.Event()
        running, most = 0, 0

        def slow() -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            assert gate.wait(240)
            running -= 1

        tasks = [ask(workers, slow, key="slow model")[1] for _ in range(5)]
        await everyone_waits()
        other = await workers.run(Asking(), "other", lambda: "done")  # type: ignore[arg-type]  # as far as it is asked
        gate.set()
        await asyncio.gather(*tasks)
        workers.close()
        return most, other

    assert asyncio.run(many()) == (1, "done")


def test_work_without_a_waiting_client_is_dropped() -> None:
    async def leaving() -> list[str]:
        workers, gate, done = Workers(threads=1), threading.Event(), list[str]()
        _, first = ask(workers, lambda: gate.wait(240))
        request, second = ask(workers, lambda: done.append("left"))
        _, third = ask(workers, lambda: done.append("stayed"))
        await everyone_waits()
        request.left.set()
        with pytest.raises(HTTPException, match="disconnected"):
            await second
        gate.set()
        await asyncio.gather(first, third)
        workers.close()
        return done

    assert asyncio.run(leaving()) == ["stayed"]


def throw(error: type[BaseException]) -> None:
    raise error


ENDS = Counter[str]()
"""What `Halting` has done; outside the model, whose own containers are put back after each pass."""


class Halting(nn.Module):
    """Says when it has begun, waits, and then has a second layer to run."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, 3), nn.ReLU()
        self.begun, self.gate = threading.Event(), threading.Event()
        ENDS.clear()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        self.begun.set()
        assert self.gate.wait(240)
        x = self.second(x)
        ENDS["whole"] += 1
        return x


def asking(port: int, path: str, body: Any = None) -> http.client.HTTPConnection:
    """A request on its way, over a connection of its own."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=240)
    headers = {**KEY, "Content-Type": "application/json"}
    line.request("GET" if body is None else "POST", f"/api/{path}", body and json.dumps(body), headers)
    return line


def noted_jobs(monkeypatch: pytest.MonkeyPatch, gallery: Workspace) -> dict[str, WorkItem]:
    """The first word of a key -> the newest job with such a key."""
    enter, jobs = gallery.workers._enter, dict[str, WorkItem]()

    def noted(job: WorkItem) -> None:
        jobs[job.key.partition(" ")[0]] = job
        enter(job)

    monkeypatch.setattr(gallery.workers, "_enter", noted)
    return jobs


def test_a_pass_ends_where_it_is_when_its_client_leaves_and_the_model_serves_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Halting().eval()
    gallery = Workspace.of_model(model, np.ones((1, 9, 9), np.float32))
    jobs = noted_jobs(monkeypatch, gallery)
    with served(make_app(gallery, ACCESS)) as port, closing(asking(port, "session")) as line:
        shown = json.load(line.getresponse())["models"][0]
        wanted = {"model": shown["id"], "input": shown["start"]}
        with closing(asking(port, "traces", wanted)):
            assert model.begun.wait(240)
        assert jobs["model"].left.wait(240), "the server saw that the client left"
        model.gate.set()
        with closing(asking(port, "traces", wanted | {"change": {"right": 1}})) as line_of_another:
            steps = json.load(line_of_another.getresponse())["steps"]
    assert [step["op"] for step in steps] == ["convolution", "relu"]
    assert ENDS["whole"] == 1


def noted_end(ended: list[BaseException | None], tell: Any, result: Any, error: BaseException | None) -> None:
    """Keep with what a job ended."""
    ended.append(error)
    tell(result, error)


FOLLOWED = {
    "contributions": ("steps/{output}/contributions?cell=1", "convscope.proof.backward.through"),
    "paths": ("steps/{output}/paths?cell=1", "convscope.proof.paths.through"),
    "field": ("steps/{output}/field?cell=1", "convscope.probe.support.dependency_walk._through"),
    "thumbnails": ("thumbnails", "convscope.server.traces.routes.thumbnail"),
}
"""Work on a trace, by its path, and the function that it calls for each step on the way."""


@pytest.mark.parametrize("name", FOLLOWED)
def test_work_on_a_trace_ends_between_two_steps_when_its_client_leaves(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(150, 3)]
    gallery = Workspace.of_model(nn.Sequential(*layers).eval(), np.ones((1, 9, 9), np.float32))
    path, function = FOLLOWED[name]
    module, _, attribute = function.rpartition(".")
    step_by_step = getattr(import_module(module), attribute)
    jobs, begun, gate, calls = noted_jobs(monkeypatch, gallery), threading.Event(), threading.Event(), Counter[str]()

    def halting(*arguments: Any) -> Any:
        calls[calling] += 1
        begun.set()
        assert gate.wait(240)
        return step_by_step(*arguments)

    ended = list[BaseException | None]()
    with served(make_app(gallery, ACCESS)) as port:
        calling = "before"
        with closing(asking(port, "session")) as line:
            shown = json.load(line.getresponse())["models"][0]
        with closing(asking(port, "traces", {"model": shown["id"], "input": shown["start"]})) as line:
            trace = json.load(line.getresponse())
        address = f"traces/{trace['id']}/{path.format(output=trace['output'])}"
        monkeypatch.setattr(function, halting)
        calling = "left"
        with closing(asking(port, address)):
            assert begun.wait(240)
            job = jobs["trace"]
            job.tell = partial(noted_end, ended, job.tell)
        assert job.left.wait(240), "the server saw that the client left"
        gate.set()
        calling_before, calling = calling, "stayed"
        with closing(asking(port, address)) as line:  # the next one with this key: the first has ended
            assert line.getresponse().status == 200
    assert isinstance(ended[0], ClientGone)
    assert calls[calling_before] == 1 < calls["stayed"]


def test_too_many_are_told_to_come_back() -> None:
    async def flooding() -> None:
        workers, gate = Workers(threads=1, waiting=5, per_client=3), threading.Event()
        tasks = [ask(workers, lambda: gate.wait(240), "a")[1]]
        await everyone_waits()
        tasks += [ask(workers, lambda: None, "a")[1] for _ in range(3)]
        await everyone_waits()
        with pytest.raises(HTTPException, match="3 of your requests are waiting already"):
            await ask(workers, lambda: None, "a")[1]
        tasks += [ask(workers, lambda: None, "b")[1] for _ in range(2)]
        await everyone_waits()
        with pytest.raises(HTTPException) as refused:
            await ask(workers, lambda: None, "c")[1]
        assert refused.value.status_code == 503
        assert refused.value.headers == {"Retry-After": "1"}
        gate.set()
        await asyncio.gather(*tasks)
        assert await ask(workers, lambda: 7, "c")[1] == 7
        workers.close()
        with pytest.raises(HTTPException, match="shutting down"):
            await ask(workers, lambda: 7, "c")[1]

    asyncio.run(flooding())


def test_errors_reach_who_asked_and_the_thread_goes_on() -> None:
    async def failing() -> int:
        workers = Workers(threads=1)
        with pytest.raises(ZeroDivisionError):
            await ask(workers, lambda: 1 // 0, key="model")[1]
        for ends in (SystemExit, KeyboardInterrupt, GeneratorExit):
            with pytest.raises(HTTPException, match=f"ended with {ends.__name__} instead of a result"):
                await ask(workers, partial(throw, ends), key="model")[1]
        result: int = await ask(workers, lambda: 7, key="model")[1]
        workers.close()
        return result

    assert asyncio.run(failing()) == 7
