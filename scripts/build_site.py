"""Build the documentation site: `python scripts/build_site.py [FOLDER] [--without-lessons]`, by default build/docs.

The pages of docs/ are copied, the lessons are executed, the page on HTTP is made from the OpenAPI document, and
Zensical renders them. The index page of each folder lists its pages; navigation and llms.txt follow it. Afterwards
every link of the site is checked, and that nothing is loaded from elsewhere. Any fault ends the build with status 1.
"""

import argparse
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import openapi_page

from convscope.lessons import is_short

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "site"
SHIM = ROOT / "web" / "node_modules" / "iframe-worker"
"""Workers in frames, with which the search runs on file://."""
SECTIONS = ("lessons", "how-to", "probes", "reference", "explanation")
REPEATED = """
[The tutorials, repeated](repeated.md): what each of them prints and draws, each with its command and output.
"""
LINK = re.compile(r"\[([^\]]+)\]\(([\w-]+\.md)\)(?::\s*(.*))?")
TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
LOADED = {("img", "src"), ("script", "src"), ("link", "href"), ("source", "srcset"), ("iframe", "src")}
"""Tags whose attribute makes a browser load something by itself."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page in the navigation."""

    path: str
    title: str
    about: str = ""
    """What its entry in the index says of it."""


def main(out: Path, *, lessons: bool = True) -> int:
    """Build the site; the exit status."""
    pages, rendered = WORK / "pages", WORK / "html"
    shutil.rmtree(WORK, ignore_errors=True)
    shutil.copytree(ROOT / "docs", pages)
    if not SHIM.is_dir():
        print(f"{SHIM} is missing: npm --prefix web ci installs it, for the search.", file=sys.stderr)
        return 1
    licence = (SHIM / "LICENSE").read_text(encoding="utf-8")
    script = (SHIM / "shim" / "index.js").read_text(encoding="utf-8")
    (pages / "assets" / "iframe-worker.js").write_text(f"/*! {licence} */\n{script}", encoding="utf-8")
    fill(pages / "lessons" / "index.md", "<!-- lessons -->", lesson_pages(pages) if lessons else "")
    fill(pages / "reference" / "http.md", "<!-- routes -->", openapi_page.markdown())
    sections = {section: pages_of(pages, section) for section in SECTIONS}
    (pages / "llms.txt").write_text(llms_text(pages, sections), encoding="utf-8")
    status = render(pages, rendered, sections)
    if status:
        return status
    for page in pages.rglob("*.md"):  # llms.txt refers to the sources
        shutil.copyfile(page, rendered / page.relative_to(pages))
    faults = list(faults_of(rendered))
    print("".join(f"{fault}\n" for fault in faults), end="", file=sys.stderr)
    if faults:
        return 1
    fresh = out.with_name(f"{out.name}.new")  # a reader never sees half a site
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(rendered, fresh)
    shutil.rmtree(out, ignore_errors=True)
    fresh.rename(out)
    print(f"{len(list(out.rglob('*.html')))} pages, every link checked: {out / 'index.html'}")
    return 0


def lesson_pages(pages: Path) -> str:
    """Execute the lessons that the package has, into their folder; what the index says of them."""
    if importlib.util.find_spec("convscope.lessons") is None:
        return ""
    made = WORK / "lessons"
    if subprocess.run([sys.executable, "-m", "convscope.lessons.site", str(made)], check=False).returncode:
        raise SystemExit("a lesson cannot be executed; its mistake is above.")
    short = ["--short"] if is_short() else []
    repeat = [sys.executable, str(ROOT / "scripts" / "tutorial_table.py"), str(made), *short]
    if subprocess.run(repeat, check=False).returncode:
        raise SystemExit("an item of the tutorials is not shown; its row is above.")
    index = made / "index.md"
    table = index.read_text(encoding="utf-8").partition("\n")[2]
    index.unlink()
    shutil.copytree(made, pages / "lessons", dirs_exist_ok=True)
    return table + REPEATED


def fill(page: Path, mark: str, text: str) -> None:
    """Replace the mark on a page by generated text."""
    content = page.read_text(encoding="utf-8")
    if content.count(mark) != 1:
        raise SystemExit(f"{page.relative_to(WORK)} needs {mark} once, where the generated text goes.")
    page.write_text(content.replace(mark, text), encoding="utf-8")


