"""Layers of every kind in a real browser: their kernels, their pictures and their numbers are those of Python."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import expect
from torch import nn

import convscope as cs
from browser import keep
from exploring import answers, at, eventually, now, recorded, rows, visit, written


@contextmanager
def opened(page: Any, model: Any, image: Any) -> Iterator[Any]:
    """The explorer on a model, as long as the page is looked at."""
    with cs.open(model, image, port=0, browser=False) as explorer:
        yield explorer
        page.goto("about:blank")


def network(groups: int) -> nn.Sequential:
    """A transposed convolution, and an answer for each of its kernels."""
    torch.manual_seed(1)
    layers = nn.ConvTranspose2d(4, 6, (2, 3), stride=2, groups=groups), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(nn.Conv2d(3, 4, 1), *layers)


@pytest.mark.parametrize("groups", [1, 2])
def test_kernels_of_a_transposed_convolution_are_kernels(page: Any, groups: int) -> None:
    image, model = torch.rand(3, 5, 5), network(groups)
    weight = model.state_dict()["1.weight"].numpy()  # (input channels, kernels of a group, rows, columns)
    with opened(page, network(groups), image) as explorer:
        visit(page, explorer, "?view=kernels&layer=1.weight", "th:has-text('input 0')")
        page.get_by_label("numbers in every kernel").check()
        page.wait_for_selector("section[aria-label=Kernels] .grid")
        titles = page.eval_on_selector_all(
            "section[aria-label=Kernels] .grid > span", "all => all.map(e => e.getAttribute('title'))"
        )
        found = [float(title.rsplit(" = ", 1)[1].replace("−", "-")) for title in titles]
        split = weight.reshape(groups, 4 // groups, 6 // groups, 2, 3)
        assert found == pytest.approx(split.transpose(0, 2, 1, 3, 4).ravel().tolist(), rel=1e-6)

        visit(page, explorer, "?view=change&step=1&channel=5", "section[aria-label=Kernel] .grid")
        page.get_by_label("input channel").select_option("1")
        row, column = (1, 5) if groups == 1 else (3, 2)
        field = page.get_by_label(f"1.weight[{row}, {column}] row 1, column 2")
        eventually(
            lambda: float(field.get_attribute("title").replace("−", "-")), pytest.approx(weight[row, column, 1, 2])
        )
        field.fill("7")
        field.press("Enter")
        edited = weight.copy()
        edited[row, column, 1, 2] = 7
        eventually(lambda: now(page), answers(cs.trace(model, image, overrides={"1.weight": edited})))


def large_kernels() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(3, 4, 5), nn.Conv2d(4, 2, 7), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize("width", [1366, 390])
@pytest.mark.parametrize(("name", "shape"), [("0.weight", (4, 3, 5, 5)), ("1.weight", (2, 4, 7, 7))])
def test_large_kernels_fit_the_page_with_all_their_numbers(
    page: Any, name: str, shape: tuple[int, ...], width: int, tmp_path: Path
) -> None:
    page.set_viewport_size({"width": width, "height": 830})
    with opened(page, large_kernels(), torch.rand(3, 20, 20)) as explorer:
        visit(page, explorer, f"?view=kernels&layer={name}", "section[aria-label=Kernels] canvas, .grid")
        page.get_by_label("numbers in every kernel").check()
        grids = page.locator("section[aria-label=Kernels] .grid")
        grids.first.wait_for()
        assert grids.count() == shape[0] * shape[1]
        boxes = [grid.bounding_box() for grid in grids.all()]
        assert max(box["x"] + box["width"] for box in boxes) <= width
        titles = page.eval_on_selector_all(
            "section[aria-label=Kernels] .grid > span", "all => all.map(e => e.getAttribute('title'))"
        )
        found = [float(title.rsplit(" = ", 1)[1].replace("−", "-")) for title in titles]
        expected = large_kernels().state_dict()[name].ravel().tolist()
        assert found == pytest.approx(expected, rel=1e-6)
        keep(page, f"kernels-{shape[-1]}-{width}", tmp_path)

        visit(page, explorer, f"?step={name[0]}&cell=1.3.3", "[data-number]")
        page.get_by_role("button", name="Show the products one by one").wait_for()
        grids = page.locator(".sum .grid")
        assert grids.count() == 3
        assert max(box["x"] + box["width"] for box in (grid.bounding_box() for grid in grids.all())) <= width
        keep(page, f"window-{shape[-1]}-{width}", tmp_path)


def deep() -> Any:
    """A network of five stages, as transformers builds them."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8, 8, 8], depths=[2, 2, 2, 2], layer_type="basic", num_labels=3
    )
    return transformers.ResNetForImageClassification(config).eval()


def test_layers_of_a_deep_network_are_in_a_menu_by_module(page: Any) -> None:
    with opened(page, deep(), torch.rand(3, 64, 64)) as explorer:
        visit(page, explorer, "?view=kernels", "section[aria-label=Kernels] canvas, .grid")
        menu = page.get_by_label("Layer", exact=True)
        groups = menu.locator("optgroup").evaluate_all("all => all.map(e => [e.label, e.children.length])")
        assert groups == [[f"resnet.encoder.stages.{k}", 4 if k == 0 else 5] for k in range(4)]
        assert page.get_by_role("tab").count() == 0
        heading = page.locator("section[aria-label=Kernels] h2")
        page.get_by_role("button", name="Next layer").focus()
        page.keyboard.press("Enter")
        heading.filter(has_text="resnet.encoder.stages.0.layers.0.layer.0.convolution.weight").wait_for()
        menu.focus()
        page.keyboard.press("End")
        heading.filter(has_text="classifier.1.weight").wait_for()
        assert page.get_by_role("button", name="Next layer").is_disabled()


