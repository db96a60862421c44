"""Page: the built web page and its assets, as they lie in server/static; a sentence where they were not built.

Knows files of that folder, found by listing it: no path that a browser sends is ever opened.
"""

import time
from pathlib import Path
from secrets import token_urlsafe
from typing import Annotated

import fastapi
from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response

STATIC = Path(__file__).parents[1] / "static"
MISSING = (
    "The explorer's page is not built here: convscope was installed with CONVSCOPE_NO_WEB=1, or from a checkout "
    "whose page was never built. Run `make web` in the checkout, or install again without that variable."
)
FOREVER = "public, max-age=31536000, immutable"
"""For assets: their names change with their content."""
INVITED_SECONDS = 60.0

router = APIRouter(include_in_schema=False)


def is_built() -> bool:
    """Whether there is a page to show."""
    return (STATIC / "index.html").is_file()


@router.get("/")
def index() -> Response:
    """The page itself."""
    if not is_built():
        return HTMLResponse(f"<!doctype html><title>convscope</title><p>{MISSING}", 503)
    return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})


class Invitations:
    """Addresses that open the page once: what a browser's command line may show to others.

    >>> invitations = Invitations("secret")
    >>> code = invitations.new()
    >>> invitations.take(code), invitations.take(code)
    ('secret', None)
    """

    def __init__(self, token: str) -> None:
        self._token = token
        self._until: dict[str, float] = {}

    def new(self) -> str:
        """A code that is good once, for a minute."""
        code = token_urlsafe(32)
        self._until[code] = time.monotonic() + INVITED_SECONDS
        return code

    def take(self, code: str) -> str | None:
        """The token for a good code, which is then used up."""
        until = self._until.pop(code, 0.0)
        return self._token if time.monotonic() < until else None


@router.get("/open/{code}")
def enter(request: Request, code: str) -> Response:
    """From an address that works once to the page with its token, in the fragment, which no browser sends."""
    token = request.app.state.invitations.take(code)
    if token is None:
        raise HTTPException(410, "this address was good once; open the one that convscope printed.")
    return RedirectResponse(f"/#token={token}", 303, headers={"Cache-Control": "no-store"})


@router.get("/{name:path}")
def asset(name: Annotated[str, fastapi.Path(max_length=200)]) -> Response:
    """A script, a style sheet or a picture of the page."""
    built = {
        path.relative_to(STATIC).as_posix(): path
        for path in STATIC.rglob("*")
        if path.is_file() and path.name[0] != "."
    }
    if name not in built or name.startswith("api/"):
        raise HTTPException(404)
    return FileResponse(built[name], headers={"Cache-Control": FOREVER if name.startswith("assets/") else "no-cache"})
