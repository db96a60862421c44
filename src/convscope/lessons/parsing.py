"""Lessons by name or file, their Markdown parsed into records. Nothing is executed; mistakes are named with their line.

`LESSONS` are those of the package. Blocks are found by CommonMark's rules (markdown-it); YAML is read as text alone: no
types, no objects, no aliases.
"""

import ast
import keyword
import os
import re
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from convscope.errors import LessonError, UnknownName
from convscope.files import read_file
from convscope.lessons.lesson import Block, Code, Lesson, LessonMistake, LessonSetting, Question, Stop, Text, Value
from convscope.type_checks import takes

LARGEST = 1_000_000
"""Characters of the longest lesson."""
BRACKETS = 500
"""Opening brackets in one block of YAML: reading nested ones takes time that grows with the square of their depth."""
TEACHER = "for the teacher"
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,59}")
HEAD = re.compile(r"\A---[ \t]*\n(.*?\n)---[ \t]*(?:\n|\Z)", re.DOTALL)


@takes()
def parse(text: str, name: str = "lesson") -> Lesson:
    """The lesson that a Markdown text describes.

    >>> page = "---\\ntitle: T\\nminutes: 5\\nneeds: nothing\\n---\\nHello\\n\\n## One\\n\\n```python\\n1 + 1\\n```\\n"
    >>> [type(block).__name__ for screen in parse(page).screens for block in screen]
    ['Text', 'Text', 'Code']

    Args:
        text: The content of the file.
        name: The lesson's name, for messages.

    Raises:
        LessonError: the text is not a lesson; the message names the line and what belongs there.
    """
    if len(text) > LARGEST:
        raise LessonError(f"{name}: a lesson has at most {LARGEST:,} characters; this file has {len(text):,}.")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    head = HEAD.match(text)
    if head is None:
        raise LessonError(
            f"{name}: a lesson starts with its front matter: a line ---, title, minutes, needs, a line ---."
        )
    front = _Fields(f"{name}, line 2", _yaml(head[1], f"{name}, line 2", 1))
    # The front matter becomes empty lines, so that blocks have the line numbers of the file.
    screens, teacher = _screens("\n" * head[0].count("\n") + text[head.end() :], name)
    if not any(screens):
        raise LessonError(f"{name}: the lesson is empty; write something below its front matter.")
    lesson = Lesson(
        name=name,
        title=front.text("title"),
        minutes=_whole(front, "minutes", range(1, 1000)),
        needs=front.text("needs"),
        tutorial=_whole(front, "tutorial", range(1, 6)) if front.has("tutorial") else None,
        settings=_settings(front),
        screens=tuple(screens),
        teacher=tuple(teacher),
    )
    front.finish()
    _check_names(lesson)
    return lesson


def _check_names(lesson: Lesson) -> None:
    lines: dict[str, int] = {}
    for block in lesson.blocks:
        if isinstance(block, Question):
            if block.name in lines:
                raise LessonError(
                    f"{lesson.name}, line {block.line}: line {lines[block.name]} has a question {block.name!r} too; "
                    "choose another name."
                )
            lines[block.name] = block.line


def _screens(text: str, name: str) -> tuple[list[tuple[Block, ...]], list[Text]]:
    """The blocks by screens, and the teacher's text."""
    screens: list[list[Block]] = [[]]
    teacher: list[Text] = []
    for_teacher = False
    for kind, line, block in _parts(text, name):
        if kind == "heading" and isinstance(block, Text):
            for_teacher = block.source.partition("\n")[0].strip("# ").lower() == TEACHER
        if for_teacher:
            if not isinstance(block, Text):
                raise LessonError(
                    f"{name}, line {line}: the section for the teacher has only text; move this block up."
                )
            teacher += [block] if kind != "rule" else []
            continue
        if kind in {"heading", "rule"}:
            screens.append([])
        if kind != "rule":
            screens[-1].append(block)
    return [tuple(screen) for screen in screens if screen], teacher


