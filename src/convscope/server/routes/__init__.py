"""Routes: parse, call, answer; one file per kind of thing. Everything here lies under /api."""

from convscope.server.routes import inputs, trainings

ROUTERS = (inputs.router, trainings.router)
"""Every router, in the order in which addresses are matched."""
