"""The explorer's server as a page sees it, for tests: it asks, and reads what comes."""

import json
import struct
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
from fastapi.testclient import TestClient
from numpy.typing import NDArray

import convscope as cs
from convscope.server.app import make_app
from convscope.server.http.security import Access
from convscope.server.session.workspace import Workspace

SAMPLE = {"kind": "sample", "source": "shapes", "split": "test", "index": 3}


class Page:
    """What a page does: ask, and read what comes."""

    def __init__(self, gallery: Workspace, client: TestClient) -> None:
        self.gallery, self.client = gallery, client
        self.models = [model["id"] for model in self.get("session")["models"]]

    def get(self, path: str, status: int = 200, **query: Any) -> Any:
        return self.read(self.client.get(f"/api/{path}", params=query or None), status)

    def post(self, path: str, status: int = 200, **body: Any) -> Any:
        return self.read(self.client.post(f"/api/{path}", json=body), status)

    def trace(self, shown: Any = SAMPLE, status: int = 200, model: str = "", **more: Any) -> Any:
        return self.post("traces", status, model=model or self.models[0], input=shown, **more)

    def raw(self, path: str, **query: Any) -> NDArray[np.float32]:
        answer = self.client.get(f"/api/{path}", params=query)
        assert answer.status_code == 200, answer.text
        return np.frombuffer(answer.content, "<f4").reshape(shape_of(answer))

    def pack(self, path: str, **query: Any) -> tuple[Any, bytes]:
        answer = self.client.get(f"/api/{path}", params=query)
        assert answer.status_code == 200, answer.text
        (length,) = struct.unpack("<I", answer.content[:4])
        return json.loads(answer.content[4 : 4 + length]), answer.content[4 + length :]

    @staticmethod
    def read(answer: Any, status: int) -> Any:
        assert answer.status_code == status, answer.text
        message = answer.json()
        if status != 200:
            assert message.keys() <= {"message", "fit"}
            assert message["message"].endswith("."), message
        return message if status == 200 else message["message"]


def shape_of(answer: Any) -> tuple[int, ...]:
    text = answer.headers["x-shape"]
    return tuple(map(int, text.split(","))) if text else ()


@contextmanager
def opened(gallery: Workspace) -> Iterator[Page]:
    app = make_app(gallery, Access("token"))
    headers = {"Authorization": "Bearer token"}
    with TestClient(app, base_url="http://localhost", headers=headers) as client:
        yield Page(gallery, client)


def page_of(model: Any, image: Any = None) -> AbstractContextManager[Page]:
    return opened(Workspace.of_model(model, image))


def painted(picture: NDArray[Any]) -> dict[str, Any]:
    data = urlsafe_b64encode(np.ascontiguousarray(picture, "<f4").tobytes()).decode().rstrip("=")
    return {"kind": "pixels", "shape": list(picture.shape), "data": data}


def traced(net: Any, index: int = 3, **more: Any) -> cs.Trace:
    """The trace of an image of the shapes, as the page asks for it."""
    return cs.trace(net, cs.load_image(f"shapes:test/{index}", like=net), **more)
