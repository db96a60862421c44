"""Every address of the explorer's server, asked by schemathesis with whatever its OpenAPI document allows, and more."""

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

import convscope as cs
from convscope.server.app import make_app
from convscope.server.http.security import Access
from convscope.server.openapi import document
from convscope.server.session.workspace import Workspace
from convscope.server.trainings import registry

DOCUMENT = json.loads(document())
REFUSALS = {400, 401, 403, 404, 405, 408, 409, 410, 413, 415, 422, 429}
"""Codes of requests that the server does not do; 500 and 503 would be its own failure."""
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
KEY = {"Authorization": "Bearer t", "Host": "localhost"}
REQUEST = {"model": "crosses", "input": {"kind": "sample", "source": "crosses", "split": "train", "index": 0}}
ASKED = settings(
    max_examples=15,  # beside the cases at the limits of each schema, which are explicit
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """A server on one small model; as no training is let in, whatever is asked stays without consequence."""
    gallery = Workspace.of_model(cs.load_model("crosses"), "crosses:plus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "AT_ONCE", 0)
        app = make_app(gallery, Access("t"), registry.Trainings(gallery, tmp_path_factory.mktemp("runs")))
        app.router.lifespan_context = _staying
        yield app
        app.state.probes.close()
    gallery.close()


@asynccontextmanager
async def _staying(_app: FastAPI) -> AsyncIterator[None]:
    """Each generated request starts and ends the application: what is open has to outlive that."""
    yield


@pytest.fixture(scope="module")
def known(app: FastAPI) -> dict[str, Any]:
    """What exists, so that the generated requests get further than "there is no such trace"."""
    client = TestClient(app, base_url="http://localhost", headers=KEY)
    session = client.get("/api/session").json()
    request = REQUEST | {"model": session["models"][0]["id"], "input": session["models"][0]["start"]}
    trace = client.post("/api/traces", json=request)
    assert trace.status_code == 200, trace.text
    return {
        "trace": trace.json()["id"],
        "base": trace.json()["id"],
        "step": [step["id"] for step in trace.json()["steps"]],
        "name": [parameter["name"] for parameter in trace.json()["parameters"]],
        "source": [source["id"] for source in session["sources"]],
        "kernel": session["kernels"][0]["name"],
        "request": request,
        "probe": _answered(client, request),
    }


def _answered(client: TestClient, request: dict[str, Any]) -> str:
    """The id of a question that has an answer, with a picture."""
    asked = {"question": "receptive-field", "model": request["model"], "input": request["input"], "step": "conv1"}
    info = client.post("/api/probes", json=asked).json()
    while info["state"] != "done":
        assert info["state"] != "failed", info["message"]
        time.sleep(0.01)
        info = client.get(f"/api/probes/{info['id']}").json()
    return str(info["id"])


@pytest.mark.filterwarnings("ignore:Skipped test cases with unsupported payload media types")  # two of the six
@SCHEMA.parametrize()
@ASKED
def test_no_request_makes_the_server_fail(case: "schemathesis.Case[Any]", app: FastAPI, known: dict[str, Any]) -> None:
    _make_known(case, known)
    response = case.call(app=app, base_url="http://localhost", headers=KEY)
    assert response.status_code in REFUSALS | {200}, response.text
    if response.status_code != 200:
        message = response.json()["message"]
        assert message.endswith("."), message
        assert "Traceback" not in message
    checks = [status_code_conformance]
    if not response.headers["content-type"][0].startswith(
        "text/event-stream"
    ):  # each event's data is JSON, not the body
        checks.append(response_schema_conformance)
    case.validate_response(response, checks=checks, headers=KEY)


def _make_known(case: "schemathesis.Case[Any]", known: dict[str, Any]) -> None:
    """Three of four requests speak of things that exist."""
    choice = sum(str(case.path_parameters).encode() + str(case.query).encode() + str(case.body).encode())
    if choice % 4 == 0:
        return
    for parameters in (case.path_parameters, case.query):
        for name, value in known.items():
            if parameters and name in parameters:
                parameters[name] = value[choice % len(value)] if isinstance(value, list) else value
    if case.path == "/api/traces" and isinstance(case.body, dict):
        case.body["model"] = known["request"]["model"]
        if choice % 2:
            case.body["input"] = known["request"]["input"]
    if case.path.startswith("/api/probes/{id}"):
        case.path_parameters["id"] = known["probe"]
    if case.path == "/api/probes" and isinstance(case.body, dict):
        case.body |= {"model": known["request"]["model"], "source": "crosses", "input": known["request"]["input"]}


def test_every_address_says_what_may_go_wrong() -> None:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            assert {*operation["responses"]} == {"200", "default"}, (path, method)
            problem = operation["responses"]["default"]["content"]["application/json"]["schema"]
            assert problem == {"$ref": "#/components/schemas/Problem"}, (path, method)
            assert operation.get("description") or operation.get("summary"), (path, method)


def test_the_types_of_the_page_are_those_of_the_server() -> None:
    """The generated file names every part of the document; `make web-check` compares it to the letter."""
    generated = Path(__file__).parents[2] / "web" / "src" / "lib" / "schema.d.ts"
    if not generated.exists():
        pytest.skip("the page's sources are not here")
    text = generated.read_text()
    for name in (*DOCUMENT["paths"], *DOCUMENT["components"]["schemas"]):
        assert name in text, f"{name} is missing; run `make web-types`"
