"""All API routers, in the order in which paths are matched. All paths start with /api."""

from convscope.server.explanations.routes import router as explanations
from convscope.server.gradients.routes import router as gradients
from convscope.server.lessons.routes import router as lessons
from convscope.server.probes.routes import router as probes
from convscope.server.session.routes import router as session
from convscope.server.traces.routes import router as traces
from convscope.server.trainings.routes import router as trainings

ROUTERS = (session, traces, explanations, gradients, trainings, probes, lessons)
