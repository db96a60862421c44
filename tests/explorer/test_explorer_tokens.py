"""Tokens on the photo, in a real browser: the patch of a token, and what an attention head looks at from there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convscope as cs
from browser import NARROW, WIDE, accessible, forgive, keep, tab
from exploring import at, eventually, recorded, settled, state, visit

TOKENS = "section[aria-label='Tokens on the photo']"
ROWS, COLUMNS, HEADS, WIDTH = 3, 4, 2, 6


class Transformer(nn.Module):
    """The smallest vision transformer: patches of 5 x 5 pixels, a class token, one attention with two heads."""

    def __init__(self, *, written_out: bool = False) -> None:
        super().__init__()
        self.written_out = written_out
        torch.manual_seed(2)
        self.cut = nn.Conv2d(1, HEADS * WIDTH, 5, stride=5)
        self.first = nn.Parameter(torch.randn(1, 1, HEADS * WIDTH))
        self.qkv = nn.Linear(HEADS * WIDTH, 3 * HEADS * WIDTH)
        self.answer = nn.Linear(HEADS * WIDTH, 3)

    def heads(self, image: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values, each of shape (1, heads, tokens, width)."""
        tokens = torch.cat([self.first, self.cut(image).flatten(2).transpose(1, 2)], 1)
        qkv = 2 * self.qkv(tokens)
        parts: tuple[Tensor, ...] = qkv.reshape(1, -1, 3, HEADS, WIDTH).permute(2, 0, 3, 1, 4).unbind(0)
        return parts

    def forward(self, image: Tensor) -> Tensor:
        query, key, value = self.heads(image)
        if self.written_out:
            mixed = torch.softmax(query @ key.mT / WIDTH**0.5, -1) @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value)
        answer: Tensor = self.answer(mixed.transpose(1, 2).flatten(2)[:, 0])
        return answer


@pytest.fixture(scope="module")
def transformer() -> Iterator[tuple[Any, cs.Trace, np.ndarray]]:
    """The explorer, the pass, and the shares of attention, of shape (heads, tokens, tokens), by PyTorch."""
    model = Transformer().eval()
    torch.manual_seed(4)
    image = torch.rand(1, 5 * ROWS, 5 * COLUMNS)
    query, key, _ = model.heads(image[None])
    shares = torch.softmax(query @ key.mT / WIDTH**0.5, -1)[0].detach().numpy()
    with cs.open(model, image, port=0, browser=False) as explorer:
        yield explorer, cs.trace(model, image), shares


def attention_of(trace: cs.Trace) -> cs.Step:
    return next(step for step in trace.steps if "scaled_dot_product" in step.op)


def drawn(page: Any) -> np.ndarray:
    """How visible each patch is, from 0 (covered) to 255."""
    page.wait_for_selector(f"{TOKENS} canvas[data-shares]")
    covered = page.eval_on_selector(
        f"{TOKENS} canvas[data-shares]",
        "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, i) => i % 4 === 3)",
    )
    return 255 - np.array(covered)


def test_the_photo_shows_what_a_head_attends_to(page: Any, transformer: tuple[Any, cs.Trace, np.ndarray]) -> None:
    explorer, trace, shares = transformer
    step = attention_of(trace)
    for head, token in ((0, 6), (1, 0)):
        visit(page, explorer, f"?step={step.name}&cell={head}.{token}.2", TOKENS)
        part = shares[head, token]
        best = sorted(range(len(part)), key=lambda i: -part[i])[:3]
        page.wait_for_selector(f"{TOKENS}[aria-busy=false] [data-share]")
        texts = page.eval_on_selector_all(f"{TOKENS} [data-share]", "all => all.map(e => Number(e.dataset.share))")
        assert texts == pytest.approx(part[best].tolist(), rel=1e-4)
        visible = 255 - 225 * (1 - part[1:] / part.max())
        np.testing.assert_allclose(drawn(page), visible, atol=1.0)
        assert page.locator(f"{TOKENS} h2").inner_text().startswith(f"Attention of head {head} from ")


