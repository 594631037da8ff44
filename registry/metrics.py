"""Prometheus metrics of one server, and the middleware that counts."""

from __future__ import annotations

import time

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from shoal.registry.uploads import Uploads


class Metrics:
    def __init__(self, uploads: Uploads) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter("registry_http_requests", "Requests answered", ["route", "method", "code"],
                                 registry=self._registry)
        self._seconds = Histogram("registry_http_request_duration_seconds", "Until the answer was sent",
                                  ["route", "method"], registry=self._registry)
        self._in_flight = Gauge("registry_http_in_flight_requests", "Requests at work", registry=self._registry)
        opened = Gauge("registry_uploads_open", "Uploads under way", registry=self._registry)
        opened.set_function(lambda: len(uploads))

    def middleware(self) -> Middleware:
        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            route = getattr(request.match_info.handler, "__name__", "other")
            begin, code = time.monotonic(), 500
            self._in_flight.inc()
            try:
                response = await handler(request)
                code = response.status
                return response
            except web.HTTPException as error:
                code = error.status
                raise
            finally:
                self._in_flight.dec()
                self._requests.labels(route, request.method, str(code)).inc()
                self._seconds.labels(route, request.method).observe(time.monotonic() - begin)
        return count

    def page(self) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
