"""App: the routes, the page and the guard put together, and every error turned into one sentence.

Uses FastAPI and the shape of what is served; no models, no ports.
"""

import logging
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import get_args

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

import convscope as cs
from convscope.server import backward, blocks, lessons, training_steps
from convscope.server.explanations import routes as explanation_routes
from convscope.server.http import page
from convscope.server.http.message import Fit, Problem
from convscope.server.http.security import Access, Guard
from convscope.server.jobs import MemoryTrimmer
from convscope.server.probes import routes as probe_routes
from convscope.server.probes.service import ProbeService
from convscope.server.session import routes as session_routes
from convscope.server.session.inputs import Misfit
from convscope.server.traces import routes as trace_routes
from convscope.server.trainings import routes as training_routes
from convscope.server.trainings.registry import TrainableModels, Trainings

log = logging.getLogger("convscope.server")

ROUTERS = (
    session_routes.router,
    trace_routes.router,
    explanation_routes.router,
    training_steps.router,
    backward.router,
    training_routes.router,
    blocks.router,
    probe_routes.router,
    lessons.router,
)
"""All routes of the API, under /api, in the order in which paths are matched."""
PROBLEMS: dict[int | str, dict[str, object]] = {
    "default": {"description": "An error, with its status code and one sentence.", "model": Problem}
}
"""What every route answers instead, in the OpenAPI document: any code but 200 comes with a `Problem`."""
SENTENCES: Mapping[str, str] = {
    "Not Found": "there is nothing at this address; start from the page's own address.",
    "Method Not Allowed": "this address does not take that method; things are read by GET and changed by POST.",
    "There was an error parsing the body": "the body cannot be read as JSON; send one JSON value in UTF-8.",
}
"""The framework's message -> ours."""


def make_app(
    gallery: TrainableModels | None,
    access: Access,
    trainings: Trainings | None = None,
    lesson: lessons.LessonService | None = None,
) -> FastAPI:
    """The explorer as an ASGI application.

    >>> make_app(None, Access("secret")).title
    'convscope'

    Args:
        gallery: The `Workspace`, or as much of it as is asked for: models, data sources, stored inputs. Routes find it
            as `request.app.state.gallery`.
        access: Who may ask.
        trainings: The trainings that this server can start, `request.app.state.trainings`; None: it trains nothing.
        lesson: The lesson beside the page, `request.app.state.lesson`; None: there is none.
    """
    with _BUILDING:
        return _application(gallery, access, trainings, lesson)


_BUILDING = threading.Lock()  # applications share the routes' fields, which the framework prepares without a lock


def _application(
    gallery: TrainableModels | None,
    access: Access,
    trainings: Trainings | None,
    lesson: lessons.LessonService | None,
) -> FastAPI:
    app = FastAPI(
        title="convscope", version=cs.__version__, openapi_url=None, docs_url=None, redoc_url=None, lifespan=_closing
    )
    app.state.gallery = gallery
    app.state.trainings = trainings
    app.state.lesson = lesson
    app.state.probes = ProbeService()
    app.state.tidy = MemoryTrimmer()
    app.state.invitations = page.Invitations(access.token)
    for router in ROUTERS:
        app.include_router(router, prefix="/api", responses=PROBLEMS)
    app.include_router(page.router)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(cs.ConvscopeError, _asked_wrongly)
    app.add_exception_handler(Exception, _our_mistake)
    app.add_middleware(Guard, access=access)
    return app


def put_together(app: FastAPI) -> None:
    """Prepare every route; the framework otherwise does so at the first request that it compares with it."""
    with _BUILDING:
        for route in app.routes:
            route.matches({"type": "http", "method": "GET", "path": "/", "root_path": "", "headers": []})


@asynccontextmanager
async def _closing(app: FastAPI) -> AsyncIterator[None]:
    """When the server ends, so do its trainings and its threads."""
    yield
    for part in (app.state.probes, app.state.trainings, app.state.gallery):
        if part is not None:
            part.close()


def problem(status: int, message: str, headers: Mapping[str, str] | None = None, fit: Sequence[Fit] = ()) -> Response:
    """An error as every route answers it."""
    body = Problem(message=message.encode("utf-8", "replace").decode(), fit=list(fit))
    return JSONResponse(body.model_dump(exclude_defaults=True), status, headers)


def _not_understood(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first, *further = error.errors()
    location = ".".join(str(part) for part in first["loc"] if part not in {"body", "query", "path"})[:200]
    remaining = f" ({len(further)} more like this)" if further else ""
    prefix = f"{location}: " if location else ""
    return problem(422, f"the request is not understood: {prefix}{first['msg'][:300].rstrip('.')}{remaining}.")


def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    fit = get_args(Fit) if isinstance(error, Misfit) else ()
    return problem(error.status_code, SENTENCES.get(error.detail, error.detail), error.headers, fit)


def _asked_wrongly(_request: Request, error: Exception) -> Response:
    return problem(404 if isinstance(error, LookupError) else 400, str(error))


def _our_mistake(_request: Request, error: Exception) -> Response:
    """An internal error: the response names its type, its traceback goes to the terminal that started the server."""
    log.error("a request failed", exc_info=error)
    return problem(500, f"this should not have happened ({type(error).__name__}); the server's terminal says more.")
