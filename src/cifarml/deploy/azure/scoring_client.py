"""HTTPS client of one endpoint in Azure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from cifarml.deploy.base import read_answer
from cifarml.errors import CloudDeployError, EndpointTimeoutError
from cifarml.predict import Prediction

_TIMEOUT_S: Final = 200.0
"""Longer than the longest request that Azure allows, which is 180 s."""


class ScoringClient:
    """Queries one endpoint, and interprets what Azure makes of the container's answers.

    A lost connection, and a 429, 502 or 503 of Azure's own, are tried again; asking twice does no harm.

    Args:
        endpoint: Its name, for messages.
        uri: Where requests are posted.
        read_key: Returns the key or token to show; asked once, and again where it is void.
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
        """Ask about an image file.

        Raises:
            ImageError: If the endpoint can't read the image.
            EndpointTimeoutError: If no answer came in time.
            DeployError: If there is no such deployment, or it fails.
        """
        response = self._post(image, deployment)
        if response.status_code in {401, 403}:  # somebody has made a new key, or the token is old
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
            raise EndpointTimeoutError(f"endpoint {self._endpoint} did not answer in time") from None
        except requests.RequestException as error:
            raise CloudDeployError(
                f"can't reach endpoint {self._endpoint}: {type(error).__name__}",
                "check the network, and HTTPS_PROXY if you are behind a proxy; then try again",
            ) from None

    def _read_prediction(self, response: requests.Response, deployment: str | None) -> Prediction:
        status, request_id = response.status_code, response.headers.get("x-ms-request-id", "")
        passed_on = response.headers.get("ms-azureml-model-error-statuscode", "")
        if status == 424 and passed_on.isdecimal():  # what the container said
            status = int(passed_on)
        try:
            answer: Any = response.json()
        except ValueError:
            answer = None
        if status == 200:
            return read_answer(self._endpoint, deployment, status, answer)
        said = self._said(response, answer, deployment)
        from_script = isinstance(answer, dict) and response.status_code == 424
        if status in {408, 504} or (from_script and status in {400, 413, 415, 422}):
            return read_answer(self._endpoint, deployment, status, {"error": {"message": said}})
        hint = f"look at: cifarml endpoint show {self._endpoint}"
        if response.status_code in {401, 403}:
            hint = "its keys: cifarml endpoint keys"
        message = f"endpoint {self._endpoint}: {said} ({status})"
        raise CloudDeployError(message, hint, request_id=request_id)

    def _said(self, response: requests.Response, answer: Any, deployment: str | None) -> str:
        error = answer.get("error", answer) if isinstance(answer, dict) else None
        text = str(error.get("message", "")) if isinstance(error, dict) else ""
        text = " ".join((text or response.text).split())[:300]
        if response.status_code == 404 and "No valid deployments" in text:
            return "no deployment gets traffic"
        if response.status_code in {400, 404} and deployment is not None:
            return f"it has no deployment {deployment} that answers: {text}"
        if response.status_code == 429:
            return "it is asked more than it can do at a time"
        return text or "no reason was given"
