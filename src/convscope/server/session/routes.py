"""Routes of the session: what is open, and thumbnails of the data sources' images."""

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
