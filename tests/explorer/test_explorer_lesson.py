"""A lesson beside the page, in a real browser: next and back, questions with their sums, places, untrusted files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import convscope as cs
from browser import AXE
from convscope.server.launch import serve_lesson
from exploring import eventually, state, visit

PAGE = """---
title: Mine
minutes: 5
needs: nothing
---

One <script>alert(1)</script> **strong** word, and {{40 + 2}}.

```python
import convscope as cs

model = cs.load_model("crosses", args={"published": True})
trace = cs.trace(model, cs.load_image("crosses:damaged-plus", like=model))
cs.plot.kernels(model)
```

## Two

```question middle
ask: What is in the middle?
answer: trace["conv1"].output[0, 0, 1, 1]
because: cs.explain(trace, "conv1", (0, 1, 1))
wrong:
  - answer: trace["conv1"].output[0, 0, 1, 1] - model.conv1.bias.item()
    misconception: The bias is missing.
```

```question whole
ask: Is every one of them a whole number?
answer: "False"
why: Look at them.
```

```stop
model: model
image: crosses:damaged-plus
page: step=conv1&cell=0.1.1
command: convscope explain crosses crosses:damaged-plus --at conv1:0,1,1
caption: The same window.
```

```stop
model: crosses
image: crosses:plus
page: step=conv9
caption: A place that does not exist.
```

## Three

The end.
"""


def served(tmp_path: Path, **options: Any) -> Any:
    path = tmp_path / "mine.md"
    path.write_text(PAGE, encoding="utf-8")
    session = cs.lessons.LessonSession(cs.lessons.find_lesson(str(path)), **options)
    return serve_lesson(session, port=0, browser=False)


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with served(tmp_path_factory.mktemp("lesson")) as explorer:
        yield explorer


def turn(page: Any, key: str, shown: str) -> None:
    page.keyboard.press(key)
    page.get_by_text(shown, exact=True).wait_for()


def test_a_learner_goes_through_a_lesson(page: Any, lesson: Any) -> None:
    visit(page, lesson, ready="#lesson img")
    pane = page.locator("#lesson")
    assert "One <script>alert(1)</script> strong word, and 42." in pane.inner_text()
    assert page.locator("main").inner_text() == "The lesson opens its networks here, as it comes to them."
    wide = pane.bounding_box()["width"]
    assert wide > page.viewport_size["width"] / 2
    turn(page, "n", "2 of 3")

    question = page.get_by_label("Question middle")
    question.get_by_label("Your answer").fill("minus one")
    question.get_by_role("button", name="Check").click()
    question.get_by_text("expects a number").wait_for()
    question.get_by_label("Your answer").fill("-0.0338")
    page.keyboard.press("Enter")
    question.get_by_text("The bias is missing.").wait_for()
    assert "−0.0338 + 2.2435 (conv1.bias[0]) = 2.2097" in question.inner_text()
    question.get_by_label("Your answer").fill("2.2097")
    page.keyboard.press("Enter")
    question.get_by_text("Right.").wait_for()
    other = page.get_by_label("Question whole")
    other.get_by_label("No").check()
    other.get_by_role("button", name="Check").click()
    other.get_by_text("Right.").wait_for()

    assert pane.get_by_text("no step is called 'conv9'").count() == 1
    page.get_by_role("button", name="Show it").click()
    page.wait_for_selector("[data-status=proved]")
    eventually(lambda: (state(page)["step"], state(page)["cell"]), ("conv1", "0.1.1"))
    assert "2.2097" in page.locator("main").inner_text()
    assert pane.bounding_box()["width"] < 0.7 * wide  # the network has the room now

    page.reload()
    page.get_by_text("2 of 3", exact=True).wait_for()
    turn(page, "n", "3 of 3")
    assert page.get_by_role("button", name="Next").is_disabled()
    turn(page, "b", "2 of 3")


def test_the_key_g_goes_to_the_place_and_keys_typed_into_an_answer_do_not_turn(page: Any, lesson: Any) -> None:
    visit(page, lesson, ready="#lesson img")
    turn(page, "n", "2 of 3")
    field = page.get_by_label("Question middle").get_by_label("Your answer")
    field.click()
    page.keyboard.type("nbg")
    assert field.input_value() == "nbg"
    assert page.get_by_text("2 of 3", exact=True).count() == 1
    page.get_by_text("The same window.").click()
    page.keyboard.press("g")
    eventually(lambda: state(page).get("step"), "conv1")


@pytest.mark.parametrize("width", [390, 1024, 1440])
def test_a_lesson_fits_and_is_accessible(page: Any, lesson: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    visit(page, lesson, ready="#lesson img")
    turn(page, "n", "2 of 3")
    page.get_by_role("button", name="Show it").click()
    page.wait_for_selector("[data-status=proved]")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if AXE.exists():
        page.evaluate(AXE.read_text())
        found = page.evaluate("axe.run('#lesson').then(r => r.violations.map(v => v.id + ' ' + v.nodes[0].html))")
        assert found == []


def test_code_of_a_lesson_that_is_not_trusted_does_not_run(page: Any, tmp_path: Path) -> None:
    with served(tmp_path, execute=False) as explorer:
        visit(page, explorer, ready="#lesson .screen p")
        pane = page.locator("#lesson")
        assert "The code of this lesson is not executed" in pane.inner_text()
        assert "strong word, and …." in pane.inner_text()
        turn(page, "n", "2 of 3")
        pane.get_by_text("the model 'model' is not built in").first.wait_for()
        assert page.get_by_role("button", name="Show it").count() == 0
        assert page.get_by_label("Your answer").count() == 0


def test_without_a_lesson_there_is_no_pane(page: Any, shapes: Any) -> None:
    visit(page, shapes)
    assert page.locator("#lesson").count() == 0
