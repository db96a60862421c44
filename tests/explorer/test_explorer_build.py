"""Train, build your own: a network made of blocks in a real browser, explained, trained, looked at."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import convscope as cs
from browser import NARROW, WIDE, accessible, keep, tab
from exploring import eventually, recorded, state, visit

BUILT = ".builder ol > li"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def explorer(folder: Path) -> Iterator[Any]:
    with cs.serve(folder, port=0, browser=False) as found:
        yield found


def names(page: Any) -> list[str]:
    return list(page.eval_on_selector_all(f"{BUILT} .head strong", "all => all.map(e => e.textContent)"))


def row(page: Any, name: str) -> Any:
    return page.get_by_role("listitem", name=re.compile(f": {name}$"))


def sums(page: Any) -> list[list[str]]:
    """The arithmetic on screen, block by block."""
    script = "all => all.map(li => [...li.querySelectorAll('.sums div')].map(e => e.innerText.replaceAll('\\n', ' ')))"
    return list(page.eval_on_selector_all(BUILT, script))


def planned(blocks: Any) -> list[list[str]]:
    return [[f"{name} {text}" for name, text in each.sums()] for each in cs.blocks.plan(blocks, classes=2).blocks]


def test_a_network_is_built_explained_trained_and_looked_at(page: Any, explorer: Any, folder: Path) -> None:
    visit(page, explorer, "?view=train", "form button")
    model, train = page.locator("form.fields select").nth(1), page.get_by_role("button", name="Train", exact=True)
    model.select_option(label="build your own")  # it begins with the blocks of the model that was chosen
    eventually(lambda: names(page), ["conv1", "tanh1", "pool1", "conv2", "tanh2", "pool2", "flatten", "fc1"])
    eventually(lambda: sums(page), planned(cs.blocks.template("shapes-cnn")))
    assert train.is_enabled()

    page.locator(".finish select").select_option(label="empty")
    page.get_by_text("The network has no blocks yet").wait_for()
    assert train.is_disabled()
    for kind in ("conv", "tanh", "linear"):
        page.get_by_role("button", name=f"+ {kind}", exact=True).click()
    page.get_by_text("a linear layer takes a list of numbers, but gets 8x28x28 maps; put flatten before it.").wait_for()
    assert train.is_disabled()
    assert page.get_by_role("button", name="Look at it untrained").is_disabled()
    accessible(page)
    page.get_by_role("button", name="insert flatten").click()
    eventually(lambda: names(page), ["conv1", "tanh1", "flatten", "fc1"])
    eventually(train.is_enabled, True)

    row(page, "tanh1").locator(".grip").focus()
    page.keyboard.press("ArrowUp")
    eventually(lambda: names(page), ["tanh1", "conv1", "flatten", "fc1"])
    page.keyboard.press("ArrowDown")  # the focus has stayed on it
    eventually(lambda: names(page), ["conv1", "tanh1", "flatten", "fc1"])
    row(page, "conv1").get_by_label("kernels").fill("3")
    row(page, "conv1").get_by_label("stride").fill("2")
    net = [
        {"block": "conv", "kernels": 3, "padding": 1, "stride": 2},
        {"block": "tanh"},
        {"block": "flatten"},
        {"block": "linear"},
    ]
    eventually(lambda: sums(page), planned(net))
    eventually(lambda: state(page)["blocks"], "conv~padding1~kernels3~stride2_tanh_flatten_linear")
    page.reload()
    eventually(lambda: sums(page), planned(net))
    eventually(train.is_enabled, True)

    page.get_by_label("Epochs").fill("2")
    train.click()
    page.wait_for_selector("text=done: step")
    run = cs.load_run(folder / state(page)["training"])
    assert [{**block} for block in run.config["model"]["args"]["blocks"]] == net
    page.get_by_role("link", name="Look").click()
    page.wait_for_selector(".viewer canvas")
    visit(page, explorer, f"?model={state(page)['model']}&step=conv1&cell=2.5.4")
    image = cs.load_image("shapes:test/0", like=run.model)
    why = cs.explain(cs.trace(run.model, image), "conv1", (2, 5, 4))
    assert why.proved
    assert recorded(page) == pytest.approx(why.recorded, rel=1e-7)


def test_a_block_is_dragged_and_the_arithmetic_follows(page: Any, explorer: Any) -> None:
    visit(page, explorer, "?view=train&blocks=conv~kernels2_max-pool_relu_flatten_linear", BUILT)
    eventually(lambda: names(page), ["conv1", "pool1", "relu1", "flatten", "fc1"])
    row(page, "relu1").locator(".grip").hover()
    page.mouse.down()
    grip, over = row(page, "relu1").locator(".grip").bounding_box(), row(page, "conv1").bounding_box()
    page.mouse.move(grip["x"] + 8, over["y"] + over["height"] + 5, steps=5)
    eventually(lambda: names(page)[:3], ["conv1", "relu1", "pool1"])  # while it is held
    page.mouse.move(grip["x"] + 8, over["y"] + 4, steps=5)
    eventually(lambda: names(page)[:3], ["relu1", "conv1", "pool1"])
    page.mouse.up()
    moved = [{"block": "relu"}, {"block": "conv", "kernels": 2}, {"block": "max-pool"}]
    eventually(lambda: sums(page)[:3], planned(moved))
    page.go_back()  # the whole drag is one step
    eventually(lambda: names(page)[:3], ["conv1", "pool1", "relu1"])
    row(page, "relu1").locator(".grip").focus()
    page.keyboard.press("Delete")
    eventually(lambda: names(page), ["conv1", "pool1", "flatten", "fc1"])


def test_a_detector_is_written_by_hand_and_looked_at_without_training(page: Any, explorer: Any) -> None:
    visit(page, explorer, "?view=train&blocks=conv~kernels1_relu", BUILT)
    row(page, "conv1").get_by_role("button", name="Weights by hand").click()
    for at, number in enumerate([-1, 1, -1, 1, 1, 1, -1, 1, -1]):
        field = page.get_by_label(f"conv1 kernel 0, channel 0, row {at // 3}, column {at % 3}", exact=True)
        field.fill(str(number))
        field.press("Enter")
    page.get_by_label("conv1 kernel 0, bias").fill("nothing")
    page.get_by_label("conv1 kernel 0, bias").press("Enter")
    page.get_by_text("“nothing” is not a number").wait_for()
    page.get_by_label("conv1 kernel 0, bias").fill("-4")
    page.get_by_label("conv1 kernel 0, bias").press("Enter")
    detector = cs.blocks.template("detector")
    eventually(lambda: state(page)["blocks"], "conv~kernels1~weight-1,1,-1,1,1,1,-1,1,-1~offset-4_relu")
    accessible(page)

    with page.expect_download() as saved:
        page.get_by_role("button", name="Save net.py").click()
    assert Path(saved.value.path()).read_text() == cs.blocks.code(detector, classes=2)
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save net.json").click()
    written = json.loads(Path(saved.value.path()).read_text())
    assert cs.blocks.code(written["blocks"], written["shape"]) == cs.blocks.code(detector)

    page.get_by_role("button", name="Look at it untrained").click()
    page.wait_for_selector(".viewer canvas")
    assert state(page)["model"].startswith("blocks-")
    visit(page, explorer, f"?model={state(page)['model']}&step=conv1&cell=0.5.4")
    model = cs.load_model("blocks", args={"blocks": detector, "classes": 2})
    why = cs.explain(cs.trace(model, cs.load_image("shapes:test/0", like=model)), "conv1", (0, 5, 4))
    assert recorded(page) == why.recorded


@pytest.mark.parametrize(
    ("size", "scheme"), [(WIDE, "light"), ((1024, 768), "dark"), (NARROW, "light")], ids=["wide", "medium", "narrow"]
)
def test_it_fits_every_window(chromium: Any, explorer: Any, tmp_path: Path, size: tuple[int, int], scheme: str) -> None:
    with tab(chromium, size=size, scheme=scheme) as page:
        visit(page, explorer, "?view=train&blocks=conv~size31_linear", f"{BUILT} .problem")
        accessible(page)
        keep(page, f"build-{scheme}-{size[0]}", tmp_path)
        page.get_by_role("button", name="size 28").click()
        by_hand = row(page, "conv1").get_by_role("button", name="Weights by hand")
        eventually(by_hand.is_disabled, True)  # 8 kernels of 784 weights
        row(page, "conv1").get_by_label("kernels").fill("1")
        by_hand.click()
        page.get_by_text("784 numbers for each kernel are too many to write").wait_for()
        accessible(page)
