"""Status: one vocabulary, the same in Python, in the documents, in the server's schema and on the page."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from matplotlib.figure import Figure
from torch import Tensor, nn, ones

import convscope as cs
from convscope.plot.canvas.style import ACCENT, MUTED
from convscope.plot.figures.explanation import WRONG, explanation
from convscope.proof.explanation import Explanation
from convscope.proof.status import CHECKED, PROVED, STATUSES, Status, StepStatus, Tone

ROOT = Path(__file__).parents[2]
COLORS = {"good": ACCENT, "bad": WRONG, "open": MUTED, "neutral": MUTED}


def table(name: str) -> dict[str, str]:
    """The statuses in the table of a document: status -> its meaning."""
    text = (ROOT / "docs" / name).read_text()
    body = re.search(r"\| (?:status|finding) \| mean\w+ \|\n\|---\|---\|\n((?:\|.*\n)+)", text)
    assert body is not None
    return dict(re.findall(r"^\| `([^`]+)` \| (.*) \|$", body[1], re.MULTILINE))


def test_every_status_has_a_word_a_sentence_and_a_tone() -> None:
    assert {*STATUSES} == {*get_args(Status)} > {*get_args(StepStatus)}
    for status, text in STATUSES.items():
        assert status in text.word
        assert text.sentence
        assert not text.sentence.endswith(".")
        assert text.tone in get_args(Tone)
        assert text.line == f"{text.word}: {text.sentence}"
    assert len({text.word for text in STATUSES.values()}) == len(STATUSES)


def test_a_check_mark_is_for_what_is_proved_and_for_nothing_else() -> None:
    assert {status for status, text in STATUSES.items() if text.tone == "good"} == {"proved", "proved normwise"}
    assert {status for status, text in STATUSES.items() if "✓" in text.word} == PROVED
    assert {*PROVED, "recomputed", "underived", "unresolved"} == CHECKED


@pytest.mark.parametrize(
    ("name", "statuses"), [("reference/explanation.md", Status), ("explanation/proof.md", StepStatus)]
)
def test_the_documents_list_exactly_these(name: str, statuses: Any) -> None:
    listed = table(name)
    assert {*listed} == {*get_args(statuses)}
    for status, text in STATUSES.items():
        assert text.sentence in listed.get(status, text.sentence), status


@pytest.mark.parametrize("status", STATUSES)
def test_a_plot_has_a_badge_for_each(status: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    why = cs.explain(cs.trace(nn.Linear(2, 1), ones(1, 2)), "linear", (0,))
    monkeypatch.setattr(Explanation, "status", status)
    badge = next(text for text in _texts(explanation(why)) if text.get_text() == STATUSES[status].word)
    assert badge.get_color() == COLORS[STATUSES[status].tone]
    shown = {text.get_text() for text in _texts(explanation(why))}
    assert (STATUSES[status].sentence in shown) == (status not in PROVED)
    assert why.says == STATUSES[status].line
    assert why.proved == (status in PROVED)


def _texts(figure: Figure) -> list[Any]:
    return [*figure.axes[0].texts, *(a for a in figure.axes[0].artists if hasattr(a, "get_text"))]


class Halves(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x / 2).relu()


def test_explain_and_verify_use_one_word_for_one_state() -> None:
    """What the reference alone has, and what neither has."""
    trace = cs.trace(Halves(), ones(1, 3))
    without = {name: op for name, op in cs.explain(trace, "relu", (0,)).ops.items() if name != "relu"}
    step = next(step for step in cs.verify(trace, ops=without).steps if step.name == "relu")
    assert step.finding == cs.explain(trace, "relu", (0,), ops=without).status == "recomputed"


def test_the_schema_of_the_server_has_these_statuses_and_tones() -> None:
    pytest.importorskip("fastapi")
    from convscope.server.explanations.schema import Explained, Proof

    schema = Proof.model_json_schema()
    properties = schema["properties"]
    assert properties["status"]["enum"] == [*get_args(Status)]
    assert properties["tone"]["enum"] == [*get_args(Tone)]
    assert {*properties} == {"of", "status", "word", "sentence", "tone", "proved"}
    assert Explained.model_json_schema()["$defs"]["ExplanationJson"]["properties"]["status"] == properties["status"]


def test_the_page_has_the_statuses_of_the_schema_and_no_table_of_its_own() -> None:
    page = ROOT / "web" / "src"
    if not page.exists():
        pytest.skip("the page's sources are not here")
    generated = (page / "lib" / "schema.d.ts").read_text()
    assert " | ".join(f'"{status}"' for status in get_args(Status)) in generated
    assert " | ".join(f'"{tone}"' for tone in get_args(Tone)) in generated
    badge = (page / "views" / "look" / "Badge.svelte").read_text()
    assert not [status for status in STATUSES if re.search(rf"\b{status}[\"']?:", badge)]
    for part in ("proof?.word", "proof?.sentence", "proof?.tone"):
        assert part in badge
