"""Messages of the lesson. HTML is made from Markdown whose own HTML is escaped; pictures are PNG in base64."""

from typing import Annotated, Literal

from pydantic import Field

from convscope.server.http.message import Message


class LessonInfo(Message):
    """The lesson that is open."""

    name: str
    title: str
    minutes: int
    needs: str
    screens: int
    """How many screens it has, numbered from 0."""
    executed: bool
    """Whether its code is executed; without, it shows no numbers and checks no answers."""


class LessonText(Message):
    """Text."""

    kind: Literal["text"] = "text"
    html: str


class LessonOutput(Message):
    """What code shows, or the calculation behind an answer."""

    text: str
    """In fixed width."""
    html: str
    picture: str
    """A PNG in base64; empty if there is none."""


class LessonCode(Message):
    """Code with its output."""

    kind: Literal["code"] = "code"
    source: str
    output: LessonOutput


class LessonChoice(Message):
    """One of the answers to choose from."""

    value: str
    html: str


class LessonQuestion(Message):
    """A question, without its answer."""

    kind: Literal["question"] = "question"
    name: str
    html: str
    expects: str
    """What to type, such as "a number"; a question with choices has them instead."""
    choices: list[LessonChoice]


class LessonStop(Message):
    """A place in the explorer."""

    kind: Literal["stop"] = "stop"
    html: str
    command: str
    query: str
    """The query of its address; empty if it does not exist."""
    problem: str
    """Why it does not exist."""


LessonBlock = Annotated[LessonText | LessonCode | LessonQuestion | LessonStop, Field(discriminator="kind")]


class LessonScreen(Message):
    """What is shown together."""

    number: int
    blocks: list[LessonBlock]


class LessonReply(Message):
    """What a learner answers."""

    reply: Annotated[str, Field(max_length=2000)]


class LessonVerdict(Message):
    """Whether an answer is right, and the calculation; `right` is null for an answer of the wrong kind."""

    right: bool | None
    html: str
    because: LessonOutput | None = None
