"""A report opened from disk in a real browser: it asks for nothing, and its arithmetic is that of `cs.explain`."""

import itertools
import json
import math
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import convscope as cs
from browser import NARROW, accessible, browser, keep, tab
from commands import Commands
from convscope.server.explanations.explanations import explained
from convscope.standalone import passes
from convscope.standalone.document import PageContents
from exploring import recorded, settled

ASK = "path => convscope(path)"


def pictures(many: int, size: int = 28) -> list[np.ndarray[Any, Any]]:
    """Grey pictures with a bright, blurred bar each, as bytes."""
    rng = np.random.default_rng(5)
    return [np.clip(rng.normal(60 * i, 40, (1, size, size)), 0, 255).astype(np.uint8) for i in range(many)]


class Own(nn.Module):
    """Strides, dilation, groups, padding, a mean, a sigmoid: forms that the built-in networks do not use."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 6, (3, 5), stride=(2, 1), padding=(2, 1), dilation=(2, 1))
        self.b = nn.Conv2d(6, 4, 3, groups=2, bias=False)
        self.means = nn.AvgPool2d(3, stride=2, padding=1)
        self.most = nn.MaxPool2d(2, padding=1)
        self.fc = nn.Linear(4 * 2 * 5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.most(self.means(torch.sigmoid(self.b(torch.relu(self.a(x))))))
        logits: torch.Tensor = self.fc(x.flatten(1))
        return logits


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> cs.Run:
    """A trained run with its history."""
    return cs.train("shapes", model="shapes-cnn-1", epochs=1, seed=1, out=tmp_path_factory.mktemp("runs") / "shapes")


@pytest.fixture(scope="module")
def of_run(run: cs.Run, tmp_path_factory: pytest.TempPathFactory) -> cs.Report:
    """Its report, with the result of a probe."""
    trace = cs.trace(run.model, cs.load_image("shapes:test/0", like=run.model))
    probes = [cs.probe.receptive_field(trace, "conv2", (0, 4, 4))]
    return cs.report(run, "shapes:test/0-3", out=tmp_path_factory.mktemp("report") / "run.html", probes=probes)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser for this file."""
    with browser() as result:
        yield result


