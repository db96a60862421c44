"""Routes of the web page: the built page with its assets, and the links that open it once.

Files are looked up in a listing of the static folder: a path sent by a browser is never opened.
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
    "The explorer's page has not been built: convscope was installed with CONVSCOPE_NO_WEB=1, or from a checkout "
    "whose page was never built. Run `make web` in the checkout, or reinstall without that variable."
)
FOREVER = "public, max-age=31536000, immutable"
"""Cache header of assets, whose names contain a hash of their content."""
INVITED_SECONDS = 60.0
"""Lifetime of a link that opens the page once."""

router = APIRouter(include_in_schema=False)


def is_built() -> bool:
    """Whether the page has been built."""
    return (STATIC / "index.html").is_file()


@router.get("/")
def index() -> Response:
    """The page's HTML."""
    if not is_built():
        return HTMLResponse(f"<!doctype html><title>convscope</title><p>{MISSING}", 503)
    return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})


class Invitations:
    """Codes for links that open the page once, so that a browser's command line does not show the token.

    >>> invitations = Invitations("secret")
    >>> code = invitations.new()
    >>> invitations.take(code), invitations.take(code)
    ('secret', None)
    """

    def __init__(self, token: str) -> None:
        self._token = token
        self._until: dict[str, float] = {}

    def new(self) -> str:
        """A code that can be used once, within a minute."""
        code = token_urlsafe(32)
        self._until[code] = time.monotonic() + INVITED_SECONDS
        return code

    def take(self, code: str) -> str | None:
        """The token for a valid code, which becomes invalid; None for any other code."""
        until = self._until.pop(code, 0.0)
        return self._token if time.monotonic() < until else None


@router.get("/open/{code}")
def enter(request: Request, code: str) -> Response:
    """Redirect a one-time link to the page, with the token in the fragment, which browsers never send."""
    token = request.app.state.invitations.take(code)
    if token is None:
        raise HTTPException(410, "this link worked only once; open the address that convscope printed.")
    return RedirectResponse(f"/#token={token}", 303, headers={"Cache-Control": "no-store"})


@router.get("/{name:path}")
def asset(name: Annotated[str, fastapi.Path(max_length=200)]) -> Response:
    """A script, style sheet or image of the page."""
    built = {
        path.relative_to(STATIC).as_posix(): path
        for path in STATIC.rglob("*")
        if path.is_file() and path.name[0] != "."
    }
    if name not in built or name.startswith("api/"):
        raise HTTPException(404)
    return FileResponse(built[name], headers={"Cache-Control": FOREVER if name.startswith("assets/") else "no-cache"})
