"""Warm-up: run the forward pass that the page shows first while the browser is still starting.

A trace's id is a digest of its request, so the page's own request finds this trace, or waits for it.
"""

from functools import partial

from convscope.server import schema
from convscope.server.jobs.workers import NOBODY
from convscope.server.session.model_handle import ModelHandle
from convscope.server.session.workspace import Workspace
from convscope.server.traces.responses import trace_info


def begin_first_views(workspace: Workspace) -> None:
    """Start to trace the first input of each model of this session, in the worker threads."""
    for opened in workspace.session_models():
        workspace.workers.begin(f"model {opened.id}", partial(_first_view, workspace, opened))


def _first_view(workspace: Workspace, opened: ModelHandle) -> schema.TraceInfo | None:
    """The trace that the page requests if its URL specifies nothing else."""
    if opened.start is None:
        return None
    request = schema.TraceRequest(model=opened.id, input=opened.start)
    return trace_info(workspace.traces.make(opened, workspace.picture, request, NOBODY))
