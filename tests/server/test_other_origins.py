"""Pages of other origins in a real browser: another port, and a name that an attacker points at this machine."""

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest

import convscope as cs
from browser import BROWSERS, FLAGS, browser

ATTEMPTS = """async ([base, token]) => {
  const result = {};
  const after = new Promise(done => setTimeout(() => done('nothing'), 3000));
  const attempt = async (name, begin) => {
    try { result[name] = await Promise.race([begin(), after]); } catch (error) { result[name] = 'refused'; }
  };
  const key = {Authorization: 'Bearer ' + token};
  const read = async response => 'read ' + response.status + await response.text();
  const ask = (path, how) => () => fetch(base + path, how).then(read);
  const event = (made, good) => new Promise(done => {
    made[good] = () => done('open');
    made.onerror = () => done('refused');
  });
  const element = (tag, attributes) => () => {
    const made = Object.assign(document.createElement(tag), attributes);
    const loaded = event(made, 'onload');
    document.body.append(made);
    return loaded;
  };
  await Promise.all([
    attempt('api', ask('/api/models')),
    attempt('api with the token', ask('/api/models', {headers: key})),
    attempt('api with cookies', ask('/api/models', {credentials: 'include'})),
    attempt('api unread', ask('/api/models', {mode: 'no-cors'})),
    attempt('page', ask('/')),
    attempt('page unread', ask('/', {mode: 'no-cors'})),
    attempt('change as text', ask('/api/trainings', {method: 'POST', body: '{}'})),
    attempt('change unread', ask('/api/trainings', {method: 'POST', body: '{}', mode: 'no-cors'})),
    attempt('change with the token', ask('/api/trainings', {method: 'POST', body: '{}', headers: key})),
    attempt('event stream', () => event(new EventSource(base + '/api/trainings/a/events'), 'onopen')),
    attempt('event stream, token', () => event(new EventSource(base + '/api/models?token=' + token), 'onopen')),
    attempt('web socket', () => event(new WebSocket(base.replace('http', 'ws') + '/api/models'), 'onopen')),
    attempt('web socket, token', () => event(new WebSocket(base.replace('http', 'ws') + '/', [token]), 'onopen')),
    attempt('image', element('img', {src: base + '/favicon.svg'})),
    attempt('script', element('script', {src: base + '/'})),
    attempt('style', element('link', {rel: 'stylesheet', href: base + '/'})),
    attempt('object', element('object', {data: base + '/'})),
    attempt('prefetch', element('link', {rel: 'prefetch', href: base + '/'})),
    attempt('frame', () => new Promise(done => {
      const frame = Object.assign(document.createElement('iframe'), {src: base + '/'});
      frame.onload = () => done(frame.contentDocument === null ? 'refused' : 'open');
      document.body.append(frame);
    })),
  ]);
  return result;
}"""
NAME = "attacker.example"


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """A page of another origin, which keeps what it is sent."""

    requests: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.requests.append(json.dumps([self.path, dict(self.headers)]))
        body = b"<!doctype html><title>elsewhere</title><body>elsewhere</body>"
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def elsewhere() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def explorer() -> Iterator[Any]:
    with cs.open(cs.load_model("shapes-cnn", seed=3), "shapes:test/12", port=0, browser=False) as opened:
        yield opened


@contextmanager
def page_of(name: str) -> Iterator[Any]:
    """A browser for which a name is an address of this machine."""
    with browser():  # skips where there is none
        pass
    playwright = pytest.importorskip("playwright.sync_api")
    executable = next(filter(None, map(shutil.which, BROWSERS)))
    with playwright.sync_playwright() as started:
        rules = f"--host-resolver-rules=MAP {name} 127.0.0.1"
        opened = started.chromium.launch(executable_path=executable, args=[*FLAGS, rules])
        try:
            yield opened.new_page()
        finally:
            opened.close()


@pytest.mark.parametrize("origin", ["127.0.0.1", "localhost", NAME])
def test_no_other_origin_reads_or_changes_anything(explorer: Any, origin: str) -> None:
    own = urlsplit(explorer.url)
    token = own.fragment.removeprefix("token=")
    with elsewhere() as port, page_of(NAME) as page:
        page.goto(f"http://{origin}:{port}/")
        for target in {"127.0.0.1", origin}:
            result = page.evaluate(ATTEMPTS, [f"http://{target}:{own.port}", token])
            assert len(result) == 19
            assert {name: said for name, said in result.items() if said not in {"refused", "nothing"}} == {}


def test_the_attempts_work_where_nothing_forbids_them() -> None:
    with elsewhere() as port, page_of(NAME) as page:
        page.goto(f"http://127.0.0.1:{port}/")
        result = page.evaluate(ATTEMPTS, [f"http://127.0.0.1:{port}", "token"])
        reached = {name for name, said in result.items() if said not in {"refused", "nothing"}}
        assert reached >= {"api", "api with the token", "page", "page unread", "object", "frame", "prefetch"}


def test_a_name_that_is_pointed_here_gets_neither_page_nor_answers(explorer: Any) -> None:
    own = urlsplit(explorer.url)
    with page_of(NAME) as page:
        assert page.goto(f"http://{NAME}:{own.port}/#{own.fragment}").status == 403
        assert "unknown host" in page.content()
        answer = page.evaluate(
            "async token => (await fetch('/api/models', {headers: {Authorization: 'Bearer ' + token}})).status",
            own.fragment.removeprefix("token="),
        )
        assert answer == 403


def test_a_link_that_is_followed_takes_no_token_along(explorer: Any) -> None:
    token = urlsplit(explorer.url).fragment.removeprefix("token=")
    with elsewhere() as port, page_of(NAME) as page:
        page.goto(explorer.url)
        page.wait_for_selector(".viewer canvas")
        assert token not in page.url
        assert token not in page.evaluate("document.documentElement.outerHTML + document.cookie + window.name")
        page.evaluate(
            "to => document.body.appendChild(Object.assign(document.createElement('a'), {href: to})).click()",
            f"http://{NAME}:{port}/next",
        )
        page.wait_for_url("**/next")
        followed = [request for request in Elsewhere.requests if "/next" in request]
        assert followed
        assert not any(token in request or "eferer" in request for request in followed)
