"""The explorer's promises of security; docs/explanation/security.md says which test keeps which."""

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.types import Receive, Scope, Send

import convscope as cs
from convscope.server.app import make_app
from convscope.server.http.security import Guard, is_loopback, new_token
from convscope.server.session.workspace import Workspace
from serving import ACCESS, KEY, TOKEN, asked, connected, head, served, status_of

# The table: a request is let through when, and only when, nothing about it is wrong

HOSTS = {
    "localhost:8765": True,
    "127.0.0.1": True,
    "[::1]:9": True,
    "tunnel.localhost:80": True,
    "LAB.example:443": True,
    "evil.example": False,
    "localhost.evil.example:8765": False,
    "127.0.0.1.evil.example": False,
    "0.0.0.0:8765": False,
    "localhost:8765@evil.example": False,
    "localhost, evil.example": False,
    "": False,
}
ORIGINS = {
    None: True,
    "http://{host}": True,
    "https://{host}": True,
    "null": False,
    "http://evil.example": False,
    "http://{host}.evil.example": False,
    "http://localhost:1": False,
    "file://{host}": False,
    "http://{host}/": False,
}
SITES = {None: True, "same-origin": True, "none": True, "same-site": False, "cross-site": False, "new-word": False}
METHODS = {"GET": True, "POST": True, "PUT": False, "PATCH": False, "DELETE": False, "OPTIONS": False, "TRACE": False}
TYPES = {
    "application/json": True,
    "Application/JSON; charset=utf-8": True,
    "text/plain": False,
    "application/x-www-form-urlencoded": False,
    "multipart/form-data; boundary=x": False,
    "image/png": False,
    None: False,
}
TOKENS = {
    f"Bearer {TOKEN}": True,
    f"bearer {TOKEN}": True,
    None: False,
    "Bearer ": False,
    f"Bearer {TOKEN[:-1]}": False,
    f"Bearer {TOKEN}x": False,
    f"Bearer {TOKEN.swapcase()}": False,
    f"Basic {TOKEN}": False,
    TOKEN: False,
    "Bearer \xff": False,
}


def test_the_table_of_hosts_origins_sites_methods_types_and_tokens() -> None:
    reached = 0

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal reached
        reached += 1

    guard = Guard(inner, ACCESS)

    async def all_rows() -> int:
        rows = 0
        for host, origin, site, method, kind, token in product(HOSTS, ORIGINS, SITES, METHODS, TYPES, TOKENS):
            good = (
                HOSTS[host] and ORIGINS[origin] and SITES[site] and METHODS[method] and TOKENS[token]
                and (TYPES[kind] or method == "GET")
            )  # fmt: skip
            if not good and rows % 11:  # of the many refused ones a part
                rows += 1
                continue
            rows += 1
            headers = {
                "host": host,
                "origin": origin and origin.format(host=host),
                "sec-fetch-site": site,
                "content-type": kind,
                "authorization": token,
            }
            before, status = reached, await status_of(guard, method, "/api/traces", headers)
            assert (reached > before) == good, (method, headers)
            assert good or status in {401, 403, 405, 415}, (method, headers, status)
        return rows

    assert asyncio.run(all_rows()) == 317_520


