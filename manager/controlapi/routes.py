"""All routes of the control API, put together."""

from __future__ import annotations

from aiohttp import web

from shoal.manager.controlapi.context import ControlContext
from shoal.manager.controlapi.events import EventRoutes
from shoal.manager.controlapi.logs import LogRoutes
from shoal.manager.controlapi.networks import NetworkRoutes
from shoal.manager.controlapi.nodes import NodeRoutes
from shoal.manager.controlapi.services import ServiceRoutes
from shoal.manager.controlapi.swarm import SwarmRoutes
from shoal.manager.controlapi.tasks import TaskRoutes


def routes(context: ControlContext) -> list[web.RouteDef]:
    """The routes; mount them with the middleware `errors.api_errors`, and `client_max_size` MAX_BODY_BYTES."""
    groups = (ServiceRoutes, TaskRoutes, NodeRoutes, NetworkRoutes, SwarmRoutes, LogRoutes, EventRoutes)
    return [route for group in groups for route in group(context).routes()]
