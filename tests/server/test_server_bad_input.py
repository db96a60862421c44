"""The explorer's server with models that fail, results that are odd and requests that are wrong: a sentence each."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convscope as cs
from asking import SAMPLE, Page, page_of, painted
from convscope.server.http.message import PAINTED
from convscope.server.http.security import MAX_JSON


@pytest.fixture(scope="module")
def net() -> Any:
    return cs.load_model("shapes-cnn", seed=3)


@pytest.fixture(scope="module")
def page(net: Any) -> Iterator[Page]:
    with page_of(net) as page:
        yield page


# Whatever can go wrong


class Failing(nn.Module):
    """Fails in its second layer, or does what it is told."""

    def __init__(self, last: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.last = last

    def forward(self, x: Tensor) -> Any:
        return self.last(self.conv(x))


def boom(_: Tensor) -> Tensor:
    raise RuntimeError("<b>out of luck</b>")


def test_a_model_that_fails_shows_what_was_before() -> None:
    with page_of(Failing(boom), np.ones((1, 8, 8), np.float32)) as page:
        info = page.trace(page.get("session")["models"][0]["start"])
        assert [step["name"] for step in info["steps"]] == ["conv"]
        assert "out of luck" in info["error"]
        assert (info["answers"], info["output"]) == ([], None)
        assert page.raw(f"traces/{info['id']}/steps/0/output").shape == (2, 6, 6)
        assert page.get(f"traces/{info['id']}/steps/0/explain", cell="0,1,1")["proof"]["proved"]


@pytest.mark.parametrize(
    "last",
    [
        torch.special.bessel_j0,
        torch.fft.fft2,
        lambda x: (x, x.sum()),
        lambda x: {"maps": x, "more": x > 0},
        lambda x: x.mean() * 0 / 0,
        lambda x: (x / 0).flatten(1),
        lambda x: x[:, :, 6:],
        lambda x: x.argmax(1),
        lambda x: x.flatten(1) * float("nan"),
    ],
)
def test_odd_results_are_answered(last: Any) -> None:
    with page_of(Failing(last), np.ones((1, 8, 8), np.float32)) as page:
        info = page.trace(page.get("session")["models"][0]["start"])
        assert info["error"] is None
        page.pack(f"traces/{info['id']}/thumbnails")
        for step in info["steps"]:
            page.raw(f"traces/{info['id']}/steps/{step['id']}/output")
            cell = ",".join("0" for _ in step["shape"])
            for path in ("explain", "proof", "contributions"):
                answer = page.client.get(f"/api/traces/{info['id']}/steps/{step['id']}/{path}", params={"cell": cell})
                assert answer.status_code in {200, 400}
                assert answer.status_code == 200 or answer.json()["message"].endswith(".")


def test_nan_and_unsupported_are_said() -> None:
    with page_of(Failing(torch.special.bessel_j0), np.ones((1, 8, 8), np.float32)) as page:
        info = page.trace(page.get("session")["models"][0]["start"])
        result = page.get(f"traces/{info['id']}/steps/{info['steps'][-1]['id']}/explain", cell="0,0,0")
        assert result["proof"]["status"] == "unsupported"
        assert result["paper"] is None
        assert "no rule explains it" in result["sentence"]
    with page_of(Failing(lambda x: (x * float("nan")).flatten(1)), np.ones((1, 8, 8), np.float32)) as page:
        info = page.trace(page.get("session")["models"][0]["start"])
        assert info["answers"][0]["value"] == "nan"
        header, _ = page.pack(f"traces/{info['id']}/thumbnails")
        assert header["items"][-1]["low"] == "nan"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"model": "other"}, 404, "unknown model 'other'"),
        ({"input": {**SAMPLE, "index": 10**6}}, 404, "has images 0 to 199"),
        ({"input": {**SAMPLE, "source": "birds"}}, 404, "unknown data source 'birds'"),
        ({"input": {"kind": "stored", "id": "x"}}, 404, "upload it again"),
        ({"input": {"kind": "pixels", "shape": [1, 28, 28], "data": "AAAA"}}, 422, "has 3,136 bytes of pixels, not 3"),
        ({"input": {"kind": "pixels", "shape": [9**9, 9**9, 9**9], "data": ""}}, 422, "bytes of pixels"),
        ({"input": {"kind": "pixels", "shape": [0, 1, 1], "data": ""}}, 422, "bytes of pixels"),
        ({"input": {"kind": "pixels", "shape": [1, 1, 1], "data": "é"}}, 422, "base64url"),
        ({"input": painted(np.full((1, 28, 28), np.nan))}, 422, "numbers from 0 to 1"),
        ({"input": painted(np.zeros((1, 9, 9)))}, 409, "choose to resize it or to pad it"),
        ({"input": painted(np.zeros((2, 28, 28)))}, 400, "channels"),
        ({"edits": [{"parameter": "conv9", "cell": [0], "values": [1]}]}, 404, "no parameter 'conv9'"),
        ({"edits": [{"parameter": "conv1.bias", "cell": [8], "values": [1]}]}, 422, "no cell 8"),
        ({"edits": [{"parameter": "conv1.bias", "cell": [-1], "values": [1]}]}, 422, "no cell -1"),
        ({"edits": [{"parameter": "conv1.bias", "cell": [0, 0], "values": [1]}]}, 422, "no cell 0, 0"),
        ({"edits": [{"parameter": "conv1.weight", "cell": [0], "values": [1]}]}, 422, "holds 9 numbers"),
        ({"at": 5}, 404, "has no history"),
        ({"change": {"noise": 3}}, 422, "not understood"),
        ({"fit": "squeeze"}, 422, "not understood"),
        ({"model": "../../etc"}, 422, "not understood"),
        ({"surprise": 1}, 422, "not understood"),
    ],
)
def test_a_bad_request_gets_a_sentence(page: Page, body: dict[str, Any], status: int, said: str) -> None:
    message = page.post("traces", status, **{"model": page.models[0], "input": SAMPLE, **body})
    assert said in message


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("traces/none", 404, "request it again"),
        ("traces/{t}/steps/99/output", 404, "steps 0 to 8"),
        ("traces/{t}/steps/0/output?channel=8", 404, "channels 0 to 7"),
        ("traces/{t}/steps/8/output?channel=0", 404, "no channels"),
        ("traces/{t}/steps/0/explain?cell=8,0,0", 400, "has no cell (8, 0, 0)"),
        ("traces/{t}/steps/0/explain?cell=1,2,x", 422, "not understood"),
        ("traces/{t}/steps/0/explain", 422, "not understood"),
        ("traces/{t}/steps/-1/output", 422, "not understood"),
        ("traces/{t}/steps/0/contributions?cell=9,9,9", 400, "has no cell"),
        ("traces/{t}/thumbnails?steps=1,99", 404, "no step 99"),
        ("traces/{t}/thumbnails?steps=1;2", 422, "not understood"),
        ("traces/{t}/thumbnails?side=5000", 422, "not understood"),
        ("traces/{t}/parameters/conv9", 404, "conv9"),
        ("traces/{t}/parameters/..%2f..%2fetc", 404, ""),
        ("traces/{t}/difference?base=none", 404, "request it again"),
        ("filtered?trace={t}&kernel=", 404, "unknown kernel"),
        ("samples?source=none", 404, "unknown data source"),
        ("samples?source=shapes&offset=100000", 404, "has images 0 to 199"),
        ("samples?source=shapes&split=other", 422, "not understood"),
    ],
)
def test_a_bad_question_gets_a_sentence(page: Page, path: str, status: int, said: str) -> None:
    assert said in page.get(path.format(t=page.trace()["id"]), status)


def test_large_answers_are_refused() -> None:
    with page_of(nn.Conv2d(1, 100, 3, padding=1), np.ones((1, 240, 240), np.float32)) as page:
        info = page.trace(page.get("session")["models"][0]["start"])
        assert "5,760,000 numbers" in page.get(f"traces/{info['id']}/steps/0/output", 413)
        assert page.raw(f"traces/{info['id']}/steps/0/output", channel=99).shape == (240, 240)


def test_a_picture_too_large_for_a_model_of_any_size_is_scaled_down() -> None:
    with page_of(cs.load_model("stripes"), np.zeros((1, 1400, 700), np.uint8)) as page:
        info = page.trace(page.get("session")["models"][0]["start"])
        assert info["input"]["shape"] == [1, 512, 256]
        assert "at most 512 pixels" in info["input"]["notes"][-1]


def test_the_largest_image_that_can_be_painted_goes_through_the_limits() -> None:
    most = PAINTED
    whole = painted(np.zeros((3, most // 3 // 353, 353), np.float32))
    with page_of(nn.Conv2d(3, 2, 3), np.zeros((3, 8, 8), np.uint8)) as page:
        assert page.get("session")["limits"]["painted"] == most
        assert page.trace(whole)["input"]["shape"] == whole["shape"]
        assert "at most" in page.trace(painted(np.zeros((1, 1, most + 3), np.float32)), 422)
    assert len(json.dumps(whole)) + 20 * 4096 < MAX_JSON, "and leaves room for a kernel that is edited"
