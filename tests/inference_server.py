"""Azure ML's inference server, which runs a scoring script in a managed endpoint."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import requests

from tests.environments import environment
from tests.waiting import wait_until

# The server exits when its standard input is closed, so that even a killed test session leaves none behind.
END_WITH_PARENT = '"$@" & read -r _; kill -TERM $!; wait'


def command(code: Path, script: Path, port: int) -> list[str | Path]:
    """Return the command that serves a script of a code folder."""
    return [
        *(environment("inference-server") / "azmlinfsrv", "--entry_script", script.relative_to(code)),
        *("--port", str(port)),
    ]


def variables(code: Path, model: Path, home: Path) -> Mapping[str, str]:
    """Return the environment that Azure ML sets, with a separate home folder for the control socket."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CIFARML"))}
    return ours | {"AML_APP_ROOT": str(code), "AZUREML_MODEL_DIR": str(model), "HOME": str(home)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class InferenceServer:
    """A running server with one worker.

    Args:
        code: The code folder.
        script: The scoring script in it.
        model: Folder of the model: ``.../<name>/<version>``.
        home: An empty folder.
    """

    def __init__(self, code: Path, script: Path, model: Path, home: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/score"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(
            ["sh", "-c", END_WITH_PARENT, "sh", *command(code, script, self.port)],
            cwd=code,
            env=variables(code, model, home),
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _wait(self) -> None:
        def is_over() -> bool:
            with contextlib.suppress(requests.RequestException):
                return requests.get(f"http://127.0.0.1:{self.port}/", timeout=5).ok
            return self._process.poll() is not None or "Worker failed to boot" in self.log()

        wait_until(is_over)
        if self._process.poll() is not None or "Worker failed to boot" in self.log():
            pytest.fail(f"the inference server did not start.\n{self.log()[-3000:]}")

    def log(self) -> str:
        """Return the output of the server."""
        return os.pread(self._log.fileno(), 1 << 20, 0).decode(errors="replace")

    def close(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait(30)
        self._log.close()
