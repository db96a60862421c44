"""The explorer, measured in a real browser and by plain clients: `python bench/explorer.py`.

Times run from the event in the page to the last picture or number that it caused; the server is a process of its own.
"""

import argparse
import http.client
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch

import convscope as cs
from measure import header

MEGABYTE = 1_000_000
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-extensions"]
QUIET = 250  # milliseconds without anything new: then the page is up to date
WATCH = """
localStorage.setItem('convscope-hints', 'seen');
window.seen = {event: 0, maps: 0, strip: 0, answers: 0, viewer: 0, number: 0};
const now = () => performance.now();
const inside = (node, selector) => (node.nodeType === 1 ? node : node.parentElement)?.closest?.(selector);
for (const name of ['putImageData', 'drawImage']) {
  const plain = CanvasRenderingContext2D.prototype[name];
  CanvasRenderingContext2D.prototype[name] = function (...args) {
    plain.apply(this, args);
    if (!inside(this.canvas, '.paper')) window.seen.maps = now();
    if (inside(this.canvas, '.strip')) window.seen.strip = now();
    if (inside(this.canvas, '.viewer')) window.seen.viewer = now();
  };
}
new MutationObserver(changes => {
  for (const {target} of changes) {
    if (inside(target, '[aria-label=Answers], .answers')) window.seen.answers = now();
    if (inside(target, "[aria-label='This number']")) window.seen.number = now();
  }
}).observe(document, {subtree: true, childList: true, characterData: true, attributes: true});
for (const kind of ['pointermove', 'pointerup', 'keydown'])
  addEventListener(kind, () => { window.seen.event = now(); }, true);
"""


def serve(which: str) -> None:
    """Be the server, as `convscope open` is: say where, and then wait.

    On each line of standard input it says how much memory is taken beyond model and trace.
    """
    model, image = opened(which)
    before = resident()
    with cs.open(model, image, port=0, browser=False) as explorer:
        print(explorer.url, flush=True)
        threading.Thread(target=measured, args=(model, image, before), daemon=True).start()
        explorer.wait()


def measured(model: Any, image: str, before: int) -> None:
    for _ in sys.stdin:
        time.sleep(2)  # a second after heavy work memory is given back
        taken = resident() - before
        numbers = numbers_of(cs.trace(model, cs.load_image(image, like=model)))
        print((taken - numbers) / MEGABYTE, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


def numbers_of(trace: cs.Trace) -> int:
    """Bytes of all numbers of a trace, those of views counted once."""
    return sum(4 * math.prod(ref.shape) for step in trace.all_steps if not step.view for ref in step.results)


def opened(which: str) -> tuple[Any, str]:
    if which != "resnet-50":
        return cs.load_model(which, seed=0), "shapes:test/12"
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    return ResNetForImageClassification(ResNetConfig()).eval(), str(photo())


def photo() -> Path:
    """The photo of the data folder, else coloured noise of its size."""
    import tempfile

    from PIL import Image

    found = Path(os.environ.get("CONVSCOPE_DATA", ".")) / "images" / "dog.jpg"
    if found.is_file():
        return found
    made = Path(tempfile.mkdtemp()) / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)).save(made)
    return made


def resident() -> int:
    """Bytes that this process holds now; pages of files, which the system may drop at any time, are not its own."""
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    return sum(int(words[1]) * 1024 for words in lines if words[0] in {"RssAnon:", "VmSwap:"})


