"""Draw the pictures of README and docs: `python scripts/docs_pictures.py [NAME ...]`, by default all of them.

Each shows the real page in Chromium, light and dark, on networks that are trained here from fixed seeds; an error on
the page's console ends the script. The page is the built one: `make pictures` builds it first. Look at each picture
before you commit it.
"""

import argparse
import io
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

import convscope as cs

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from browser import browser, tab  # tests, which their folder makes importable
from exploring import settled, visit

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SCALE = 1.5
"""Pixels for each CSS pixel: sharp where a page shows a picture 960 wide on a dense screen."""
SCHEMES = ("light", "dark")
SLID = ".slide .middle[aria-busy=false] [data-status=proved]"
SETTLED = "section[aria-label='This number'][aria-busy=false] [data-status=proved]"
DRAWN_OTHERWISE = {
    "costs.svg": "python bench/sizes.py --docs",
    "workbook.png": "LibreOffice's window on the workbook of shapes-cnn-1 and shapes:test/3: sheet conv1, cell M20, "
    "Tools > Detective > Trace Precedents",
}
"""Pictures that this script does not draw, and how they are made."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture: where the page is led, and which part of it is kept."""

    query: str
    """Address of the view in the explorer."""
    ready: str
    """Selector of what must be on screen."""
    size: tuple[int, int] = (1280, 830)
    """Width and height of the window, in CSS pixels."""
    part: str = ""
    """Selector of the part that is kept, in the whole width; "" keeps the window."""
    prepare: Callable[[Any], None] | None = None
    """What is done before."""


def choose_the_top_of_the_circle(page: Any) -> None:
    """Keep the pixel that adds most selected."""
    canvas = page.locator(".picture .viewer canvas")
    pixel = canvas.bounding_box()["width"] / 28
    canvas.click(position={"x": 18.5 * pixel, "y": 14.5 * pixel})


def slide_to_the_circle(page: Any) -> None:
    """Move the window over the first five rows, and to the edge of the circle in the sixth."""
    page.get_by_label("Output:").focus()
    a_row = [*27 * ["ArrowRight"], "ArrowDown", *27 * ["ArrowLeft"]]
    for key in [*5 * a_row, *11 * ["ArrowRight"]]:
        page.keyboard.press(key)
        page.wait_for_selector(SLID)


def open_a_gradient(page: Any) -> None:
    """Show the step, and the sum behind one gradient of its first kernel."""
    page.get_by_role("button", name="Show this step").click()
    page.get_by_role("button", name="conv1.weight.grad (0, 0, 1, 1) =").click()
    settled(page)


PICTURES = {
    "explorer": Picture(
        "?model=shapes-cnn&input=s~shapes~test~5",
        ".reasons .card",
        size=(1400, 850),
        prepare=choose_the_top_of_the_circle,
    ),
    "slide": Picture(
        "?model=shapes-cnn&input=s~shapes~test~25&step=conv1&channel=2&cell=2.0.0&slide=1",
        SLID,
        size=(1400, 800),
        prepare=slide_to_the_circle,
    ),
    "backward": Picture(
        "?model=simple-cnn&at=2&input=s~shapes~test~0&back=loss&step=conv1&cell=1.4.10", SETTLED, size=(1280, 922)
    ),
    "this-step": Picture(
        "?view=train&model=simple-cnn&at=3",
        "text=Show this step",
        size=(1024, 830),
        part="section[aria-label='This step']",
        prepare=open_a_gradient,
    ),
    "build": Picture(
        "?view=train&model=shapes-cnn"
        "&blocks=conv~kernels1~padding1~weight-1,1,-1,1,1,1,-1,1,-1~offset-4_relu_max-pool_linear",
        ".builder .problem",
        size=(1100, 830),
        part=".form",
    ),
}
"""Name -> picture; each becomes NAME-light.png and NAME-dark.png."""


def files_of(name: str) -> list[str]:
    """The files of a picture."""
    return [f"{name}-{scheme}.png" for scheme in SCHEMES]


def main(names: list[str]) -> int:
    """Draw these pictures; the exit status."""
    unknown = sorted(set(names) - set(PICTURES))
    if unknown:
        print(f"unknown picture {unknown[0]!r}; there are {', '.join(PICTURES)}.", file=sys.stderr)
        return 2
    with ExitStack() as stack:
        runs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        train(runs)
        explorer = stack.enter_context(cs.serve(runs, port=0, browser=False))
        chromium = stack.enter_context(browser())
        for name in names or PICTURES:
            for scheme, file in zip(SCHEMES, files_of(name), strict=True):
                size = write(drawn(chromium, explorer, PICTURES[name], scheme), IMAGES / file)
                print(f"{file}: {size[0]}x{size[1]} pixels, {(IMAGES / file).stat().st_size / 1000:.0f} kB")
    return 0


def train(runs: Path) -> None:
    """The networks of the pictures: that of `convscope demo`, and one with a ReLU after two epochs."""
    cs.train("shapes", seed=0, out=runs / "shapes-cnn")
    cs.train("shapes", model="simple-cnn", epochs=2, seed=0, out=runs / "simple-cnn")


def drawn(chromium: Any, explorer: Any, picture: Picture, scheme: str) -> bytes:
    """A picture in one colour scheme, as the browser's PNG."""
    with tab(chromium, size=picture.size, scheme=scheme, scale=SCALE) as page:
        visit(page, explorer, picture.query, picture.ready)
        if picture.prepare is not None:
            picture.prepare(page)
        page.mouse.move(0, 0)
        page.evaluate("document.activeElement.blur()")
        page.wait_for_load_state("networkidle")
        if not picture.part:
            return bytes(page.screenshot())
        box = page.locator(picture.part).bounding_box()
        clip = {"x": 0, "y": box["y"] + page.evaluate("scrollY"), "width": picture.size[0], "height": box["height"]}
        return bytes(page.screenshot(clip=clip, full_page=True))


def write(png: bytes, path: Path) -> tuple[int, int]:
    """Keep a picture with 256 colours, which takes a third of the room; its size.

    They are chosen to be nowhere far from the picture's own: a scale of colours keeps its course.
    """
    with Image.open(io.BytesIO(png)) as image:
        colours = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=5, dither=Image.Dither.NONE)
        colours.save(path, optimize=True)
        return image.size


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the pictures of README and docs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"by default all: {', '.join(PICTURES)}")
    sys.exit(main(parser.parse_args().names))