def opened(page: Any, path: Path) -> list[str]:
    """Open a file; the addresses that the page asks for are collected in the list."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector(".viewer canvas, .answers table, [role=alert]")
    return asked


def unequal(python: Any, browser: Any, path: str = "") -> list[str]:
    """Where two JSON values differ; bounds are sums of magnitudes, which NumPy adds in another order."""
    if isinstance(python, dict) and isinstance(browser, dict):
        keys = sorted(python.keys() | browser.keys())
        return [line for key in keys for line in unequal(python.get(key), browser.get(key), f"{path}.{key}")]
    if isinstance(python, list) and isinstance(browser, list) and len(python) == len(browser):
        parts = zip(python, browser, strict=True)
        return [line for i, (a, b) in enumerate(parts) for line in unequal(a, b, f"{path}[{i}]")]
    close = path.endswith(".bound") and math.isclose(python, browser, rel_tol=1e-12)
    return [] if python == browser or close else [f"{path}: {python!r} is {browser!r} on the page"]


def without_last_bits(answer: dict[str, Any]) -> None:
    """Browsers and NumPy may differ in the last bits of an exponential: the number in full is left out."""
    explanation = answer["explanation"]
    for place in (explanation, explanation["expr"]):
        place["value"] = round(place["value"], 14)
    explanation["difference"] = round(explanation["difference"], 14)


def compare(page: Any, model: Any, images: list[Any], cells: int) -> int:
    """Assert that sampled cells of every step are on the page what the server says of them; returns how many."""
    rng, compared = random.Random(1), 0
    for name, image in zip(page.evaluate(ASK, "traces"), images, strict=True):
        trace = cs.trace(model, cs.load_image(image, like=model))
        done: Any = type("Done", (), {"trace": trace, "id": name, "proved": []})
        for step in trace.steps:
            sampled = [tuple(rng.randrange(n) for n in step.shape[1:]) for _ in range(cells)]
            asked = [f"traces/{name}/steps/{step.id}/explain?cell={','.join(map(str, cell))}" for cell in sampled]
            answers = page.evaluate("paths => Promise.all(paths.map(convscope))", asked)
            for cell, answer in zip(sampled, answers, strict=True):
                wanted = json.loads(explained(done, step, cell).model_dump_json())
                if step.op in {"tanh", "sigmoid"}:
                    without_last_bits(wanted)
                    without_last_bits(answer)
                assert not unequal(wanted, answer), (step.name, cell)
                assert answer["explanation"]["proved"]
                compared += 1
    return compared


def test_any_of_500_cells_is_what_explain_says(page: Any, tmp_path: Path) -> None:
    model, images = cs.load_model("simple-cnn", seed=4), pictures(2)
    report = cs.report(model, images, out=tmp_path / "r.html")
    assert not report.left_out
    assert report.size == report.path.stat().st_size < 3e6
    asked = opened(page, report.path)
    assert compare(page, model, images, 50) == 500
    assert asked == [report.path.as_uri()]


def test_other_forms_of_the_operations_too(page: Any, tmp_path: Path) -> None:
    torch.manual_seed(2)
    model, images = Own().eval(), [np.random.default_rng(0).random((1, 16, 19), np.float32)]
    report = cs.report(model, images, out=tmp_path / "own.html")
    assert not report.left_out
    opened(page, report.path)
    compare(page, model, images, 10)


class Residual(nn.Module):
    """Batch norm in its three forms, a residual sum, broadcasting, transposed convolutions, a mean over the plane."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 6, (3, 2), stride=(2, 3), padding=1, groups=2)
        self.plain = nn.BatchNorm2d(6, affine=False, eps=0.5)
        self.across = nn.ConvTranspose2d(6, 2, 3, dilation=2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn(self.conv(x))
        x = self.plain(self.up(torch.relu(x) + x))
        x = self.across(x - x * torch.sigmoid(nn.functional.adaptive_avg_pool2d(x, 1)))
        return x.mean((2, 3))


def test_batch_norm_residual_sums_and_transposed_convolutions_can_be_clicked(page: Any, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = Residual().eval()
    for norm in (model.bn, model.plain):
        norm.load_state_dict({name: torch.rand_like(value * 1.0) for name, value in norm.state_dict().items()})
    images = [np.random.default_rng(i).random((1, 9, 11), np.float32) for i in range(2)]
    report = cs.report(model, images, out=tmp_path / "residual.html")
    assert not report.left_out
    opened(page, report.path)
    assert compare(page, model, images, 25) >= 500


def test_a_long_sum_is_cut_as_the_server_cuts_it(page: Any, tmp_path: Path) -> None:
    model, images = cs.load_model("mnist-convnet", seed=1), pictures(1)
    opened(page, cs.report(model, images, out=tmp_path / "r.html").path)
    trace = cs.trace(model, cs.load_image(images[0], like=model))
    name = page.evaluate(ASK, "traces")[0]
    done: Any = type("Done", (), {"trace": trace, "id": name, "proved": []})
    for step, cell, every, channel in (
        ("fc1", (3,), True, None),
        ("conv2", (1, 5, 5), False, 7),
        ("fc1", (3,), False, None),
    ):
        more = ("&all=true" if every else "") + ("" if channel is None else f"&channel={channel}")
        path = f"traces/{name}/steps/{trace[step].id}/explain?cell={','.join(map(str, cell))}{more}"
        wanted = explained(done, trace[step], cell, every=every, channel=channel)
        assert not unequal(json.loads(wanted.model_dump_json()), page.evaluate(ASK, path))


def test_a_click_shows_the_sum_and_the_page_asks_for_nothing(page: Any, run: cs.Run, of_run: cs.Report) -> None:
    asked = opened(page, of_run.path)
    page.get_by_role("button", name="shapes:test/2").click()
    page.locator(".strip [data-map][aria-label*='conv1']").first.click()
    canvas = page.locator(".viewer canvas")
    canvas.click(position={"x": 40, "y": 60})
    page.wait_for_selector(".panels h2[data-at]")  # the training step shows a number from the beginning
    settled(page)
    step, *cell = page.get_attribute(".panels h2[data-at]", "data-at").replace(".", " ").split()
    trace = cs.trace(run.model, cs.load_image("shapes:test/2", like=run.model))
    why = cs.explain(trace, int(step), tuple(map(int, cell)))
    assert recorded(page) == why.recorded
    settled(page)
    sums = page.locator(".below .lines tr", has_text="calculated").all_inner_texts()
    assert sums[0].split()[1] in str(why)
    assert asked == [of_run.path.as_uri()]


def test_it_holds_the_training_and_can_be_read_by_all(
    chromium: Any, run: cs.Run, of_run: cs.Report, tmp_path: Path
) -> None:
    for scheme, size in (("light", (1440, 900)), ("dark", NARROW)):
        with tab(chromium, size=size, scheme=scheme) as page:
            opened(page, of_run.path)
            page.wait_for_selector("section[aria-label='Why this answer'] .card, [data-status]")
            page.wait_for_selector(".strip .scroller [data-map]")
            text = page.inner_text("main")
            evaluation = cs.evaluate(run)
            for wanted in ("Confusion matrix", f"of {evaluation.confusion.sum()} images", "One training step"):
                assert wanted in text
            assert "receptive field" in text
            keep(page, f"report-{scheme}", tmp_path)
            accessible(page)
            page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
            assert page.get_attribute("html", "data-theme") == "light"
            page.emulate_media(media="print")
            assert not page.locator("header .theme").is_visible()


def test_a_printed_report_cuts_off_no_step(chromium: Any, of_run: cs.Report) -> None:
    """On a page of paper, which is narrower than the network."""
    with tab(chromium, size=(680, 1000)) as page:
        opened(page, of_run.path)
        page.wait_for_selector(".strip .scroller [data-map]")
        page.emulate_media(media="print")
        box, answers = (page.locator(f".strip {part}").bounding_box() for part in (".scroller", ".answers"))
        assert page.evaluate("(s => s.scrollWidth <= s.clientWidth)(document.querySelector('.strip .scroller'))")
        assert answers["y"] >= box["y"] + box["height"]
        assert not page.locator(".pager button").first.is_visible()
        lefts = page.evaluate(
            "['#numbers', '.this-step h2'].map(at => document.querySelector(at).getBoundingClientRect().left)"
        )
        assert lefts[0] == lefts[1]


def test_the_training_step_can_be_clicked(page: Any, run: cs.Run, of_run: cs.Report) -> None:
    asked = opened(page, of_run.path)
    model = run.model
    images = np.stack([np.asarray(cs.load_image(f"shapes:test/{i}", like=model)) for i in range(4)])
    labels = [cs.load_dataset("shapes", split="test").labels[i] for i in range(4)]
    trace = cs.trace(run, images, target=[int(label) for label in labels])
    step = page.locator("section[aria-label='One training step'].this-step")
    for cell in step.get_by_role("group", name="kernel 0").get_by_role("button").all()[:3]:
        name, where = re.fullmatch(r"(.+) \((.+)\) = .*", cell.get_attribute("aria-label")).groups()  # type: ignore[union-attr]
        cell.click()
        step.locator(f"h2[data-at='{trace[name].id} {where.replace(', ', '.')}']").wait_for()
        step.locator("[data-status=proved]").wait_for()
        index = tuple(map(int, where.split(", ")))
        shown = float(step.locator("h2 [data-number]").get_attribute("data-number"))
        assert shown == cs.explain(trace, name, index).recorded
    step.locator(".loss button").click()
    step.locator(f"h2[data-at='{trace['loss'].id} ']").wait_for()
    assert asked == [of_run.path.as_uri()]


def test_it_works_in_a_frame_that_may_only_run_scripts(page: Any, of_run: cs.Report) -> None:
    frame = of_run.path.with_name("frame.html")
    frame.write_text(f'<!doctype html><iframe sandbox="allow-scripts" src="{of_run.path.name}" width=1200 height=800>')
    page.goto(frame.as_uri())
    inside = page.frame_locator("iframe")
    inside.get_by_role("button", name="shapes:test/1").click()
    inside.locator(".strip [data-map][aria-label*='pool1']").first.click()
    inside.locator(".viewer canvas").click(position={"x": 30, "y": 30})
    inside.locator(".below [data-status=proved]").wait_for()
    assert inside.locator(".below h2[data-at]").count() == 1
    step = inside.locator(".this-step")
    step.locator(".loss button").click()
    step.get_by_role("heading", name="loss").wait_for()


HOSTILE = '</script><img src=x onerror="alert(1)">\u202egnp'


def test_hostile_names_are_text(page: Any, tmp_path: Path) -> None:
    model = nn.Sequential()
    model.add_module(HOSTILE.replace(".", ""), nn.Conv2d(1, 2, 3))
    model.add_module("flat", nn.Flatten())
    model.add_module("fc", nn.Linear(2 * 4 * 4, 2))
    model.convscope = cs.Card(HOSTILE, classes=(HOSTILE, "<!--"))  # type: ignore[assignment]
    report = cs.report(model, np.random.default_rng(0).random((1, 6, 6), np.float32), out=tmp_path / "r.html")
    content = report.path.read_text()
    assert content.count("</script>") == 2
    assert "\u202e" not in content.partition("<body>")[0]
    asked = opened(page, report.path)
    page.locator(".strip [data-map][aria-label*='channel 0']").first.click()
    assert page.locator("img").count() == 0
    assert asked == [report.path.as_uri()]


def test_what_does_not_fit_is_left_out_and_named(page: Any, tmp_path: Path) -> None:
    wide = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4))
    image = torch.rand(3, 120, 120)
    report = cs.report(wide, [image], out=tmp_path / "r.html", limit=0.9)
    assert report.size < 0.9e6
    assert "0" in report.left_out[0]
    assert "the numbers of 0" in report.left_out[0].lower()
    opened(page, report.path)
    assert report.left_out[0] in page.inner_text("main")
    page.locator(".strip [data-map][aria-label='0, channel 0']").click()
    assert "convscope report --limit" in page.inner_text("[role=alert]")


