"""Routes of the session: what is open, thumbnails of the data sources' images, and uploads."""

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from convscope.server.http.message import Id
from convscope.server.session import uploads
from convscope.server.session.schema import Session, Stored
from convscope.server.traces.array_pictures import pack_of_pictures, shades, shrunk

router = APIRouter(tags=["session"])
SIDE = 64
"""Maximum pixels a side of a thumbnail."""


@router.get("/session")
async def session(request: Request) -> Session:
    """The open models, data sources and kernels."""
    workspace = request.app.state.gallery
    describe = partial(workspace.session, can_train=request.app.state.trainings is not None)
    info: Session = await workspace.workers.run(request, "session", describe)
    return info


@router.get("/samples", response_class=Response, responses={200: {"content": {"application/octet-stream": {}}}})
async def samples(
    request: Request,
    source: Id,
    split: Literal["train", "test", "all"] = "test",
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 48,
) -> Response:
    """Thumbnails of a data source's images, as a pack."""
    workspace = request.app.state.gallery

    def make_pack() -> bytes:
        data = workspace.sources_known.split(source, split)
        if offset and offset >= len(data):
            raise HTTPException(
                404, f"{source}:{split} has images 0 to {len(data) - 1}; offset {offset} is beyond them."
            )
        items = []
        for index in range(offset, min(offset + limit, len(data))):
            picture = shades(shrunk(data.picture(index), SIDE), 0, 1)
            about = {"id": index, "channels": list(range(len(picture))), "total": len(data), "low": 0.0, "high": 1.0}
            items.append(({**about, "label": int(data.labels[index])}, picture))
        return pack_of_pictures(items)

    content = await workspace.workers.run(request, f"source {source}", make_pack)
    return Response(content, media_type="application/octet-stream")


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
    transparent = await run_in_threadpool(uploads.with_transparency, content)
    notes = await run_in_threadpool(uploads.notes_on, content)
    stored: Stored = request.app.state.gallery.keep(name, picture, notes, transparent=transparent)
    return stored