def test_image_and_answers_beside_a_tall_strip_stay_in_view_as_the_page_scrolls(page: Any) -> None:
    with opened(page, deep(), torch.rand(3, 64, 64)) as explorer:
        step = "resnet.encoder.stages.2.layers.1.layer.1.convolution"
        inside = step.split(".")
        folded = ",".join(".".join(inside[:depth]) for depth in range(4, len(inside)))
        visit(page, explorer, f"?step={step}&open={folded}", ".strip .answers table")
        strip = page.locator(".strip").bounding_box()
        page.set_viewport_size({"width": 1280, "height": 500})
        page.evaluate("to => scrollTo(0, to)", strip["y"] + strip["height"] - 240)
        assert page.evaluate("scrollY") > 150
        for kept in (".strip .answers table", ".strip .photo"):
            expect(page.locator(kept)).to_be_in_viewport(ratio=1)


def test_maps_of_one_number_each_are_looked_at_together(page: Any) -> None:
    model, image = deep(), torch.rand(3, 64, 64)
    trace = cs.trace(model, image)
    step = trace["resnet.pooler"]
    assert step.shape == (1, 8, 1, 1)
    with opened(page, model, image) as explorer:
        visit(page, explorer, f"?step={step.id}&cell=5.0.0", "[data-number]")
        assert recorded(page) == pytest.approx(float(step.output[0, 5, 0, 0]), rel=1e-6)
        page.locator(".viewer").focus()
        page.keyboard.press("ArrowDown")
        eventually(lambda: recorded(page), pytest.approx(float(step.output[0, 6, 0, 0]), rel=1e-6))


def test_a_picture_that_is_not_square_is_painted_in_the_size_that_the_model_gets(page: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    image = torch.rand(1, 398, 512)
    with opened(page, model, image) as explorer:
        visit(page, explorer, "?view=change", ".paper canvas")
        assert page.eval_on_selector(".paper canvas", "c => [c.height, c.width]") == [398, 512]
        photo = page.eval_on_selector(".strip .photo canvas", "c => c.height / c.width")
        assert photo == pytest.approx(398 / 512, abs=0.01)
        box = page.locator(".card .map").first.bounding_box()
        assert box["height"] / box["width"] == pytest.approx(396 / 510, abs=0.03)
        canvas = page.locator(".paper canvas")
        box = canvas.bounding_box()
        canvas.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
        page.get_by_role("heading", name="What differs").wait_for()
        page.wait_for_selector("section[aria-label='What differs'] tbody tr")
        assert page.locator(".strip .image .mono").inner_text() == "1×398×512"
        assert page.get_by_role("alert").count() == 0


def test_a_picture_that_is_too_large_to_be_painted_on_says_so(page: Any) -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with opened(page, model, torch.rand(3, 398, 512)) as explorer:
        visit(page, explorer, "?view=change", "text=This input has 611,328 numbers, more than the 375,000")
        assert page.locator(".paper").count() == 0


def kinds() -> dict[str, Any]:
    """Models with layers that explain themselves otherwise than by windows and kernels."""
    transformers = pytest.importorskip("transformers")
    small = transformers.ViTConfig(
        hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8,
        num_labels=3,
    )  # fmt: skip
    torch.manual_seed(0)
    return {
        "norm": (cs.load_model("mnist-small", seed=2), torch.rand(1, 28, 28)),
        "average": (cs.load_model("crosses", args={"published": True}), torch.rand(1, 3, 3)),
        "attention": (transformers.ViTForImageClassification(small).eval(), torch.rand(3, 16, 16)),
    }


@pytest.mark.parametrize("kind", ["norm", "average", "attention"])
def test_a_number_of_other_layers_says_what_python_says(page: Any, kind: str, tmp_path: Path) -> None:
    model, image = kinds()[kind]
    trace = cs.trace(model, image)
    pattern = {"norm": "norm", "average": "pool", "attention": "attention|softmax|matmul"}[kind]
    steps = [s for s in trace.steps if re.search(pattern, f"{s.op} {s.says}")]
    assert steps
    with opened(page, model, image) as explorer:
        for step in steps[:3]:
            cell = tuple(n // 2 for n in step.shape[1:])
            why = cs.explain(trace, step.name, cell)
            visit(page, explorer, at(step.id, *cell), ".number")
            found = rows(page)
            assert np.float32(recorded(page)) == np.float32(why.recorded)
            for label in ("calculated", "recorded by PyTorch", "difference"):
                assert f"{label} {found[label]}" in written(why)
            assert page.get_attribute("[data-status]", "data-status") == why.status
            for button in page.locator(".number :is(.lines, th) button").all_inner_texts():
                assert button in written(why)
            keep(page, f"look-{kind}-{step.id}", tmp_path)