class Half(nn.Module):
    """A model that fails half way."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.fc = nn.Linear(7, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(self.conv(x).flatten(1))
        return logits


def test_a_model_that_fails_half_way_is_said_to(tmp_path: Path) -> None:
    report = cs.report(Half(), np.random.default_rng(0).random((1, 6, 6), np.float32), out=tmp_path / "r.html")
    assert re.match(r"The steps that did not run: .*expects 7 numbers", report.left_out[0])


def test_edges_without_their_weights_say_so_calmly(page: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 58 * 58, 8))
    report = cs.report(wide, [torch.rand(1, 60, 60)], out=tmp_path / "r.html", limit=0.5)
    assert "2.weight" in " ".join(report.left_out)
    opened(page, report.path)
    page.locator(".strip [data-map][aria-label^='2, ']").first.click()
    edges = page.get_by_role("region", name="Edges")
    edges.get_by_text("The parameter 2.weight is not in this file.").wait_for()
    assert edges.get_by_role("alert").count() == 0


def test_what_is_left_out_depends_on_counted_work_and_names_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a slow machine too, a report holds the paths of ten images of 128 channel pairs."""
    clock = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    model = cs.load_model("shapes-cnn", seed=1)
    assert cs.report(model, "shapes:test/0-9", out=tmp_path / "r.html").left_out == ()
    monkeypatch.setattr(passes, "PATHS", 0)
    (line,) = cs.report(model, "shapes:test/0-1", out=tmp_path / "r.html").left_out
    assert line == "Some contributions of pixels and paths: calculating them takes long; the explorer shows them."


