"""Routes of the lesson: its screens, and answers to its questions."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.exceptions import HTTPException

from convscope.server.http.message import Id
from convscope.server.lessons.schema import LessonInfo, LessonReply, LessonScreen, LessonVerdict
from convscope.server.lessons.service import LessonService

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