@contextmanager
def served(which: str) -> Iterator[tuple[str, Any]]:
    """A server of this model in a process of its own: its address, and a function that asks for its memory."""
    command = [sys.executable, __file__, "--serve", which]
    calm = {**os.environ, "OMP_WAIT_POLICY": "passive"}  # as `convscope open` has it
    with subprocess.Popen(command, env=calm, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        asked, said = process.stdin, process.stdout
        assert asked is not None
        assert said is not None
        url = said.readline().strip()

        def memory() -> float:
            asked.write("\n")
            asked.flush()
            return float(said.readline())

        try:
            yield url, memory
        finally:
            asked.close()


@contextmanager
def page_of() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        context = browser.new_context(viewport={"width": 1280, "height": 830})
        context.add_init_script(WATCH)
        yield context.new_page()
        browser.close()


def quiet(page: Any, must: str, *also: str) -> float:
    """Wait until these parts are up to date, of which one must change; milliseconds from the event to the last."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        page.wait_for_timeout(QUIET / 3)
        seen = page.evaluate("({...window.seen, now: performance.now()})")
        last = max(seen[part] for part in (must, *also))
        if seen[must] > seen["event"] and seen["now"] - last > QUIET:
            return float(last - seen["event"])
    raise TimeoutError(f"nothing new in the {must}")


def said(name: str, times: list[float]) -> None:
    ranked = sorted(times)
    tail = ranked[min(len(ranked) - 1, math.ceil(0.95 * len(ranked)) - 1)]
    print(f"- {name}: median {statistics.median(times):.0f} ms, 95th percentile {tail:.0f} ms (n = {len(times)})")


def drawing(page: Any, url: str, repeats: int) -> None:
    """From a pen stroke to the maps and probabilities that it leads to."""
    page.goto(url.replace("#", "?view=change#"))
    page.wait_for_selector(".paper canvas")
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Clear").click()
    box = page.locator(".paper canvas").bounding_box()
    times, strip = [], []
    for turn in range(repeats + 5):  # each on a spot of its own
        x, y = (box["x"] + box["width"] * (turn % 8 + 0.5) / 8, box["y"] + box["height"] * (turn // 8 % 8 + 0.5) / 8)
        page.mouse.move(x, y)
        page.mouse.down()
        page.wait_for_timeout(300)
        page.mouse.move(x + 16, y + 9)
        times.append(quiet(page, "strip", "maps", "answers"))
        strip.append(page.evaluate("Math.max(window.seen.strip, window.seen.answers) - window.seen.event"))
        page.mouse.up()
    said("pen stroke to the maps of all steps and the probabilities", strip[5:])
    said("and to the large map beside the original's and their difference", times[5:])


def cells(page: Any, url: str, query: str, name: str, repeats: int) -> None:
    """From a click on a cell to its calculation."""
    page.goto(url.replace("#", f"{query}#"))
    page.wait_for_selector(".viewer canvas")
    page.wait_for_timeout(2500)
    canvas = page.locator(".viewer canvas")
    box = canvas.bounding_box()
    times = []
    for turn in range(repeats + 3):
        x, y = np.random.default_rng(turn).random(2)
        canvas.click(position={"x": box["width"] * x, "y": box["height"] * y})
        times.append(quiet(page, "number"))
    said(name, times[3:])


def steps(page: Any, repeats: int) -> None:
    """From a key on a map of the strip to the large map."""
    maps = page.locator(".strip [data-map]")
    times = []
    for turn in range(repeats):
        maps.nth(turn % min(12, maps.count())).focus()
        page.keyboard.press("Enter")
        times.append(quiet(page, "viewer"))
    said("a step opened", times)


def first_view(page: Any, url: str) -> None:
    """The first view of a deep network, and what it transfers."""
    wire = page.context.new_cdp_session(page)
    wire.send("Network.enable")
    received: list[float] = []
    wire.on("Network.loadingFinished", lambda event: received.append(event["encodedDataLength"]))
    page.goto(url)
    taken = quiet(page, "strip")
    print(f"- first view, from navigation: {taken:.0f} ms; transferred {sum(received) / MEGABYTE:.2f} MB")
    print(f"- memory of the page's process: {private('--type=renderer') / MEGABYTE:.0f} MB")


def private(kind: str) -> int:
    """Private bytes of the largest browser process of a kind."""
    sizes = [0]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if kind in (folder / "cmdline").read_text():
                lines = (folder / "smaps_rollup").read_text().splitlines()
                sizes.append(sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024)
        except OSError:
            continue
    return max(sizes)


def crowd(url: str, clients: int, seconds: float) -> None:
    """Many clients that draw at once: each sends its painting and fetches its maps, again and again."""
    address, token = urlsplit(url), urlsplit(url).fragment.removeprefix("token=")
    times: list[list[float]] = [[] for _ in range(clients)]
    errors: list[str] = []
    until = time.monotonic() + seconds

    def draw(client: int) -> None:
        rng = np.random.default_rng(client)
        line = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        headers = {"Authorization": f"Bearer {token}", "X-Client": f"client-{client}"}
        pixels = np.zeros((1, 28, 28), np.float32)

        def ask(method: str, path: str, body: bytes | None = None) -> bytes:
            kind = {"Content-Type": "application/json"} if body else {}
            line.request(method, f"/api/{path}", body, headers | kind)
            answer = line.getresponse()
            content = answer.read()
            if answer.status != 200:
                errors.append(f"{answer.status} {content[:120]!r}")
            return content

        model = json.loads(ask("GET", "session"))["models"][0]["id"]
        while time.monotonic() < until:
            pixels[0, *rng.integers(0, 28, 2)] = rng.random()
            data = urlsafe_b64encode(pixels.tobytes()).decode().rstrip("=")
            start = time.perf_counter()
            wanted = {"model": model, "input": {"kind": "pixels", "shape": [1, 28, 28], "data": data}}
            trace = json.loads(ask("POST", "traces", json.dumps(wanted).encode()))
            if "id" in trace:
                ask("GET", f"traces/{trace['id']}/thumbnails")
            times[client].append(1000 * (time.perf_counter() - start))
            time.sleep(0.05)

    threads = [threading.Thread(target=draw, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tails = [sorted(each)[math.ceil(0.95 * len(each)) - 1] for each in times if each]
    said(f"{clients} clients drawing at once, each stroke", [time for each in times for time in each])
    print(
        f"- of the clients' 95th percentiles the slowest is {max(tails) / min(tails):.2f} times the fastest; "
        f"errors: {len(errors)}{f', {errors[0]}' if errors else ''}"
    )


def main(repeats: int, clients: int) -> None:
    header("The explorer, measured in Chromium")
    for which in ("shapes-cnn", "resnet-50"):
        print(f"### {which}\n")
        with served(which) as (url, memory):
            with page_of() as page:
                if which == "resnet-50":
                    first_view(page, url)
                    steps(page, repeats)
                    cells(page, url, "?step=5", "a cell clicked", repeats)
                else:
                    drawing(page, url, repeats)
                    cells(page, url, "?step=conv1", "a cell clicked", repeats)
            if which != "resnet-50":
                crowd(url, clients, 10)
            print(f"- server memory beyond the model and one trace of it: {memory():.0f} MB\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--serve", metavar="MODEL", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
    else:
        main(given.repeats, given.clients)
