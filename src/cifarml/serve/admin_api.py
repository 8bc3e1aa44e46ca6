"""Admin API: routes for managing a running endpoint, protected by a separate key."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response

from cifarml.errors import DeployError
from cifarml.serve.endpoint_folder import DeploymentRecord, new_key
from cifarml.serve.middleware import error_response
from cifarml.serve.router import TrafficRouter


def add_admin_routes(app: FastAPI, router: TrafficRouter) -> None:
    """Add the routes under ``/control`` to the application of an endpoint."""
    routes = APIRouter(prefix="/control", include_in_schema=False)

    @app.exception_handler(DeployError)
    async def refused(_: Request, error: DeployError) -> Response:
        return error_response(409, "refused", error.message, hint=error.hint)

    @routes.get("/endpoint")
    async def describe() -> dict[str, Any]:
        return router.describe()

    @routes.post("/deployments")
    async def add(request: Request) -> None:
        await router.add(DeploymentRecord(**await request.json()))

    @routes.delete("/deployments/{name}")
    async def remove(name: str) -> None:
        await router.remove(name)

    @routes.put("/traffic")
    async def set_traffic(request: Request) -> None:
        await router.set_traffic(await request.json(), restore="restore" in request.query_params)

    @routes.post("/key")
    async def regenerate_key() -> None:
        router.set_key(new_key())

    app.include_router(routes)
