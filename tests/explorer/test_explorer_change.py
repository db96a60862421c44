"""Change it and see, in a real browser: what is painted, moved and typed is what the network runs with."""

import io
import re
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

import convscope as cs
from browser import NARROW, WIDE, accessible, forgive, keep, tab
from exploring import answers, drag, eventually, now, percent, said, state, visit, wander

SEED = 3
IMAGE = "shapes:test/12"
READY = "section[aria-label=Answers] tbody tr"


@pytest.fixture(scope="module")
def model() -> Any:
    """The same model once more: the server's own is traced by its threads."""
    return cs.load_model("shapes-cnn", seed=SEED)


@pytest.fixture(scope="module")
def explorer() -> Iterator[Any]:
    with cs.open(cs.load_model("shapes-cnn", seed=SEED), IMAGE, port=0, browser=False) as found:
        yield found


@pytest.fixture(scope="module")
def original(model: Any) -> cs.Trace:
    return cs.trace(model, cs.load_image(IMAGE, like=model))


@pytest.fixture
def page(chromium: Any, explorer: Any) -> Iterator[Any]:
    with tab(chromium) as found:
        visit(found, explorer, "?view=change", READY)
        yield found


def painting(page: Any) -> NDArray[np.float32] | None:
    """The painted pixels in the address, 0 to 1."""
    kind, shape, data = (*state(page).get("input", "").split("~"), "", "", "")[:3]
    if kind != "p":
        return None
    content = urlsafe_b64decode(data + "=" * (-len(data) % 4))
    return (np.frombuffer(content, np.uint8).reshape([*map(int, shape.split("x"))]) / 255).astype(np.float32)


def test_what_is_drawn_is_what_the_network_answers_to(page: Any, model: Any, original: cs.Trace) -> None:
    eventually(lambda: now(page), answers(original))
    drag(page, page.locator(".paper canvas"), (0.2, 0.2), (0.5, 0.8), (0.8, 0.3))
    image = cs.load_image(IMAGE, like=model)

    def drawn() -> bool:
        """Whether the address has a drawing: it is written when the hand rests."""
        pixels = painting(page)
        return pixels is not None and (pixels != image).sum() > 20

    def answered() -> bool:
        pixels = painting(page)
        expected = answers(cs.trace(model, image if pixels is None else pixels))
        return said(page) == [[a, b] for a, b in zip(answers(original), expected, strict=True)]

    eventually(drawn, True)
    eventually(answered, True)
    page.go_back()
    eventually(lambda: painting(page) is None, True)
    eventually(lambda: now(page), answers(original))


def test_one_pixel_by_keyboard_and_back(page: Any, model: Any, original: cs.Trace) -> None:
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("radio", name="1 pixels").click()
    page.locator(".paper").focus()
    page.keyboard.press("ArrowUp")  # the brush appears in the middle
    for key in ["ArrowUp", "ArrowLeft", "Space", "Shift+ArrowLeft", "e", "Space"]:
        page.keyboard.press(key)
    pixels = np.zeros((1, 28, 28), np.float32)
    pixels[0, 13, 13] = 1  # (13, 12) was drawn and erased again
    eventually(lambda: [] if (found := painting(page)) is None else found.tolist(), pixels.tolist())
    eventually(lambda: now(page), answers(cs.trace(model, pixels)))
    page.get_by_role("button", name="Original", exact=True).click()
    eventually(lambda: now(page), answers(original))
    eventually(lambda: painting(page) is None, True)


def test_sliders_move_the_input_and_go_back(page: Any, original: cs.Trace, model: Any) -> None:
    slider = page.get_by_role("slider", name="right", exact=True)
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    moved = np.zeros((1, 28, 28), np.float32)
    moved[:, :, 3:] = cs.load_image(IMAGE, like=model)[:, :, :-3]
    eventually(lambda: now(page), answers(cs.trace(model, moved)))
    eventually(lambda: state(page).get("change"), "x3")
    page.get_by_role("button", name="right 3; back to 0").click()
    eventually(lambda: now(page), answers(original))


def fields(page: Any) -> list[tuple[str, float]]:
    """The numbers of the kernel: as written, and in full."""
    found = page.eval_on_selector_all(
        "section[aria-label=Kernel] .grid input", "all => all.map(e => [e.value, e.title.split(',')[0]])"
    )
    return [(text, float(full.replace("−", "-"))) for text, full in found]