def _parts(text: str, name: str) -> Iterator[tuple[str, int, Block]]:
    """Every block with its kind: heading (of level 2, with the text below it), rule, or block."""
    lines = text.split("\n")
    start, kind = 0, "block"

    def text_until(stop: int) -> Iterator[tuple[str, int, Block]]:
        first = next((i for i in range(start, stop) if lines[i].strip()), stop)
        source = "\n".join(lines[first:stop]).rstrip()
        if source or kind != "block":
            yield kind, first + 1, Text(first + 1, source)

    for token in _tokens(text, name):
        top, bottom = token.map or (0, 0)
        if token.type == "hr":
            yield from text_until(top)
            yield "rule", top + 1, Text(top + 1, "")
            start, kind = bottom, "block"
        elif token.type == "heading_open" and token.tag == "h2":
            yield from text_until(top)
            start, kind = top, "heading"
        elif token.type == "fence" and (block := _fence(token, name)) is not None:
            yield from text_until(top)
            yield "block", top + 1, block
            start, kind = bottom, "block"
    yield from text_until(len(lines))


def _tokens(text: str, name: str) -> list[Token]:
    parser = MarkdownIt("commonmark")
    parser.core.ruler.enableOnly(["normalize", "block"])  # text inside a block, such as links, is of no interest
    try:
        tokens = parser.parse(text)
    except RecursionError as error:
        raise LessonError(f"{name} cannot be read as Markdown: {error}.") from None
    return [token for token in tokens if token.level == 0]


def _fence(token: Token, name: str) -> Block | None:
    """The block of a fence; None for one that is only text."""
    kind, *words = token.info.split() or [""]
    line = (token.map or [0])[0] + 1
    if kind == "python":
        return Code(line + 1, token.content)
    if kind not in {"question", "stop"}:
        return None
    location = f"{name}, line {line}"
    fields = _Fields(location, _yaml(token.content, location, line))
    block = _question(fields, line, words) if kind == "question" else _stop(fields, line)
    fields.finish()
    return block


def _question(fields: "_Fields", line: int, words: list[str]) -> Question:
    if len(words) != 1 or not NAME.fullmatch(words[0]):
        raise LessonError(
            f"{fields.location}: a question has one name of lowercase letters, digits and hyphens: ```question "
            f"left-edge."
        )
    if fields.has("because") == fields.has("why"):
        raise LessonError(f"{fields.location}: a question has either because: (an expression) or why: (Markdown).")
    wrong = []
    choices = fields.choices("choices")
    for item in fields.mappings("wrong"):
        wrong.append(LessonMistake(_expression(item, "answer", choices), item.text("misconception")))
        item.finish()
    return Question(
        line=line,
        name=words[0],
        ask=fields.text("ask"),
        answer=_expression(fields, "answer"),
        choices=choices,
        tolerance=_expression(fields, "tolerance") if fields.has("tolerance") else "",
        because=_expression(fields, "because") if fields.has("because") else "",
        why=fields.text("why") if fields.has("why") else "",
        wrong=tuple(wrong),
    )


def _stop(fields: "_Fields", line: int) -> Stop:
    command = fields.optional("command")
    if command and not command.startswith("convscope "):
        raise LessonError(
            f"{fields.location}: command is a whole command that starts with convscope, not {command[:60]!r}."
        )
    return Stop(
        line=line,
        model=fields.text("model"),
        caption=fields.text("caption"),
        image=fields.optional("image"),
        page=fields.optional("page").lstrip("?#"),
        command=command,
    )


def _expression(fields: "_Fields", key: str, choices: Container[str] = ()) -> str:
    """The text of a field that must be a Python expression, or one of the choices."""
    text = fields.text(key)
    if text not in choices and not is_expression(text):
        raise LessonError(f"{fields.location}: {key} is not a Python expression: {text[:80]!r}.")
    return text


def is_expression(text: str) -> bool:
    """Whether Python can parse this text as an expression.

    >>> is_expression("a[0] + 1"), is_expression("a = 1")
    (True, False)
    """
    try:
        ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


