"""A lesson inside a notebook: it fills in text and judges answers in the notebook's own variables."""

from dataclasses import dataclass
from typing import Any

from convscope.errors import UnknownName
from convscope.lessons.catalog import find_lesson, is_short
from convscope.lessons.expressions import Namespace, fill
from convscope.lessons.lesson import Lesson
from convscope.lessons.outputs import Output
from convscope.lessons.questions import AnswerError
from convscope.lessons.session import ask


@dataclass(frozen=True, slots=True)
class Note:
    """Markdown that a notebook shows as such, and a terminal as text."""

    markdown: str

    def __str__(self) -> str:
        return self.markdown

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return self.markdown


@dataclass(frozen=True, slots=True)
class Reply:
    """What an answer gets. `right` is None if the question was not answered."""

    name: str
    right: bool | None
    text: str
    because: Output = Output()  # noqa: RUF009  # frozen

    def __str__(self) -> str:
        return "\n\n".join(part for part in (self.text, self.because.plain()) if part)

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return "\n\n".join(part for part in (self.text, self.because.markdown()) if part)


class NotebookLesson:
    """The lesson that a notebook belongs to. `lesson.short` is its short setting."""

    def __init__(self, lesson: Lesson, variables: Namespace, short: bool) -> None:
        self._lesson = lesson
        self._variables = variables
        self.short = short

    def __repr__(self) -> str:
        return f"<lesson {self._lesson.title!r}: {len(self._lesson.questions)} questions>"

    def text(self, markdown: str) -> Note:
        """Markdown with each `{{expression}}` replaced by its value."""
        return Note(fill(markdown, self._variables, "this text"))

    def answer(self, name: str, value: Any = ...) -> Reply:
        """Check an answer: `lesson.answer("middle-window", 2.21)`; as long as it is `...` nothing is judged.

        Returns:
            The verdict with the calculation; a sentence about an answer of the wrong kind, or a missing earlier cell.

        Raises:
            UnknownName: the lesson has no question of this name.
            LessonError: the answer depends on a cell that was not run yet.
        """
        questions = self._lesson.questions
        if name not in questions:
            raise UnknownName("question", name, questions)
        if value is ...:
            return Reply(name, None, "Not answered yet: replace `...` by your answer and run the cell again.")
        asked = ask(questions[name], self._variables, self._lesson.name)
        try:
            answer = asked.read(value) if isinstance(value, str) else asked.check(value)
        except AnswerError as error:
            return Reply(name, None, f"{str(error)[0].upper()}{str(error)[1:]}")
        verdict = asked.judge(answer)
        return Reply(name, verdict.right, verdict.text, verdict.because)


def lesson(name: str, variables: Namespace, *, short: bool | None = None) -> NotebookLesson:
    """The lesson of a notebook; `convscope notebook` writes the cell that calls this.

    ```python
    lesson = cs.lesson("crosses", globals())
    lesson.answer("middle-window", 2.21)
    ```

    Args:
        name: A lesson's name, or the path of its Markdown file.
        variables: The notebook's variables, `globals()`: answers are calculated from them.
        short: Whether short settings are used; by default if the environment has CONVSCOPE_LESSON_SHORT=1.

    Raises:
        UnknownName: there is no lesson of this name.
        LessonError: the file cannot be read, or is not a lesson.
    """
    return NotebookLesson(find_lesson(name), variables, is_short() if short is None else short)