def test_the_size_counts_what_is_written() -> None:
    rng, contents = np.random.default_rng(1), PageContents(400_000)
    added = [contents.tensor(rng.random((50, k + 1)).astype(np.float32)) for k in range(300)]
    assert added[0] == 0
    assert added[-1] is None
    assert contents.room_for({"text": "x" * 1000})
    assert len(contents.encoded({"text": "x" * 1000})) < 400_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["crosses", "crosses:nothing"], "no image of crosses"),
        (["crosses", "--limit", "0.1"], "use a larger limit"),
        (["shapes-cnn", "shapes:test/9-2"], "a range counts up, such as shapes:test/0-9"),
        (["crosses", "-o", "nowhere/r.html"], "nowhere is not a folder; create it first"),
    ],
)
def test_a_report_that_cannot_be_made_is_one_sentence(
    arguments: list[str], words: str, convscope: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = convscope("report", *arguments)
    assert result.status != 0
    assert words in result.err
    assert "Traceback" not in result.err
    assert not list(tmp_path.iterdir())


def test_the_command_writes_it(convscope: Commands, tmp_path: Path) -> None:
    result = convscope("report", "crosses", "crosses:plus", "crosses:x", "-o", str(tmp_path / "r.html"))
    assert "crosses, 2 images" in result.out
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs/how-to/report.md").read_text(encoding="utf-8")
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], {})  # it is our own
    assert (tmp_path / "crosses.html").stat().st_size < 400_000
