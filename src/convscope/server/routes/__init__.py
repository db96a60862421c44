"""Routes: parse, call, answer; one file per kind of thing. Everything here lies under /api."""

from convscope.server.routes import explanations, inputs, probes, session, traces, trainings

ROUTERS = (session.router, inputs.router, traces.router, explanations.router, trainings.router, probes.router)
"""Every router, in the order in which addresses are matched."""