def pages_of(pages: Path, section: str) -> list[Page]:
    """The pages of a folder in the order of its index page, which must list each of them."""
    index = (pages / section / "index.md").read_text(encoding="utf-8")
    about = {name: (text or "").strip() for _, name, text in LINK.findall(index)}
    unlisted = {path.name for path in (pages / section).glob("*.md")} - {*about, "index.md"}
    if unlisted:
        raise SystemExit(
            f"docs/{section}/index.md lists the pages of its folder; it lacks {', '.join(sorted(unlisted))}."
        )
    return [Page(f"{section}/{name}", title_of(pages / section / name), text) for name, text in about.items()]


def title_of(page: Path) -> str:
    """The first heading of a page, without code marks."""
    match = TITLE.search(page.read_text(encoding="utf-8"))
    if match is None:
        raise SystemExit(f"{page.relative_to(WORK)} has no heading '# ...'.")
    return match[1].replace("`", "")


def llms_text(pages: Path, sections: dict[str, list[Page]]) -> str:
    """The list of pages for language models. Source: https://llmstxt.org."""
    lines = ["# convscope", "", "> Shows every number inside a convolutional network, and proves each one.", ""]
    lines += ["- [Start](index.md)"]
    for section, listed in sections.items():
        lines += ["", f"## {title_of(pages / section / 'index.md')}", ""]
        for page in listed:
            # the pages on Python are directives until they are rendered
            path = page.path.removesuffix(".md") + ".html" if "/python" in page.path else page.path
            lines.append(f"- [{page.title}]({path}){f': {page.about}' if page.about else ''}")
    return "\n".join(lines) + "\n"


def render(pages: Path, out: Path, sections: dict[str, list[Page]]) -> int:
    """Run Zensical with warnings as errors; its exit status."""
    nav = ['  { "Start" = "index.md" },']
    for section, listed in sections.items():
        entries = ", ".join(f"{{ {json.dumps(page.title)} = {json.dumps(page.path)} }}" for page in listed)
        title = json.dumps(title_of(pages / section / "index.md"))
        nav.append(f"  {{ {title} = [{json.dumps(section + '/index.md')}, {entries}] }},")
    added = [
        f"docs_dir = {json.dumps(pages.name)}",  # Zensical takes only paths relative to its configuration
        f"site_dir = {json.dumps(out.name)}",
        "nav = [", *nav, "]",
    ]  # fmt: skip
    config = (
        (ROOT / "zensical.toml")
        .read_text(encoding="utf-8")
        .replace("[project]\n", "\n".join(["[project]", *added, ""]), 1)
    )
    path = WORK / "zensical.toml"
    for name in ("src", "scripts/fence_examples.py"):
        config = config.replace(json.dumps(name), json.dumps(str(ROOT / name)))
    path.write_text(config, encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(path)]
    return subprocess.run(command, check=False).returncode


class Links(HTMLParser):
    """What a page refers to, and the anchors it has."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[tuple[str, str, bool]] = []
        """Tag, address, and whether the browser loads it by itself."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note ids and addresses."""
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            elif name in {"href", "src", "srcset"} and value:
                self.links.append((tag, value, (tag, name) in LOADED))


def faults_of(out: Path) -> Iterator[str]:
    """Broken links of the site, and everything that it would load from elsewhere."""
    pages = {path: parsed(path) for path in sorted(out.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(out)
        for tag, address, loaded in page.links:
            url = urlsplit(address)
            if url.scheme in {"http", "https"} or url.netloc:
                if loaded and tag != "a":
                    yield f"{name}: loads {address} from elsewhere"
                continue
            if url.scheme or name.name == "404.html":  # mailto, data; a server shows 404.html at any depth
                continue
            where, anchor = urldefrag(address)
            target = (path.parent / unquote(where)).resolve() if where else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                yield f"{name}: {address} does not exist"
            elif anchor and target in pages and unquote(anchor) not in pages[target].ids | {"__search"}:
                yield f"{name}: {address} has no such anchor"
    for path in [*out.rglob("*.css"), *out.rglob("*.html")]:
        for address in re.findall(r"(?:url\(|@import )['\"]?(https?:[^'\")]+)", path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(out)}: loads {address} from elsewhere"


def parsed(path: Path) -> Links:
    """The links and anchors of a page."""
    result = Links()
    result.feed(path.read_text(encoding="utf-8"))
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the documentation site.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "docs")
    parser.add_argument(
        "--without-lessons", action="store_true", help="do not execute the lessons, which takes minutes"
    )
    options = parser.parse_args()
    sys.exit(main(options.folder.resolve(), lessons=not options.without_lessons))