class _Fields:
    """The fields of a block; each is read once, and those left over are mistakes."""

    def __init__(self, location: str, content: object) -> None:
        if not isinstance(content, dict):
            raise LessonError(f"{location}: expected lines such as `key: value`.")
        self.location = location
        self._left: dict[str, object] = dict(content)

    def has(self, key: str) -> bool:
        return key in self._left

    def text(self, key: str) -> str:
        result = self.optional(key)
        if not result:
            raise LessonError(f"{self.location}: {key}: is missing or empty.")
        return result

    def optional(self, key: str) -> str:
        return self._plain(key, self._left.pop(key, ""))

    def mappings(self, key: str) -> list["_Fields"]:
        entries = self._left.pop(key, [])
        if not isinstance(entries, list):
            raise LessonError(f"{self.location}: {key}: is a list; start each entry with a hyphen.")
        return [_Fields(f"{self.location}, {key}", entry) for entry in entries]

    def choices(self, key: str) -> Mapping[str, str]:
        entries = self._left.pop(key, [])
        if isinstance(entries, list):
            values = [self._plain(key, entry) for entry in entries]
            entries = dict(zip(values, values, strict=True))
            if len(entries) < len(values):
                raise LessonError(f"{self.location}: {key}: has the same choice twice.")
        if not isinstance(entries, dict) or len(entries) == 1:
            raise LessonError(
                f"{self.location}: {key}: is a list of two or more texts, or lines such as `value: text`."
            )
        return {self._plain(key, value): self._plain(key, text) for value, text in entries.items()}

    def mapping(self, key: str) -> dict[str, object]:
        entries = self._left.pop(key, {})
        if not isinstance(entries, dict):
            raise LessonError(f"{self.location}: {key}: is lines such as `epochs: [5, 1]`.")
        return entries

    def finish(self) -> None:
        if self._left:
            raise LessonError(f"{self.location}: unknown key {next(iter(self._left))!r}.")

    def _plain(self, key: str, value: object) -> str:
        if not isinstance(value, str):
            raise LessonError(f"{self.location}: {key}: must be text; quote a value that starts with [ or {{.")
        return value.strip()


class _TextLoader(yaml.BaseLoader):  # type: ignore[misc]  # PyYAML has no types
    """YAML in which every value is text, and nothing refers to anything else."""

    def compose_node(self, parent: object, index: object) -> object:
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(
                None, None, "a value that starts with * needs quotes", self.peek_event().start_mark
            )
        return super().compose_node(parent, index)


def _yaml(text: str, location: str, line: int) -> object:
    """The content of YAML text, whose first line follows `line` of the file."""
    if text.count("[") + text.count("{") > BRACKETS:
        raise LessonError(
            f"{location}: more than {BRACKETS} opening brackets; calculate such values in a block of code."
        )
    try:
        return yaml.load(text, _TextLoader) or {}  # a BaseLoader makes text, lists and dicts alone
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        error_location = location if mark is None else f"{location.partition(',')[0]}, line {line + 1 + mark.line}"
        raise LessonError(
            f"{error_location}: not valid YAML: {error.problem or error.context}; quote the value or use a block (|)."
        ) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise LessonError(
            f"{location}: not valid YAML: {str(error).splitlines()[0] if str(error) else 'too deep'}."
        ) from None


def _whole(fields: _Fields, key: str, allowed: range) -> int:
    text = fields.text(key)
    if not re.fullmatch(r"[0-9]{1,4}", text) or int(text) not in allowed:
        raise LessonError(
            f"{fields.location}: {key} is an integer from {allowed[0]} to {allowed[-1]}, not {text[:40]!r}."
        )
    return int(text)


def _settings(front: _Fields) -> dict[str, LessonSetting]:
    result = {}
    for name, pair in front.mapping("settings").items():
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            raise LessonError(f"{front.location}: the setting {name!r} is not the name of a variable.")
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise LessonError(f"{front.location}: the setting {name} is written as {name}: [full, short].")
        result[name] = LessonSetting(*map(_value, pair))
    return result


def _value(text: str) -> Value:
    """A setting's value: a number, true or false, or else the text itself."""
    if text in {"true", "false"}:
        return text == "true"
    kinds: tuple[Callable[[str], Value], ...] = (int, float)
    for kind in kinds:
        try:
            return kind(text)
        except ValueError:
            continue
    return text


# The lessons of the package, and those in files

PAGES = Path(__file__).parent / "pages"
ORDER = ("crosses", "layers", "digits", "from-scratch", "shapes")
LESSONS: Mapping[str, Path] = {name: PAGES / f"{name}.md" for name in ORDER if (PAGES / f"{name}.md").is_file()}
"""Name -> file, in the order of the tutorials."""


@takes()
def is_file_name(name: str) -> bool:
    """Whether a lesson is named by a file rather than by its name.

    >>> is_file_name("crosses"), is_file_name("mine/lesson.md")
    (False, True)
    """
    return name.endswith((".md", ".markdown")) or "/" in name or "\\" in name


@takes()
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
