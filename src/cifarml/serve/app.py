"""FastAPI application of an endpoint: scoring, health, metrics and the web page."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from cifarml.cifar10 import CLASS_NAMES
from cifarml.errors import RequestError
from cifarml.scoring.api_schema import SCORE_REQUEST, SCORE_RESPONSES
from cifarml.scoring.request import CODES, IMAGE_TYPES, MAX_BODY_BYTES, inflate
from cifarml.serve.api_docs import render_reference
from cifarml.serve.batching_queue import Busy, TimedOut, Unavailable
from cifarml.serve.middleware import error_response
from cifarml.serve.router import TrafficRouter, UnknownDeployment
from cifarml.serve.telemetry import EndpointMetrics

PAGE: Final = Path(__file__).with_name("page")
_DEPLOYMENT: Final = "azureml-model-deployment"

_ERRORS: Final = {status: about for status, about in SCORE_RESPONSES.items() if status != 200}
_PNG: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "PNG image of 32x32 pixels.", "content": {"image/png": {}}}
}
_IMAGE_FILE: Final = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in sorted(IMAGE_TYPES)},
    }
}


def make_app(
    router: TrafficRouter,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    root_path: str = "",
) -> FastAPI:
    """Create the application of an endpoint; the docstrings of its routes are in the OpenAPI document.

    Args:
        router: The deployments.
        lifespan: Context that starts and stops them.
        root_path: Path prefix in the URLs that clients use; the application's own paths do not have it.
    """
    title = f"cifarml endpoint {router.folder.name}"
    about = "Routes that require the key expect the header Authorization: Bearer KEY."
    app = FastAPI(
        title=title,
        description=about,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # it would redirect to a URL without the prefix
        servers=[{"url": root_path}] if root_path else None,
        lifespan=lifespan,
    )
    counters = EndpointMetrics()

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "wrong_method", 413: "too_large"}.get(error.status_code, "bad_http")
        message = str(error.detail)
        if code == "wrong_method" and request.url.path in {"/score", "/seen"}:
            message = f"send an image to this address with POST; open {root_path}/ in a browser"
        elif code == "wrong_method":
            message = (
                f"use {(error.headers or {}).get('Allow', 'GET')} here; send images to {root_path}/score"
            )
        elif code == "not_found":
            message = f"the path does not exist; send images to {root_path}/score, see also {root_path}/docs"
        return error_response(error.status_code, code, message, error.headers)

    @app.exception_handler(RequestError)
    async def wrong_body(_: Request, error: RequestError) -> Response:
        return error_response(CODES[error.code][0], error.code, error.message)

    @app.post("/score", openapi_extra=SCORE_REQUEST, responses=SCORE_RESPONSES)
    async def score(request: Request) -> Response:
        """Classify one image or a list of images. Requires the key."""
        body = await _read_body(request)
        started = time.perf_counter()
        name, answer = "", b""
        try:
            status, answer, name = await router.score(
                request.headers.get("content-type", "").encode("latin-1"),
                body,
                request.headers.get(_DEPLOYMENT),
            )
            response = Response(answer, status, {_DEPLOYMENT: name}, "application/json")
        except (UnknownDeployment, Unavailable) as error:
            response = _refusal(error)
        counters.count(name, response.status_code, time.perf_counter() - started, answer)
        request.scope["state"]["deployment"] = name
        return response

    @app.post("/seen", response_class=Response, openapi_extra=_IMAGE_FILE, responses=_PNG | _ERRORS)
    async def seen(request: Request) -> Response:
        """Return an image as the network sees it, as a PNG file. Requires the key."""
        kind = request.headers.get("content-type", "").encode("latin-1")
        return await _image(router, b"image/" + kind, await _read_body(request))

    @app.get("/samples")
    async def samples() -> list[str]:
        """List the classes that have a sample image."""
        return list(CLASS_NAMES)

    @app.get("/samples/{name}.png", response_class=Response, responses=_PNG | _ERRORS)
    async def sample(name: str) -> Response:
        """Return the sample image of a class."""
        return await _image(router, b"sample", name.encode())

    @app.get("/health/live")
    async def live() -> dict[str, str]:
        """Liveness probe: the server is running."""
        return {"status": "live"}

    @app.get("/health/ready", responses={503: _ERRORS[503]})
    async def ready() -> Response:
        """Readiness probe: every deployment that receives traffic is ready."""
        if router.ready:
            return Response('{"status": "ready"}', media_type="application/json")
        return error_response(503, "not_ready", "a deployment that receives traffic is not ready")

    @app.get("/metrics", response_class=PlainTextResponse, responses={401: _ERRORS[401]})
    async def metrics() -> Response:
        """Return metrics in the Prometheus text format. Requires the key."""
        text = counters.text(router.record)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    app.mount("/page", StaticFiles(directory=PAGE), name="page")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse((PAGE / "index.html").read_bytes())

    @app.get("/docs", include_in_schema=False)
    async def reference() -> Response:
        return HTMLResponse(render_reference(app.openapi()))

    return app


async def _read_body(request: Request) -> bytes:
    """Read and decompress the body without buffering more than the limit."""
    too_large = HTTPException(
        413, f"the request body is larger than {MAX_BODY_BYTES:,} bytes", {"connection": "close"}
    )
    if int(request.headers.get("content-length", 0)) > MAX_BODY_BYTES:
        raise too_large
    chunks, size_bytes = [], 0
    async for chunk in request.stream():
        size_bytes += len(chunk)
        if size_bytes > MAX_BODY_BYTES:
            raise too_large
        chunks.append(chunk)
    encoding = ", ".join(request.headers.getlist("content-encoding"))
    return await asyncio.to_thread(inflate, encoding, b"".join(chunks)) if encoding else b"".join(chunks)


async def _image(router: TrafficRouter, kind: bytes, body: bytes) -> Response:
    try:
        status, answer = await router.image(kind, body)
    except Unavailable as error:
        return _refusal(error)
    return Response(answer, status, media_type="image/png" if status == 200 else "application/json")


def _refusal(error: UnknownDeployment | Unavailable) -> Response:
    again = {"retry-after": "1"}
    if isinstance(error, UnknownDeployment):
        return error_response(404, "unknown_deployment", str(error))
    if isinstance(error, Busy):
        return error_response(429, "busy", str(error), again)
    if isinstance(error, TimedOut):
        return error_response(504, "timeout", str(error))
    return error_response(503, "unavailable", str(error), again)
