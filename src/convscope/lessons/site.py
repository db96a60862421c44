"""Lessons as pages for the documentation site: `python -m convscope.lessons.site OUTDIR [--short]`.

Each lesson is executed; its outputs become text and SVG files, its questions fold open.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from convscope.errors import ConvscopeError
from convscope.files import write_whole
from convscope.lessons.lesson import Lesson
from convscope.lessons.parsing import LESSONS, find_lesson
from convscope.lessons.questions import Asked
from convscope.lessons.session import LessonSession, Shown, ShownCode, ShownStop, ShownText, in_temporary_folder
from convscope.lessons.values import Output, fenced

INDEX = """# Lessons

Five lessons, one for each tutorial. Each asks first: predict, run, compare. Take one as a notebook
(`convscope notebook DIR`), beside the explorer (`convscope lesson NAME`), in the terminal
(`convscope lesson NAME --text`), or read it here.

| lesson | tutorial | minutes | questions | needs |
|---|---|---|---|---|
"""


def write_site(folder: str | Path, *, names: Iterable[str] | None = None, short: bool = False) -> list[Path]:
    """Execute lessons and write them as Markdown: FOLDER/NAME.md, FOLDER/images/NAME-N.svg and FOLDER/index.md.

    Args:
        folder: Where to write; it is made if it is missing, files of the same names are replaced.
        names: The lessons; by default all that come with the package.
        short: Whether to use the short settings.

    Returns:
        The pages, the index first.

    Raises:
        LessonError: a lesson fails.
    """
    target = Path(folder).resolve()
    (target / "images").mkdir(parents=True, exist_ok=True)
    lessons = [find_lesson(name) for name in (LESSONS if names is None else names)]
    pages = [target / "index.md"]
    for lesson in lessons:
        pages.append(target / f"{lesson.name}.md")
        write_whole(pages[-1], LessonPage(lesson, target).markdown(short=short).encode())
    rows = [
        (
            f"[{lesson.title}]({lesson.name}.md)",
            lesson.tutorial or "",
            lesson.minutes,
            len(lesson.questions),
            lesson.needs,
        )
        for lesson in lessons
    ]
    table = "".join(f"| {' | '.join(map(str, row))} |\n" for row in rows)
    write_whole(pages[0], (INDEX + table).encode())
    return pages


class LessonPage:
    """One lesson as Markdown, with its pictures in `folder`/images."""

    def __init__(self, lesson: Lesson, folder: Path) -> None:
        self._lesson = lesson
        self._folder = folder
        self._pictures = 0

    def markdown(self, *, short: bool) -> str:
        """Execute the lesson; returns the page, and writes its pictures."""
        session = LessonSession(self._lesson, short)
        head = f"# {self._lesson.title}\n\n*About {self._lesson.minutes} minutes. {self._lesson.needs}*"
        with in_temporary_folder():
            parts = [self._block(shown) for screen in session.screens() for shown in screen]
            parts += session.teacher()
        return "\n\n".join([head, *(part for part in parts if part)]) + "\n"

    def _block(self, shown: Shown) -> str:
        match shown:
            case ShownText(markdown=markdown):
                return markdown
            case ShownCode(source=source, output=output):
                return "\n\n".join(part for part in (fenced(source, "python"), self._output(output)) if part)
            case ShownStop(caption=caption, command=command):
                return "\n\n".join(["**In the explorer.** " + caption, *([fenced(command, "sh")] if command else [])])
            case Asked():
                return "\n\n".join(self._question(shown))

    def _question(self, question: Asked) -> Iterator[str]:
        yield f"**Question.** {question.ask}"
        if question.choices:
            yield "\n".join(f"- {text}" for text in question.choices.values())
        yield "<details markdown>\n<summary>Answer</summary>"
        yield f"**{question.shown(question.answer)}**"
        yield self._output(question.because)
        if question.wrong:
            yield "\n".join(
                f"- If you answered {question.shown(answer)}: {' '.join(text.split())}"
                for answer, text in question.wrong
            )
        yield "</details>"

    def _output(self, output: Output) -> str:
        if output.figure is None:
            return output.markdown()
        self._pictures += 1
        name = f"images/{self._lesson.name}-{self._pictures}.svg"
        write_whole(self._folder / name, output.svg())
        return output.markdown(name)


def main(arguments: list[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser("python -m convscope.lessons.site", description="Write the lessons as Markdown.")
    parser.add_argument("folder", type=Path, metavar="OUTDIR")
    parser.add_argument("lessons", nargs="*", metavar="NAME", default=None)
    parser.add_argument("--short", action="store_true", help="use the short settings")
    options = parser.parse_intermixed_args(arguments)
    try:
        pages = write_site(options.folder, names=options.lessons or None, short=options.short)
    except ConvscopeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.writelines(f"{page}\n" for page in pages)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
