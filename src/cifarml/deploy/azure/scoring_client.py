"""HTTPS client for scoring requests to an endpoint in Azure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from cifarml.deploy.base import parse_response
from cifarml.errors import CloudDeployError, EndpointTimeoutError
from cifarml.predict import Prediction

_TIMEOUT_S: Final = 200.0
"""Longer than the longest request that Azure allows, which is 180 s."""


class ScoringClient:
    """Queries one endpoint, and translates Azure's responses into predictions and errors.

    Requests are idempotent, so connection errors and the statuses 429, 502 and 503 are retried with backoff.

    Args:
        endpoint: Name of the endpoint, for messages.
        uri: Scoring URI.
        read_key: Returns the key or token; called once, and again if the key was rejected.
    """

    def __init__(self, endpoint: str, uri: str, read_key: Callable[[], str]) -> None:
        self._endpoint = endpoint
        self._uri = uri
        self._read_key = read_key
        self._key: str | None = None
        self._session = requests.Session()
        retry = Retry(
            total=3,
            backoff_factor=0.3,
            status_forcelist=(429, 502, 503),
            allowed_methods=None,
            raise_on_status=False,
        )
        self._session.mount("https://", HTTPAdapter(max_retries=retry))

    def score(self, image: bytes, deployment: str | None = None) -> Prediction:
        """Query the endpoint with the content of an image file.

        Raises:
            ImageError: If the image is invalid.
            EndpointTimeoutError: If there is no response in time.
            DeployError: If the deployment does not exist, or fails.
        """
        response = self._post(image, deployment)
        if response.status_code in {401, 403}:  # the key was regenerated, or the token has expired
            self._key = None
            response = self._post(image, deployment)
        return self._read_prediction(response, deployment)

    def _post(self, image: bytes, deployment: str | None) -> requests.Response:
        self._key = self._key or self._read_key()
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "image/png"}
        if deployment is not None:
            headers["azureml-model-deployment"] = deployment
        try:
            return self._session.post(
                self._uri, data=image, headers=headers, timeout=_TIMEOUT_S, allow_redirects=False
            )
        except requests.Timeout:
            raise EndpointTimeoutError(f"endpoint {self._endpoint} did not respond in time") from None
        except requests.RequestException as error:
            raise CloudDeployError(
                f"can't reach endpoint {self._endpoint}: {type(error).__name__}",
                "check the network, and HTTPS_PROXY if you are behind a proxy; then try again",
            ) from None

    def _read_prediction(self, response: requests.Response, deployment: str | None) -> Prediction:
        status, request_id = response.status_code, response.headers.get("x-ms-request-id", "")
        script_status = response.headers.get("ms-azureml-model-error-statuscode", "")
        if status == 424 and script_status.isdecimal():  # the status that the scoring script returned
            status = int(script_status)
        try:
            answer: Any = response.json()
        except ValueError:
            answer = None
        if status == 200:
            return parse_response(self._endpoint, deployment, status, answer)
        message = self._error_message(response, answer, deployment)
        from_script = isinstance(answer, dict) and response.status_code == 424
        if status in {408, 504} or (from_script and status in {400, 413, 415, 422}):
            return parse_response(self._endpoint, deployment, status, {"error": {"message": message}})
        hint = f"see: cifarml endpoint show {self._endpoint}"
        if response.status_code in {401, 403}:
            hint = "show its key: cifarml endpoint keys"
        raise CloudDeployError(
            f"endpoint {self._endpoint}: {message} ({status})", hint, request_id=request_id
        )

    def _error_message(self, response: requests.Response, answer: Any, deployment: str | None) -> str:
        error = answer.get("error", answer) if isinstance(answer, dict) else None
        text = str(error.get("message", "")) if isinstance(error, dict) else ""
        text = " ".join((text or response.text).split())[:300]
        if response.status_code == 404 and "No valid deployments" in text:
            return "no deployment receives traffic"
        if response.status_code in {400, 404} and deployment is not None:
            return f"deployment {deployment} does not exist or is not ready: {text}"
        if response.status_code == 429:
            return "too many concurrent requests"
        return text or "no error message"
