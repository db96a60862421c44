"""Routes of what is open: the session, and the samples of its data sources."""

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from convscope.server.http.message import Id
from convscope.server.session.schema import Session
from convscope.server.traces.array_pictures import pack_of_pictures, shades, shrunk

router = APIRouter(tags=["session"])
SIDE = 64
"""Pixels a side of a sample's thumbnail, at most."""


@router.get("/session")
async def session(request: Request) -> Session:
    """Everything that is open."""
    gallery = request.app.state.gallery
    made = partial(gallery.session, can_train=request.app.state.trainings is not None)
    found: Session = await gallery.workers.run(request, "session", made)
    return found


@router.get("/samples", response_class=Response, responses={200: {"content": {"application/octet-stream": {}}}})
async def samples(
    request: Request,
    source: Id,
    split: Literal["train", "test", "all"] = "test",
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 48,
) -> Response:
    """Thumbnails of a data source's images, as a pack."""
    gallery = request.app.state.gallery

    def made() -> bytes:
        data = gallery.sources_known.split(source, split)
        if offset and offset >= len(data):
            raise HTTPException(
                404, f"{source}:{split} has images 0 to {len(data) - 1}; there is none from {offset} on."
            )
        items = []
        for index in range(offset, min(offset + limit, len(data))):
            picture = shades(shrunk(data.picture(index), SIDE), 0, 1)
            about = {"id": index, "channels": list(range(len(picture))), "total": len(data), "low": 0.0, "high": 1.0}
            items.append(({**about, "label": int(data.labels[index])}, picture))
        return pack_of_pictures(items)

    return Response(await gallery.workers.run(request, f"source {source}", made), media_type="application/octet-stream")
