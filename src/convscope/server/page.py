"""Page: the built web page and its assets, as they lie in server/static; a sentence where they were not built.

Knows files of that folder, found by listing it: no path that a browser sends is ever opened.
"""

from pathlib import Path
from typing import Annotated

import fastapi
from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, HTMLResponse, Response

STATIC = Path(__file__).parent / "static"
MISSING = (
    "The explorer's page is not built here: convscope was installed with CONVSCOPE_NO_WEB=1, or from a checkout "
    "whose page was never built. Run `make web` in the checkout, or install again without that variable."
)
FOREVER = "public, max-age=31536000, immutable"
"""For assets: their names change with their content."""

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


@router.get("/{name:path}")
def asset(name: Annotated[str, fastapi.Path(max_length=200)]) -> Response:
    """A script, a style sheet or a picture of the page."""
    built = {path.relative_to(STATIC).as_posix(): path for path in STATIC.rglob("*") if path.is_file()}
    if name not in built or name.startswith("api/"):
        raise HTTPException(404)
    return FileResponse(built[name], headers={"Cache-Control": FOREVER if name.startswith("assets/") else "no-cache"})
