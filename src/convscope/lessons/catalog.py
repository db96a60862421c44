"""The lessons that come with the package, and finding one by name or file."""

import os
from collections.abc import Mapping
from pathlib import Path

from convscope.errors import LessonError, UnknownName
from convscope.files import read_file
from convscope.lessons.lesson import Lesson
from convscope.lessons.parsing import parse

PAGES = Path(__file__).parent / "pages"
ORDER = ("crosses", "layers", "digits", "from-scratch", "shapes")
LESSONS: Mapping[str, Path] = {name: PAGES / f"{name}.md" for name in ORDER if (PAGES / f"{name}.md").is_file()}
"""Name -> file, in the order of the tutorials."""


def is_file_name(name: str) -> bool:
    """Whether a lesson is named by a file rather than by its name.

    >>> is_file_name("crosses"), is_file_name("mine/lesson.md")
    (False, True)
    """
    return name.endswith((".md", ".markdown")) or "/" in name or "\\" in name


def find_lesson(name: str) -> Lesson:
    """A lesson by its name, or by the path of a Markdown file; nothing is executed.

    Raises:
        UnknownName: there is no lesson of this name.
        LessonError: the file cannot be read, or is not a lesson.
    """
    if not is_file_name(name):
        if name not in LESSONS:
            raise UnknownName("lesson", name, LESSONS, "A lesson of your own is given as a file, FILE.md.")
        return parse(LESSONS[name].read_text(encoding="utf-8"), name)
    path = Path(name).expanduser()
    try:
        text = read_file(path).decode("utf-8")
    except OSError as error:
        raise LessonError(f"{name} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise LessonError(f"{name} is not a text file in UTF-8; a lesson is Markdown.") from None
    return parse(text, path.name)


def is_short() -> bool:
    """Whether lessons use their short settings: CONVSCOPE_LESSON_SHORT=1."""
    return os.environ.get("CONVSCOPE_LESSON_SHORT", "") not in {"", "0"}