@pytest.mark.parametrize("name", ["host", "origin", "authorization", "content-type", "sec-fetch-site"])
def test_a_header_that_stands_there_twice_is_refused(client: TestClient, name: str) -> None:
    good = {"host": "localhost", "content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
    pairs = [*good.items(), (name, good.get(name, "none"))] + ([] if name in good else [(name, "none")])
    answer = client.post("/api/traces", headers=pairs, content=b"{}")
    assert answer.status_code == 400
    assert answer.json() == {"message": f"the request has 2 {name} headers; only one is allowed."}


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/assets/a.js", 403), ("/api/session", 403)])
def test_only_the_page_itself_can_be_followed_to_from_another_site(client: TestClient, path: str, status: int) -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get(path, headers=KEY | link).status_code == status
    assert client.get(path, headers=KEY | link | {"sec-fetch-dest": "iframe"}).status_code == 403
    assert client.get(path, headers=KEY | link | {"sec-fetch-mode": "no-cors"}).status_code == 403


def test_the_token_has_256_bits_is_new_each_time_and_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len({new_token() for _ in range(100)}) == 100
    assert len(new_token()) >= 43  # base64 without padding
    compared: list[tuple[bytes, bytes]] = []

    def watched(given: bytes, token: bytes) -> bool:
        compared.append((given, token))
        return False

    monkeypatch.setattr("hmac.compare_digest", watched)
    guard = Guard(make_app(None, ACCESS), ACCESS)
    assert asyncio.run(status_of(guard, "GET", "/api/x", {"host": "localhost", "authorization": "Bearer guess"})) == 401
    assert compared == [(b"guess", TOKEN.encode())]


def test_loopback_is_told_by_the_address_not_by_its_looks() -> None:
    assert all(map(is_loopback, ("localhost", "a.localhost", "127.8.9.1", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "127.1", "10.0.0.1", "localhost.", "mylocalhost", "")))


# The whole application


@pytest.fixture
def app(static: Path) -> Iterator[FastAPI]:
    gallery = Workspace.of_model(cs.load_model("crosses"))
    yield make_app(gallery, ACCESS)
    gallery.close()


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    return TestClient(app, base_url="http://localhost:8765", follow_redirects=False)


def test_every_address_under_api_wants_the_token(app: FastAPI, client: TestClient) -> None:
    addresses = app.openapi()["paths"]
    assert "/api/inputs" in addresses
    for path, methods in addresses.items():
        assert path.startswith("/api/")
        for method in methods:
            filled = path.replace("{", "").replace("}", "")
            kind = {"Content-Type": "image/png" if path == "/api/inputs" else "application/json"}
            for arguments in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": f"token={TOKEN}"}):
                answer = client.request(method, filled, headers=kind | arguments, params={"token": TOKEN})
                assert answer.status_code == 401, (method, path)
                assert "token" in answer.json()["message"]


def test_every_answer_has_the_headers_and_none_lets_others_in(client: TestClient) -> None:
    answers = [
        client.get("/"),
        client.get("/assets/a.js"),
        client.get("/nothing"),
        client.get("/open/guess"),
        client.get("/api/nothing"),
        client.get("/api/nothing", headers=KEY),
        client.get("/api/nothing", headers=KEY | {"Origin": "http://evil.example"}),
        client.options("/api/nothing", headers={"Access-Control-Request-Method": "POST"}),
        client.put("/"),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 404, 410, 401, 404, 403, 401, 405]
    for answer in answers:
        assert answer.headers["Content-Security-Policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert not [name for name in answer.headers if name.startswith("access-control") or name == "set-cookie"]
        if answer.url.path.startswith("/api"):
            assert answer.headers["Cache-Control"] == "no-store"
        if answer.status_code >= 400:
            assert list(answer.json()) == ["message"]


def test_an_invitation_leads_to_the_page_once(app: FastAPI, client: TestClient) -> None:
    code = app.state.invitations.new()
    first, second = client.get(f"/open/{code}"), client.get(f"/open/{code}")
    assert (first.status_code, first.headers["Location"]) == (303, f"/#token={TOKEN}")
    assert first.headers["Cache-Control"] == "no-store"
    assert second.status_code == 410
    assert "worked only once" in second.json()["message"]


def test_without_a_built_page_a_sentence_is_shown(client: TestClient, static: Path) -> None:
    (static / "index.html").unlink()
    answer = client.get("/")
    assert answer.status_code == 503
    assert "CONVSCOPE_NO_WEB=1" in answer.text
    with pytest.raises(cs.UsageError, match="make web"):
        cs.open("crosses", port=0, browser=False)


TRAVERSALS = (
    "/../secret.txt",
    "/assets/../../secret.txt",
    "/%2e%2e/secret.txt",
    "/..%2fsecret.txt",
    "/assets/..%2f..%2fsecret.txt",
    "/assets/%2e%2e/%2e%2e/secret.txt",
    "/..%5csecret.txt",
    "/..%252fsecret.txt",
    "//secret.txt",
    "/.sources",
    "/%00",
    "/assets/a.js%00.txt",
    "/assets//a.js",
    "/etc/passwd",
    "/file:///etc/passwd",
    "/api/../secret.txt",
    "/" + "a" * 5000,
)


def test_no_name_leads_out_of_the_built_page(app: FastAPI) -> None:
    with served(app) as port:
        assert asked(port, "/assets/a.js")[0] == 200
        for path in TRAVERSALS:
            status, answer = asked(port, path, Authorization=f"Bearer {TOKEN}")
            assert status in {404, 422}, path
            assert b"secret" not in answer.split(b"\r\n\r\n", 1)[1], path


@pytest.mark.parametrize("name", ["../etc/passwd", "..", "a/b", "http://evil.example", "/etc/passwd", "a\0b", "a" * 99])
def test_no_path_and_no_address_is_taken_as_an_id(client: TestClient, name: str) -> None:
    body = {"model": name, "input": {"kind": "stored", "id": name}}
    answer = client.post("/api/traces", headers=KEY, json=body)
    assert answer.status_code == 422
    assert "model" in answer.json()["message"]


# Mistakes are sentences


def test_what_is_not_understood_is_said_in_one_sentence(client: TestClient) -> None:
    for content in (b"", b"{", b'{"a":' * 50_000, b"\xff\xfe", b"[1" + b"0" * 5000 + b"]", b'{"\\ud800": 1}', b"NaN"):
        answer = client.post("/api/traces", headers=KEY | {"Content-Type": "application/json"}, content=content)
        assert answer.status_code in {400, 422}, content[:20]
        message = answer.json()["message"]
        assert len(message) < 700
        assert message.endswith(".")


def test_a_mistake_of_ours_tells_the_browser_no_details(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    @app.get("/api/broken")
    def broken() -> None:
        raise RuntimeError("what only the terminal sees")

    app.router.routes.insert(0, app.router.routes.pop())
    client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
    answer = client.get("/api/broken", headers=KEY)
    assert answer.status_code == 500
    assert answer.json()["message"] == "this should not have happened (RuntimeError); the server's terminal says more."
    assert "what only the terminal sees" in caplog.text


# What is not there, and what does not leak


def test_there_are_no_websockets(app: FastAPI) -> None:
    with served(app) as port:
        upgrade = {
            "connection": "Upgrade",
            "upgrade": "websocket",
            "sec_websocket_key": "x",
            "sec_websocket_version": "13",
        }
        with connected(port) as client:
            client.sendall(head("GET", "/api/session", port, **upgrade))
            assert client.recv(12) == b"HTTP/1.1 401"


def test_the_token_is_in_no_log_and_in_no_page(
    app: FastAPI, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with served(app) as port:
        logging.getLogger("uvicorn.error").setLevel(1)
        logging.getLogger("uvicorn.access").setLevel(1)
        for path in ("/", "/api/session", "/api/nothing", f"/api/nothing?token={TOKEN}"):
            _, answer = asked(port, path, authorization=f"Bearer {TOKEN}")
            assert TOKEN.encode() not in answer
    out, err = capfd.readouterr()
    assert TOKEN not in caplog.text + out + err
    assert TOKEN not in repr(ACCESS) + repr(app.state.invitations)
    assert json.dumps(TOKEN) not in json.dumps(app.openapi())


def test_the_page_on_security_names_tests_that_exist() -> None:
    tests = Path(__file__).parents[1]
    named = set(re.findall(r"`(test_\w+)`", (tests.parent / "docs" / "explanation" / "security.md").read_text()))
    written = {name for path in tests.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())}
    assert len(named) > 20
    assert named <= written, named - written
