"""The lesson of this server: executes it screen by screen, opens the networks that it leads to, judges answers."""

import base64
import io
from threading import RLock
from typing import Any
from urllib.parse import parse_qsl, urlencode

from markdown_it import MarkdownIt
from starlette.exceptions import HTTPException

import convscope as cs
from convscope.server.lessons import schema
from convscope.server.session.workspace import Workspace

MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
"""HTML in a lesson is shown as text: a lesson may come from elsewhere."""


class LessonService:
    """One lesson for all who look at it: code is executed once, in the order of the lesson."""

    def __init__(self, session: Any, workspace: Workspace) -> None:
        self._session = session
        self._workspace = workspace
        self._shown: list[Any] = []
        """What each block showed, as far as the lesson was executed."""
        self._opened: list[tuple[Any, str]] = []
        """Models that stops opened, with their ids."""
        self._lock = RLock()

    def info(self) -> schema.LessonInfo:
        """The lesson, for the page."""
        lesson = self._session.lesson
        return schema.LessonInfo(
            name=lesson.name,
            title=lesson.title,
            minutes=lesson.minutes,
            needs=lesson.needs,
            screens=len(lesson.screens),
            executed=self._session.execute,
        )

    def screen(self, number: int) -> schema.LessonScreen:
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
        return schema.LessonScreen(number=number, blocks=[self._block(each) for each in shown])

    def judge(self, name: str, reply: str) -> schema.LessonVerdict:
        """Judge an answer.

        Raises:
            HTTPException: 404, no question of this name has been shown.
        """
        with self._lock:
            asked = {each.name: each for each in self._shown if isinstance(each, cs.lessons.Asked)}
        if name not in asked:
            known = ", ".join(asked) or "none"
            raise HTTPException(404, f"no question {name!r} has been shown; shown were: {known}.")
        try:
            verdict = asked[name].judge(asked[name].read(reply))
        except cs.lessons.AnswerError as error:
            return schema.LessonVerdict(right=None, html=MARKDOWN.render(str(error)))
        return schema.LessonVerdict(
            right=verdict.right, html=MARKDOWN.render(verdict.text), because=_output(verdict.because)
        )

    def _executed(self, many: int) -> list[Any]:
        """The first blocks, executed."""
        with self._lock:
            blocks = list(self._session.lesson.blocks)
            while len(self._shown) < many:
                self._shown.append(self._session.show(blocks[len(self._shown)]))
            return self._shown[:many]

    def _block(self, shown: Any) -> schema.LessonBlock:
        match shown:
            case cs.lessons.ShownText():
                return schema.LessonText(html=MARKDOWN.render(shown.markdown))
            case cs.lessons.ShownCode():
                return schema.LessonCode(source=shown.source.strip("\n"), output=_output(shown.output))
            case cs.lessons.Asked():
                choices = [
                    schema.LessonChoice(value=value, html=MARKDOWN.renderInline(text))
                    for value, text in shown.choices.items()
                ]
                return schema.LessonQuestion(
                    name=shown.name, html=MARKDOWN.render(shown.ask), expects=shown.expects(), choices=choices
                )
            case _:
                return self._stop(shown)

    def _stop(self, stop: Any) -> schema.LessonStop:
        query, problem = "", " ".join(cs.lessons.check_stop(stop, trusted=self._session.execute))
        if not problem:
            model, ref = self._open(stop)
            place = [("model", model), *([("input", f"u~{ref.id}")] if ref is not None else [])]
            query = urlencode([*place, *parse_qsl(stop.page, keep_blank_values=True)], safe="~,.")
        return schema.LessonStop(html=MARKDOWN.render(stop.caption), command=stop.command, query=query, problem=problem)

    def _open(self, stop: Any) -> tuple[str, Any]:
        """The id of a stop's model, opened if it is not, and the reference of its image."""
        with self._lock:
            known = next((name for model, name in self._opened if model is stop.model), None)
            if known is None:
                known = self._workspace.open(cs.lessons.model_of(stop))
                self._opened.append((stop.model, known))
        ref = None if stop.image is None else self._workspace.keep_image(known, stop.image)
        return known, ref


def _output(output: Any) -> schema.LessonOutput:
    picture = ""
    if output.figure is not None:
        file = io.BytesIO()
        output.figure.savefig(file, format="png", dpi=144)
        picture = base64.b64encode(file.getvalue()).decode()
    text = "\n".join(part for part in (output.printed.rstrip("\n"), output.text) if part)
    return schema.LessonOutput(text=text, html=MARKDOWN.render(output.prose) if output.prose else "", picture=picture)
