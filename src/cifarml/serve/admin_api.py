"""The routes by which the command line changes a running endpoint; they ask for a key of their own."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response

from cifarml.errors import DeployError
from cifarml.serve.endpoint_folder import DeploymentRecord, new_key
from cifarml.serve.middleware import error_response
from cifarml.serve.router import Gateway

__all__ = ["add_control"]


def add_control(app: FastAPI, gateway: Gateway) -> None:
    """Add the routes under ``/control`` to an endpoint's application."""
    router = APIRouter(prefix="/control", include_in_schema=False)

    @app.exception_handler(DeployError)
    async def refused(_: Request, error: DeployError) -> Response:
        return error_response(409, "refused", error.message, hint=error.hint)

    @router.get("/endpoint")
    async def describe() -> dict[str, Any]:
        return gateway.describe()

    @router.post("/deployments")
    async def add(request: Request) -> dict[str, Any]:
        await gateway.add(DeploymentRecord(**await request.json()))
        return gateway.describe()

    @router.delete("/deployments/{name}")
    async def remove(name: str) -> dict[str, Any]:
        await gateway.remove(name)
        return gateway.describe()

    @router.put("/traffic")
    async def set_traffic(request: Request) -> dict[str, Any]:
        await gateway.set_traffic(await request.json())
        return gateway.describe()

    @router.post("/key")
    async def regenerate_key() -> dict[str, Any]:
        gateway.set_key(new_key())
        return {}

    app.include_router(router)
