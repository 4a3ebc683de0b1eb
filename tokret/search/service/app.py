"""The application: routes, errors and measurements around a service."""

import contextlib
import time
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tokret.errors import UserError
from tokret.runtime.signals import report
from tokret.search.service import change_routes, page_routes, photo_routes, searching
from tokret.search.service.answers import Health
from tokret.search.service.guard import Guard
from tokret.search.service.openapi import description
from tokret.search.service.problems import Problem, json_response
from tokret.search.service.state import Service

PHOTO = "/photos/{id}"


async def health(request: Request) -> Response:
    """Whether requests are answered."""
    service: Service = request.app.state.service
    status = service.status
    answer = Health(status=status, service=service.name)
    return json_response(answer, 200 if status == "ready" else 503)


async def metrics(request: Request) -> Response:
    """The measurements."""
    service: Service = request.app.state.service
    return service.metrics.response()


async def openapi(request: Request) -> Response:
    """The API's description."""
    return Response(description(), media_type="application/json")


ROUTES = [
    Route("/", page_routes.index),
    Route("/static/{name}", page_routes.static),
    Route("/login", page_routes.login),
    Route("/login", page_routes.take_token, methods=["POST"]),
    Route("/healthz", health),
    Route("/metrics", metrics),
    Route("/openapi.json", openapi),
    Route("/filters", photo_routes.filters),
    Route("/search", searching.search, methods=["POST"]),
    Route("/photos", photo_routes.browse),
    Route("/photos", change_routes.add, methods=["POST"]),
    Route(PHOTO, photo_routes.show),
    Route(PHOTO, change_routes.remove, methods=["DELETE"]),
    Route(f"{PHOTO}/image", photo_routes.image),
    Route(f"{PHOTO}/attention", photo_routes.attention),
]


def make_app(service: Service) -> Starlette:
    """Makes the application of a service; its lifespan is that of the decoders."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with service.decoder:
            yield

    app = Starlette(
        routes=ROUTES,
        middleware=[
            Middleware(Measured, service=service),
            Middleware(Guard, access=service.access),
        ],
        exception_handlers={
            Problem: _refuse,
            HTTPException: _refuse_route,
            UserError: _fail,
            Exception: _fail,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.service = service
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _refuse_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "there is no such address", 405: "the method is not allowed here"}
    return json_response(
        {"error": words.get(error.status_code, error.detail)},
        error.status_code,
        dict(error.headers or {}),
    )


async def _fail(request: Request, error: Exception) -> Response:
    """The terminal has the reason, which may name paths; the answer has not."""
    if isinstance(error, UserError):
        report(f"{request.method} {request.url.path}: {error}")
    words = "the index cannot be searched now; the service's terminal has the reason"
    return json_response({"error": words}, 500)


class Measured:
    """Counts requests and times them, by route."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        """Wraps an application."""
        self._app, self._metrics = app, service.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def send_noticed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noticed)
        finally:
            # Not the path or a method that is not allowed: of them there is no end.
            route = getattr(scope.get("route"), "path", "none")
            is_known = route != "none" and status != 405
            method = scope["method"] if is_known else "any"
            self._metrics.requests.labels(route, method, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - start)
