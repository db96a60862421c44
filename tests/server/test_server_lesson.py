"""The routes of a lesson: screens are executed in order and once; what does not exist or fails is a sentence."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from convscope.lessons import LessonSession, parse
from convscope.server.app import make_app
from convscope.server.http.security import Access
from convscope.server.lessons import LessonService
from convscope.server.session.workspace import Workspace

PAGE = """---
title: T
minutes: 5
needs: n
---
```python
count = globals().get("count", 0) + 1
```

---

{{count}}

```question q
ask: "[a link](javascript:alert)"
answer: count
why: w
```

---

```python
1 / 0
```
"""
KEY = {"Authorization": "Bearer t", "Host": "localhost"}


def client(*, lesson: bool) -> TestClient:
    workspace = Workspace()
    service = LessonService(LessonSession(parse(PAGE)), workspace) if lesson else None
    return TestClient(make_app(workspace, Access("t"), lesson=service), headers=KEY)


def test_screens_are_executed_in_order_and_once() -> None:
    with client(lesson=True) as asked:
        assert asked.get("/api/lesson").json()["screens"] == 3
        for _ in range(2):
            blocks: list[dict[str, Any]] = asked.get("/api/lesson/screens/1").json()["blocks"]
            assert blocks[0]["html"] == "<p>1</p>\n"
            assert "href" not in blocks[1]["html"]
            assert "answer" not in blocks[1]
        reply = asked.post("/api/lesson/questions/q", json={"reply": "1"}).json()
        assert reply["right"] is True


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/api/lesson/screens/2", "lesson, line 23: ZeroDivisionError: division by zero."),
        ("/api/lesson/screens/3", "the lesson has screens 0 to 2; there is no screen 3."),
    ],
)
def test_what_fails_or_is_not_there_is_a_sentence(path: str, sentence: str) -> None:
    with client(lesson=True) as asked:
        for _ in range(2):
            assert asked.get(path).json()["message"] == sentence
        answer = asked.post("/api/lesson/questions/other", json={"reply": "1"})
        assert (answer.status_code, "no question 'other' has been shown" in answer.json()["message"]) == (404, True)


def test_without_a_lesson_the_answer_is_null_and_a_screen_a_sentence() -> None:
    with client(lesson=False) as asked:
        assert asked.get("/api/lesson").json() is None
        assert "no lesson is open" in asked.get("/api/lesson/screens/0").json()["message"]
