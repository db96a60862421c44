"""What a lesson's file holds, as records. Nothing is executed here."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

Value = bool | int | float | str
"""The value of a setting."""


@dataclass(frozen=True, slots=True)
class Text:
    """Markdown, with `{{expression}}` where a value is filled in."""

    line: int
    """The first line in the file, from 1; likewise in the other blocks."""
    source: str


@dataclass(frozen=True, slots=True)
class Code:
    """Python that is executed."""

    line: int
    source: str


@dataclass(frozen=True, slots=True)
class LessonMistake:
    """A wrong answer that learners give, as an expression, and the text that it gets."""

    answer: str
    misconception: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question whose answer is an expression."""

    line: int
    name: str
    ask: str
    answer: str
    choices: Mapping[str, str] = field(default_factory=dict)
    """Value -> text; empty if the answer is not chosen from a list."""
    tolerance: str = ""
    because: str = ""
    """An expression whose value explains the answer; or else the Markdown of `why`."""
    why: str = ""
    wrong: tuple[LessonMistake, ...] = ()


@dataclass(frozen=True, slots=True)
class Stop:
    """A place in the explorer."""

    line: int
    model: str
    caption: str
    image: str = ""
    page: str = ""
    """The query of the explorer's address, without model and input."""
    command: str = ""


Block = Text | Code | Question | Stop


@dataclass(frozen=True, slots=True)
class LessonSetting:
    """A variable that exists before the first block, in the full and in the short setting."""

    full: Value
    short: Value


@dataclass(frozen=True, slots=True)
class Lesson:
    """A lesson as its file describes it."""

    name: str
    title: str
    minutes: int
    needs: str
    tutorial: int | None
    settings: Mapping[str, LessonSetting]
    screens: tuple[tuple[Block, ...], ...]
    """The blocks, by the screens on which they are shown together."""
    teacher: tuple[Text, ...] = ()

    @property
    def blocks(self) -> Iterator[Block]:
        """All blocks but the teacher's."""
        return (block for screen in self.screens for block in screen)

    @property
    def questions(self) -> dict[str, Question]:
        """The questions by their names."""
        return {block.name: block for block in self.blocks if isinstance(block, Question)}

    def settings_of(self, short: bool) -> dict[str, Value]:
        """The variables that exist before the first block."""
        return {name: setting.short if short else setting.full for name, setting in self.settings.items()}
