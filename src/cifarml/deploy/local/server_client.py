"""Client for the server process of a local endpoint."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import time
from typing import Any, Final

import psutil
import urllib3
from filelock import Timeout
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as NoResponse

from cifarml.errors import DeployError, EndpointTimeoutError
from cifarml.serve.endpoint_folder import HOST, READY, EndpointFolder, ServerRecord, tail_of
from cifarml.serve.exposure import Exposure
from cifarml.settings import load_settings

_log = logging.getLogger(__name__)

_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 40.0
_KILL_TIMEOUT_S: Final = 3.0
_CONTROL_TIMEOUT_S: Final = 120.0


class ServerClient:
    """Starts, queries and stops the server processes of endpoints; never uses a proxy."""

    def __init__(self) -> None:
        self._http = _new_pool()

    def start(self, folder: EndpointFolder) -> ServerRecord:
        """Return the endpoint's server; start it if necessary and wait for its deployments.

        Raises:
            DeployError: If it does not start.
        """
        if (server := folder.running_server()) is not None:
            return server
        folder.check_owner()
        folder.read()
        exposure = Exposure.from_settings(load_settings())
        if exposure.warning:
            _log.warning("%s", exposure.warning)
        try:
            done = subprocess.run(  # noqa: S603  # this interpreter, fixed arguments
                [sys.executable, "-P", "-m", "cifarml.serve.server", str(folder.path), exposure.to_json()],
                cwd=folder.path,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=_START_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DeployError(f"the server of endpoint {folder.name} did not start in time") from None
        server = folder.running_server()
        if not done.stdout.endswith(READY) or server is None:
            output = done.stdout.strip() or tail_of(folder.server_log, 5) or f"exit code {done.returncode}"
            raise DeployError(f"the server of endpoint {folder.name} did not start: {output}")
        self._await_deployments(folder, server)
        return server

    def _await_deployments(self, folder: EndpointFolder, server: ServerRecord) -> None:
        """Wait until no deployment is starting."""
        ends = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < ends:
            live = self.control(folder, server, "GET", "endpoint")["live"]
            if all(each["state"] != "starting" for each in live.values()):
                return
            time.sleep(0.05)

    def stop(self, folder: EndpointFolder) -> None:
        """Stop the server and its workers; kill them if it does not stop in time."""
        server = folder.running_server()
        if server is None:
            return
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(server.pid)
            family = [process, *process.children(recursive=True)]
            process.terminate()
            try:
                with folder.lock.acquire(timeout=_STOP_TIMEOUT_S):  # the server holds it until it exits
                    pass
            except Timeout:
                for each in family:
                    with contextlib.suppress(psutil.Error):
                        each.kill()
                psutil.wait_procs(family, timeout=_KILL_TIMEOUT_S)

    def control(
        self, folder: EndpointFolder, server: ServerRecord, method: str, path: str, values: object = None
    ) -> Any:
        """Send a request to the admin API, and return the parsed JSON response.

        Raises:
            DeployError: If the server rejects the request or does not respond.
        """
        headers = {"authorization": f"Bearer {server.control_key}", "content-type": "application/json"}
        body = None if values is None else json.dumps(values).encode()
        path = f"/control/{path}"
        status, answer = self.request(folder, server, method, path, body, headers, _CONTROL_TIMEOUT_S)
        if status != 200:
            error = answer["error"]
            raise DeployError(f"endpoint {folder.name}: {error['message']}", error.get("hint"))
        return answer

    def request(
        self,
        folder: EndpointFolder,
        server: ServerRecord,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        timeout_s: float,
    ) -> tuple[int, Any]:
        """Send a request, and return the status and the parsed JSON response.

        Raises:
            EndpointTimeoutError: If there is no response in time.
            DeployError: If the connection fails, or the response is not JSON.
        """
        url = f"http://{HOST}:{server.port}{path}"
        try:
            response = self._http.request(method, url, body=body, headers=headers, timeout=timeout_s)
            return response.status, response.json()
        except KeyboardInterrupt:  # a lock of the pool may remain held, which would block later requests
            self._http = _new_pool()
            raise
        except NoResponse as error:
            raise EndpointTimeoutError(
                f"endpoint {folder.name} did not respond in {timeout_s:.0f} s"
            ) from error
        except HTTPError as error:
            raise DeployError(
                f"connection to endpoint {folder.name} failed: {type(error).__name__}",
                hint=f"see its log: {folder.server_log}",
            ) from error
        except ValueError as error:
            raise DeployError(f"endpoint {folder.name}: invalid response ({response.status})") from error


def _new_pool() -> urllib3.PoolManager:
    return urllib3.PoolManager(maxsize=16, retries=False)
