"""Data plane: scoring requests to endpoints."""

from __future__ import annotations

import http.client
import random
import re
import threading
import uuid
from typing import TYPE_CHECKING

from tests.emulators.azureml.control import bearer
from tests.emulators.azureml.web import Call, Response

if TYPE_CHECKING:
    from tests.emulators.azureml.cloud import Cloud
    from tests.emulators.azureml.deployments import Deployment, Endpoint

_FORWARDED = ("content-type", "accept", "x-ms-client-request-id", "traceparent")
_NO_ROUTE = (
    "No valid deployments to route to. Please check that the endpoint has at least one deployment with "
    "positive weight values or use a deployment specific header to route.."
)


def seconds(duration: str | None, default: float) -> float:
    """Parse an ISO 8601 duration such as PT3S or PT1M30.5S; return seconds."""
    found = re.fullmatch(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?)?", duration or "")
    if not found:
        return default
    days, hours, minutes, rest = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


class Scoring:
    """Handler for every ``<endpoint>.<location>.inference.ml.azure.com``."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self._lock = threading.Lock()

    def __call__(self, call: Call) -> Response:
        endpoint = self.cloud.endpoints.get(call.request.host.partition(".")[0])
        if endpoint is None:
            return Response(404, b"")
        if not self._is_allowed(endpoint, bearer(call)):
            return _problem(
                401, "key_auth_access_denied", "Access denied due to invalid or missing credentials."
            )
        chosen = self._choose(endpoint, call)
        if isinstance(chosen, Response):
            return chosen
        for name, share in endpoint.mirror_traffic.items():
            mirror = endpoint.deployments.get(name)
            if mirror and mirror.server and random.random() * 100 < share:
                with self._lock:
                    mirror.num_mirrored += 1
                threading.Thread(target=self._forward, args=(mirror, call), daemon=True).start()
        with self._lock:
            chosen.num_requests += 1
            if chosen.num_active >= chosen.max_active:
                return _problem(429, "too_many_requests", "Too many requests.", chosen)
            chosen.num_active += 1
        try:
            return self._forward(chosen, call)
        finally:
            with self._lock:
                chosen.num_active -= 1

    def _is_allowed(self, endpoint: Endpoint, token: str) -> bool:
        if endpoint.auth_mode.lower() == "key":
            return token in endpoint.keys.values()
        if endpoint.auth_mode.lower() == "aadtoken":
            return token in self.cloud.bench.entra.tokens
        return token in endpoint.tokens

    def _choose(self, endpoint: Endpoint, call: Call) -> Deployment | Response:
        if named := call.request.headers.get("azureml-model-deployment"):
            deployment = endpoint.deployments.get(named)
            if deployment is None:
                text = f"Specified deployment [{named}] could not be found. Please check and use a valid one."
                return _problem(404, "no_deployment", text)
        else:
            weights = {
                name: share
                for name, share in endpoint.traffic.items()
                if share > 0 and name in endpoint.deployments
            }
            if not weights:
                return _problem(404, "no_deployment", _NO_ROUTE)
            deployment = endpoint.deployments[random.choices([*weights], [*weights.values()])[0]]
        if deployment.server is None:
            return _problem(503, "no_healthy_upstream", "no healthy upstream", deployment)
        return deployment

    def _forward(self, deployment: Deployment, call: Call) -> Response:
        server = deployment.server
        settings = deployment.properties.get("requestSettings") or {}
        timeout_s = seconds(settings.get("requestTimeout"), 5.0)
        headers = {name: value for name, value in call.request.headers.items() if name in _FORWARDED}
        request_id = str(uuid.uuid4())
        headers["x-ms-request-id"] = request_id
        target = call.request.path
        if call.query:
            target += "?" + "&".join(f"{name}={value}" for name, value in call.query.items())
        connection = http.client.HTTPConnection("127.0.0.1", server.port if server else 9, timeout=timeout_s)
        try:
            connection.request(call.request.method, target, call.content or None, headers)
            reply = connection.getresponse()
            body = reply.read()
        except TimeoutError:
            return _problem(408, "request_timeout", "upstream request timeout", deployment)
        except (OSError, http.client.HTTPException):
            return _problem(503, "no_healthy_upstream", "upstream connect error or disconnect", deployment)
        finally:
            connection.close()
        passed = {
            "Content-Type": reply.getheader("Content-Type") or "application/json",
            "azureml-model-deployment": deployment.name,
            "x-ms-request-id": request_id,
        }
        if reply.status == 200:
            return Response(200, body, passed)
        reason = {
            "ms-azureml-model-error-reason": "model_error",
            "ms-azureml-model-error-statuscode": str(reply.status),
        }
        return Response(424, body, passed | reason)


def _problem(status: int, reason: str, text: str, deployment: Deployment | None = None) -> Response:
    headers = {"Content-Type": "text/plain", "ms-azureml-model-error-reason": reason}
    if deployment:
        headers["azureml-model-deployment"] = deployment.name
    return Response(status, text.encode(), headers)
