"""Ahead: the pass that a page begins with, made while its browser still starts.

Knows the gallery and its queue; no requests. A trace is named by what is asked, so that the page's own request finds
the pass, or waits for it.
"""

from functools import partial

from convscope.server import schema
from convscope.server.jobs.workers import NOBODY
from convscope.server.session.model_handle import ModelHandle
from convscope.server.session.workspace import Workspace
from convscope.server.traces import responses


def begin(gallery: Workspace) -> None:
    """Have the first view of each model of this session made, in a thread of the queue."""
    for opened in gallery.given():
        gallery.workers.begin(f"model {opened.id}", partial(_first_view, gallery, opened))


def _first_view(gallery: Workspace, opened: ModelHandle) -> schema.TraceInfo | None:
    """What the page asks for where its address names nothing else."""
    if opened.start is None:
        return None
    request = schema.TraceRequest(model=opened.id, input=opened.start)
    return responses.trace_info(gallery.traces.make(opened, gallery.picture, request, NOBODY))