def test_an_edited_kernel_is_told_step_by_step_and_reset(page: Any, model: Any, original: cs.Trace) -> None:
    weight = model.conv1.weight.detach().numpy()
    eventually(lambda: [full for _, full in fields(page)], [float(w) for w in weight[0, 0].ravel()])
    assert [text for text, _ in fields(page)] == [f"{w:.4f}".replace("-", "−") for w in weight[0, 0].ravel()]

    field = page.get_by_label("conv1.weight[0, 0] row 1, column 2")
    field.fill("2.5")
    field.press("Enter")
    edited = weight.copy()
    edited[0, 0, 1, 2] = 2.5
    told(page, model, original, edited)

    page.get_by_label("Use a named kernel").select_option("sobel-x")
    edited[0, 0] = cs.filters.FILTERS["sobel-x"].kernel
    told(page, model, original, edited)

    page.reload()
    page.wait_for_selector("section[aria-label=Kernel] .grid input.moved")
    told(page, model, original, edited)
    page.get_by_role("button", name="Reset kernel").click()
    eventually(lambda: now(page), answers(original))
    eventually(lambda: [full for _, full in fields(page)], [float(w) for w in weight[0, 0].ravel()])
    eventually(lambda: "edits" in state(page), False)


@pytest.mark.parametrize("link", ["conv1.weight:0.0.1.2:2.5", "conv1.weight:0.0.1.1:9;conv1.weight:0:NUMBERS"])
def test_the_kernel_of_a_link_is_the_one_that_the_network_runs_with(
    page: Any, explorer: Any, model: Any, original: cs.Trace, link: str
) -> None:
    """Edits of one number and of a whole kernel, which this page does not write in this way."""
    edited = model.conv1.weight.detach().numpy().copy()
    if "NUMBERS" in link:
        edited[0, 0] = np.arange(9).reshape(3, 3) / 8
    else:
        edited[0, 0, 1, 2] = 2.5
    numbers = ",".join(str(float(n)) for n in edited[0, 0].ravel())
    visit(page, explorer, f"?view=change&edits={link.replace('NUMBERS', numbers)}")
    page.wait_for_selector("section[aria-label=Kernel] .grid input.moved")
    told(page, model, original, edited)


def told(page: Any, model: Any, original: cs.Trace, weight: NDArray[np.float32]) -> None:
    """Assert that every number on screen is that of a pass with these weights."""
    trace = cs.trace(model, cs.load_image(IMAGE, like=model), overrides={"conv1.weight": weight})
    eventually(lambda: [full for _, full in fields(page)], [float(w) for w in weight[0, 0].ravel()])
    eventually(lambda: now(page), answers(trace))
    changes = [
        [s.name, percent(s.changed / s.count) if s.changed else "none"] for s in cs.difference(original, trace).steps
    ]
    eventually(lambda: [row[:2] for row in differences(page)], changes)
    for row, step in zip(differences(page), cs.difference(original, trace).steps, strict=True):
        assert float(row[2].replace("−", "-")) == pytest.approx(float(step.largest), rel=1e-3)
    page.locator(".three").focus()
    page.keyboard.press("ArrowDown")
    values = [original["conv1"].output[0, 0, 0, 0], trace["conv1"].output[0, 0, 0, 0]]
    eventually(lambda: three(page), pytest.approx([*values, values[1] - values[0]], rel=1e-6))


def three(page: Any) -> list[float]:
    """A number before, now, and their difference."""
    shown = page.eval_on_selector_all(".three .number", "all => all.map(e => e.textContent.trim())")
    return [float(text.replace("−", "-")) for text in shown]


def differences(page: Any) -> list[list[str]]:
    """The list of what differs: step, share, largest."""
    found: list[list[str]] = page.eval_on_selector_all(
        ".differs tbody tr",
        "all => all.map(tr => [...tr.querySelectorAll('th, .mono')].map(e => e.textContent.trim()))",
    )
    return found


def test_a_bias_too(page: Any, model: Any) -> None:
    page.get_by_label("conv1.bias[0]").fill("-1,5")
    page.keyboard.press("Tab")
    bias = model.conv1.bias.detach().numpy().copy()
    bias[0] = -1.5
    trace = cs.trace(model, cs.load_image(IMAGE, like=model), overrides={"conv1.bias": bias})
    eventually(lambda: now(page), answers(trace))


def test_what_is_no_number_is_put_back(page: Any, original: cs.Trace) -> None:
    field = page.get_by_label("conv1.bias[0]")
    before = field.input_value()
    field.fill("much")
    field.press("Enter")
    eventually(field.input_value, before)
    assert "edits" not in state(page)
    eventually(lambda: now(page), answers(original))