def test_pointing_at_a_patch_shows_where_it_looks(page: Any, transformer: tuple[Any, cs.Trace, np.ndarray]) -> None:
    explorer, trace, shares = transformer
    visit(page, explorer, f"?step={attention_of(trace).name}&cell=1.0.4", f"{TOKENS} canvas[data-shares]")
    photo = page.locator(f"{TOKENS} .photo")
    box = photo.bounding_box()
    heading = page.locator(f"{TOKENS} h2")
    for row, column in ((1, 2), (0, 1)):
        photo.hover(position={"x": box["width"] * (column + 0.5) / COLUMNS, "y": box["height"] * (row + 0.5) / ROWS})
        eventually(heading.inner_text, f"Attention of head 1 from patch row {row}, column {column}")
        part = shares[1, 1 + row * COLUMNS + column]
        np.testing.assert_allclose(drawn(page), 255 - 225 * (1 - part[1:] / part.max()), atol=1.0)
    page.mouse.move(0, 0)
    eventually(heading.inner_text, "Attention of head 1 from the class token")
    assert state(page)["cell"] == "1.0.4"
    forgive(page, "willReadFrequently")  # this test reads the canvas more than once


def test_attention_that_is_written_out_is_shown_as_well(page: Any) -> None:
    model, image = Transformer(written_out=True).eval(), torch.rand(1, 5 * ROWS, 5 * COLUMNS)
    trace = cs.trace(model, image)
    softmax = next(step for step in trace.steps if "softmax" in step.op)
    with cs.open(model, image, port=0, browser=False) as explorer:
        visit(page, explorer, at(softmax.id, 1, 3, 8), TOKENS)
        part = softmax.output[0, 1, 3]
        np.testing.assert_allclose(drawn(page), 255 - 225 * (1 - part[1:] / part.max()), atol=1.0)
        page.goto("about:blank")


def test_a_click_on_a_patch_chooses_its_token(page: Any, transformer: tuple[Any, cs.Trace, np.ndarray]) -> None:
    explorer, trace, _ = transformer
    step = attention_of(trace)
    visit(page, explorer, f"?step={step.name}&cell=1.0.4", TOKENS)
    box = page.locator(f"{TOKENS} .photo").bounding_box()
    place = {"x": box["width"] * 2.5 / COLUMNS, "y": box["height"] * 1.5 / ROWS}
    page.locator(f"{TOKENS} .photo").click(position=place)
    token = 1 + 1 * COLUMNS + 2
    eventually(lambda: state(page)["cell"], f"1.{token}.4")
    assert recorded(page) == float(step.output[0, 1, token, 4])
    frame = page.locator(f"{TOKENS} [data-frame=window]")
    assert frame.evaluate("e => [e.style.top, e.style.left, e.style.height, e.style.width].map(parseFloat)") == (
        pytest.approx([100 / ROWS, 200 / COLUMNS, 100 / ROWS, 100 / COLUMNS], rel=1e-3)
    )
    page.locator(f"{TOKENS} .tokens button").click()
    eventually(lambda: state(page)["cell"], "1.0.4")
    eventually(frame.count, 0)  # the class token is no patch


def test_tokens_of_other_steps_have_their_patch_too(page: Any, transformer: tuple[Any, cs.Trace, np.ndarray]) -> None:
    explorer, trace, _ = transformer
    step = next(step for step in trace.steps if step.op == "cat")
    visit(page, explorer, f"?step={step.name}&cell=12.3", TOKENS)
    page.get_by_text(f"belongs to patch row {ROWS - 1}, column {COLUMNS - 1}").wait_for()
    assert page.locator(f"{TOKENS} canvas[data-shares]").count() == 0
    visit(page, explorer, "?step=cut&cell=1.2.3")
    settled(page)
    assert page.locator(TOKENS).count() == 0


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_it_looks_right_and_is_accessible(
    chromium: Any, transformer: tuple[Any, cs.Trace, np.ndarray], size: tuple[int, int], tmp_path: Path
) -> None:
    explorer, trace, _ = transformer
    with tab(chromium, size=size) as page:
        visit(page, explorer, f"?step={attention_of(trace).name}&cell=0.6.2", f"{TOKENS} canvas[data-shares]")
        settled(page)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            accessible(page)
            keep(page, f"tokens-{size[0]}-{scheme}", tmp_path)
