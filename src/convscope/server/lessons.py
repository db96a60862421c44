"""The lesson beside the page: its messages, its execution screen by screen, the networks it leads to, its routes.

HTML is made from Markdown whose own HTML is escaped; pictures are PNG in base64.
"""

import base64
import io
from threading import RLock
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Path, Request
from markdown_it import MarkdownIt
from pydantic import Field
from starlette.exceptions import HTTPException

import convscope as cs
from convscope.server.http.message import Id, Message
from convscope.server.session.schema import StoredRef
from convscope.server.session.workspace import Workspace


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


MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
"""HTML in a lesson is shown as text: a lesson may come from elsewhere."""


class LessonService:
    """One lesson for all who look at it: code is executed once, in the order of the lesson."""

    def __init__(self, session: "cs.lessons.LessonSession", workspace: Workspace) -> None:
        self._session = session
        self._workspace = workspace
        self._shown: list[cs.lessons.Shown] = []
        """What each block showed, as far as the lesson was executed."""
        self._opened: list[tuple[cs.Module | cs.Run | str, str]] = []
        """Models that stops opened, with their ids."""
        self._lock = RLock()

    def info(self) -> LessonInfo:
        """The lesson, for the page."""
        lesson = self._session.lesson
        return LessonInfo(
            name=lesson.name,
            title=lesson.title,
            minutes=lesson.minutes,
            needs=lesson.needs,
            screens=len(lesson.screens),
            executed=self._session.execute,
        )

    def screen(self, number: int) -> LessonScreen:
        """A screen; it and those before it are executed if they have not been.

        Raises:
            HTTPException: 404, there is no such screen.
            LessonError: code of the lesson fails.
        """
        screens = self._session.lesson.screens
        if number >= len(screens):
            raise HTTPException(404, f"the lesson has screens 0 to {len(screens) - 1}; there is no screen {number}.")
        first = sum(map(len, screens[:number]))
        shown = self._executed(first + len(screens[number]))[first:]
        return LessonScreen(number=number, blocks=[self._block(item) for item in shown])

    def judge(self, name: str, reply: str) -> LessonVerdict:
        """Judge an answer.

        Raises:
            HTTPException: 404, no question of this name has been shown.
        """
        with self._lock:
            questions = {item.name: item for item in self._shown if isinstance(item, cs.lessons.Asked)}
        if name not in questions:
            shown_names = ", ".join(questions) or "none"
            raise HTTPException(404, f"no question {name!r} has been shown; shown were: {shown_names}.")
        try:
            verdict = questions[name].judge(questions[name].read(reply))
        except cs.lessons.AnswerError as error:
            return LessonVerdict(right=None, html=MARKDOWN.render(str(error)))
        return LessonVerdict(right=verdict.right, html=MARKDOWN.render(verdict.text), because=_output(verdict.because))

    def _executed(self, count: int) -> "list[cs.lessons.Shown]":
        """The first blocks, executed."""
        with self._lock:
            blocks = list(self._session.lesson.blocks)
            while len(self._shown) < count:
                self._shown.append(self._session.show(blocks[len(self._shown)]))
            return self._shown[:count]

    def _block(self, shown: "cs.lessons.Shown") -> LessonBlock:
        match shown:
            case cs.lessons.ShownText():
                return LessonText(html=MARKDOWN.render(shown.markdown))
            case cs.lessons.ShownCode():
                return LessonCode(source=shown.source.strip("\n"), output=_output(shown.output))
            case cs.lessons.Asked():
                choices = [
                    LessonChoice(value=value, html=MARKDOWN.renderInline(text)) for value, text in shown.choices.items()
                ]
                return LessonQuestion(
                    name=shown.name, html=MARKDOWN.render(shown.ask), expects=shown.expects(), choices=choices
                )
            case _:
                return self._stop(shown)

    def _stop(self, stop: "cs.lessons.ShownStop") -> LessonStop:
        query, problem = "", " ".join(cs.lessons.check_stop(stop, trusted=self._session.execute))
        if not problem:
            model, ref = self._open(stop)
            place = [("model", model), *([("input", f"u~{ref.id}")] if ref is not None else [])]
            query = urlencode([*place, *parse_qsl(stop.page, keep_blank_values=True)], safe="~,.")
        command = cs.lessons.with_runs_in(stop.command)
        return LessonStop(
            html=MARKDOWN.render(stop.caption),
            command=command,
            query=query,
            problem=problem,
        )

    def _open(self, stop: "cs.lessons.ShownStop") -> tuple[str, StoredRef | None]:
        """The id of a stop's model, opened if it is not, and the reference of its image."""
        with self._lock:
            model_id = next((name for model, name in self._opened if model is stop.model), None)
            if model_id is None:
                model_id = self._workspace.open(cs.lessons.model_of(stop))
                self._opened.append((stop.model, model_id))
        ref = None if stop.image is None else self._workspace.keep_image(model_id, stop.image)
        return model_id, ref


def _output(output: "cs.lessons.Output") -> LessonOutput:
    picture = ""
    if output.figure is not None:
        file = io.BytesIO()
        output.figure.savefig(file, format="png", dpi=144)
        picture = base64.b64encode(file.getvalue()).decode()
    text = "\n".join(part for part in (output.printed.rstrip("\n"), output.text) if part)
    return LessonOutput(text=text, html=MARKDOWN.render(output.prose) if output.prose else "", picture=picture)


router = APIRouter(tags=["lesson"])


def _lesson(request: Request) -> LessonService:
    service: LessonService | None = request.app.state.lesson
    if service is None:
        raise HTTPException(404, "no lesson is open; start one with `convscope lesson NAME`.")
    return service


@router.get("/lesson")
def lesson(request: Request) -> LessonInfo | None:
    """The open lesson; null if there is none."""
    return None if request.app.state.lesson is None else _lesson(request).info()


@router.get("/lesson/screens/{number}")
async def screen(request: Request, number: Annotated[int, Path(ge=0, lt=10_000)]) -> LessonScreen:
    """A screen of the lesson; its code is executed when it is first requested."""
    service = _lesson(request)
    result: LessonScreen = await request.app.state.gallery.workers.run(
        request, "lesson", lambda: service.screen(number)
    )
    return result


@router.post("/lesson/questions/{name}")
def answer(request: Request, name: Id, body: LessonReply) -> LessonVerdict:
    """Judge an answer to a question that was shown."""
    return _lesson(request).judge(name, body.reply)