def test_an_image_of_another_size_is_resized_and_padded_when_asked(page: Any) -> None:
    content = io.BytesIO()
    Image.fromarray(np.tile(np.arange(0, 240, 6, dtype=np.uint8), (20, 1))).save(content, "PNG")
    page.locator(".samples input[type=file]").set_input_files(
        {"name": "wide.png", "mimeType": "image/png", "buffer": content.getvalue()}
    )
    page.get_by_text("resized from 20x40 to 28x28").first.wait_for()
    page.wait_for_selector(READY)
    page.get_by_role("button", name="Pad instead").click()
    page.get_by_text(re.compile("padded", re.IGNORECASE)).first.wait_for()
    page.wait_for_selector(READY)
    eventually(lambda: state(page).get("fit"), "pad")


def test_a_model_of_four_channels_takes_the_opacity_of_a_picture(chromium: Any) -> None:
    content, layers = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (8, 8, 4), np.uint8)
    Image.fromarray(layers, "RGBA").save(content, "PNG")
    model = nn.Sequential(nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(72, 3))
    shown = cs.load_model(model, preprocess={"size": (8, 8), "channels": 4})
    with cs.open(shown, torch.zeros(4, 8, 8), port=0, browser=False) as opened, tab(chromium) as page:
        visit(page, opened, "?view=change", READY)
        page.locator(".samples input[type=file]").set_input_files(
            {"name": "leaf.png", "mimeType": "image/png", "buffer": content.getvalue()}
        )
        expected = layers.transpose(2, 0, 1).astype(np.float32) / 255
        eventually(lambda: now(page), answers(cs.trace(shown, expected)))
        page.goto("about:blank")


def test_a_file_that_is_no_image_gets_a_sentence(page: Any) -> None:
    forgive(page, "status of 4")
    page.locator(".samples input[type=file]").set_input_files(
        {"name": "x.png", "mimeType": "image/png", "buffer": b"nothing"}
    )
    words = "This file is not a picture that can be read here. Choose a PNG, JPEG, WebP, GIF, BMP, TIFF or PPM file."
    eventually(page.get_by_role("alert").text_content, words)


def test_a_file_that_need_not_be_sent_gets_a_sentence_at_once(page: Any, tmp_path: Path) -> None:
    chooser, alert = page.locator(".samples input[type=file]"), page.get_by_role("alert")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if "/api/inputs" in request.url else None)
    for name, size, words in [
        ("a.svg", 9, "“a.svg” is not a picture that can be read here. Choose a PNG, "),
        ("a.tif", 21_000_000, "“a.tif” has 21 MB; the limit is 20 MB. Make the picture smaller"),
    ]:
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
        chooser.set_input_files(tmp_path / name)
        alert.filter(has_text=words).wait_for()
    assert sent == []


def test_of_an_animation_the_first_picture_is_used_and_that_is_said(page: Any) -> None:
    content, frames = io.BytesIO(), [Image.new("L", (28, 28), grey) for grey in (0, 200)]
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:])
    page.locator(".samples input[type=file]").set_input_files(
        {"name": "moving.gif", "mimeType": "image/gif", "buffer": content.getvalue()}
    )
    page.get_by_text("the file has several pictures; the first one is used").wait_for()


def test_a_view_that_was_left_requests_nothing_more(page: Any) -> None:
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append(route)

    page.locator("section[aria-label=Kernel] .grid input").first.wait_for()
    page.route("**/parameters/**", hold)
    with page.expect_request("**/parameters/**"):
        wander(page, "?view=change&step=conv1&channel=1")
    wander(page, "?view=change&step=conv1&channel=2")  # waits for the answer about channel 1
    wander(page, "?view=probe")
    page.locator(".paper").wait_for(state="detached")
    before = len(held)
    for route in held:
        route.continue_()
    page.wait_for_load_state("networkidle")
    assert len(held) == before


def test_samples_are_at_hand(page: Any, model: Any) -> None:
    page.get_by_role("button", name=re.compile("shapes 3 ")).click()
    eventually(lambda: now(page), answers(cs.trace(model, cs.load_image("shapes:test/3", like=model))))


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_it_looks_right_and_is_accessible(chromium: Any, explorer: Any, size: tuple[int, int], tmp_path: Path) -> None:
    with tab(chromium, size=size) as page:
        visit(page, explorer, "?view=change&edits=conv1.weight:0.0:1,0,-1,2,0,-2,1,0,-1", READY)
        page.wait_for_selector(".three canvas")
        for scheme in ["light", "dark"]:
            page.emulate_media(color_scheme=scheme)
            accessible(page)
            keep(page, f"change-{'wide' if size == WIDE else 'narrow'}-{scheme}", tmp_path)
