"""A real browser for tests: headless Chromium that fails a test on any console error or refused content.

Without Chromium, or without a built page, tests are skipped and say why; CONVSCOPE_BROWSER=required makes that a
failure, and CONVSCOPE_BROWSER=none skips all of them, as in tests of other versions of PyTorch.
CONVSCOPE_BROWSER_SLOWER=6 makes the pages six times slower, which shows what depends on timing.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "src/convscope/server/static/index.html"
AXE = ROOT / "web/node_modules/axe-core/axe.min.js"
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser")
"""The shell first: it draws the same without the window around it, and takes half as long for a page."""
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WIDE, NARROW = (1280, 830), (390, 844)
CALM = "if (location.protocol === 'http:') localStorage.setItem('convscope-hints', 'seen')"
WATCH = (
    "window.refused = []; addEventListener('securitypolicyviolation', e => window.refused.push(e.violatedDirective))"
)


def missing(why: str) -> None:
    """Skip, or fail where a browser is required."""
    if os.environ.get("CONVSCOPE_BROWSER") == "required":
        pytest.fail(why)
    pytest.skip(why)


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium with a fresh profile."""
    if os.environ.get("CONVSCOPE_BROWSER") == "none":
        pytest.skip("CONVSCOPE_BROWSER=none leaves out the tests in a browser")
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        missing("no Chromium is installed")
    if not PAGE.exists():
        missing("the page is not built: make web")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        result = started.chromium.launch(executable_path=executable, args=list(FLAGS))
        try:
            yield result
        finally:
            result.close()


@contextmanager
def tab(
    within: Any,
    *,
    size: tuple[int, int] = WIDE,
    scheme: str = "light",
    first: bool = False,
    touch: bool = False,
    scale: float = 1,
) -> Iterator[Any]:
    """A page that must end without a console error, an exception or refused content.

    Args:
        within: The browser.
        size: Width and height of the window.
        scheme: light or dark.
        first: Whether it is a first visit, with hints.
        touch: Whether it is a telephone or a tablet: fingers, and no mouse.
        scale: Pixels of a screenshot for each CSS pixel.
    """
    viewport = {"width": size[0], "height": size[1]}
    context = within.new_context(
        viewport=viewport, color_scheme=scheme, has_touch=touch, is_mobile=touch, device_scale_factor=scale
    )
    context.set_default_timeout(int(os.environ.get("CONVSCOPE_BROWSER_TIMEOUT", "90_000")))
    context.add_init_script(WATCH)
    if not first:
        context.add_init_script(CALM)
    page = context.new_page()
    slower = float(os.environ.get("CONVSCOPE_BROWSER_SLOWER", "1"))
    if slower > 1:
        context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": slower})
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "console",
        lambda message: wrong.append(_with_address(message)) if message.type in {"error", "warning"} else None,
    )
    page.on("dialog", lambda dialog: wrong.append(f"a dialog: {dialog.message}"))
    page.forgiven = forgiven = list[str]()
    page.wrong = wrong
    try:
        yield page
        refused = page.evaluate("window.refused")
    except Exception as error:
        error.add_note(on_screen(page))
        raise
    finally:
        context.close()
    wrong = [said for said in wrong if not any(word in said for word in forgiven)]
    assert not wrong, f"the console said {wrong}"
    assert not refused, f"the content security policy refused {refused}"


def on_screen(page: Any) -> str:
    """What a page shows and what its console said, for the report of a test that waited in vain."""
    try:
        text = str(page.evaluate("document.body.innerText"))[:2000]
    except Exception as error:
        text = f"nothing that can be read: {error}"
    return f"the console said {page.wrong}; the page at {page.url.partition('#')[0]} shows:\n{text}"


def _with_address(message: Any) -> str:
    """The text of a message of the console, with the address that failed where it names one."""
    return f"{message.text} {message.location.get('url', '')}".rstrip()


def forgive(page: Any, *words: str) -> None:
    """Leave out the console's errors with these words: what a test provokes, whenever the console has it."""
    page.forgiven += words


def accessible(page: Any) -> None:
    """Assert that axe-core finds nothing wrong."""
    if not AXE.exists():
        missing("axe-core is not installed: npm --prefix web ci")
    page.evaluate(AXE.read_text())
    result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    wrong = [f"{v['id']}: {v['help']}: {[n['html'][:160] for n in v['nodes'][:3]]}" for v in result["violations"]]
    assert not wrong, "\n".join(wrong)


def keep(page: Any, name: str, folder: Path) -> None:
    """Write a screenshot, and assert that nothing is wider than the window."""
    wanted = os.environ.get("CONVSCOPE_SCREENSHOTS")
    path = Path(wanted) if wanted else folder
    path.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path / f"{name}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
