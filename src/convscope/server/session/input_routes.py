"""Route for uploads: the bytes of an image file."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from convscope.server.session import uploads
from convscope.server.session.input_schema import Stored

_BODY = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in uploads.TYPES},
    }
}


@router.post("/inputs", openapi_extra=_BODY)
async def store(request: Request, name: Annotated[str, Query(max_length=200)] = "picture") -> Stored:
    """Check and store an uploaded image."""
    content = await request.body()
    picture = await run_in_threadpool(uploads.read_upload, content)
    notes = await run_in_threadpool(uploads.notes_on, content)
    stored: Stored = request.app.state.gallery.keep(name, picture, notes)
    return stored
