"""Long-running operations, each in its own thread."""

from __future__ import annotations

import threading
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.emulators.azureml.web import AzureError, Response

POLL = {"x-ms-retry-after-ms": "20"}


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")


@dataclass
class Operation:
    """Long-running operation; ``done`` is set when it has ended, ``error`` if it failed."""

    id: str
    error: dict[str, Any] | None = None
    done: threading.Event = field(default_factory=threading.Event)
    started: str = field(default_factory=now)

    @property
    def status(self) -> str:
        if not self.done.is_set():
            return "InProgress"
        return "Failed" if self.error else "Succeeded"


class Operations:
    """Operations; they start after ``delay_s`` if ``may_begin`` is set; ``busy`` has locked resources."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.may_begin = threading.Event()
        self.crashes: list[str] = []
        self.reset()

    def reset(self) -> None:
        self.may_begin.set()
        self.all: dict[str, Operation] = {}
        self.busy: dict[str, Operation] = {}

    def start(self, work: Callable[[], None], key: str | None = None) -> Operation:
        operation = Operation(str(uuid.uuid4()))
        self.all[operation.id] = operation
        busy = self.busy
        if key:
            busy[key] = operation

        def run() -> None:
            try:
                time.sleep(self.delay_s)
                self.may_begin.wait()
                work()
            except AzureError as error:
                operation.error = {"code": error.code, "message": error.message}
            except BaseException:  # noqa: BLE001 - recorded; pytest's exceptions are not subclasses of Exception
                self.crashes.append(traceback.format_exc())
                operation.error = {"code": "InternalServerError", "message": "An error occurred."}
            finally:
                if key and busy.get(key) is operation:
                    del busy[key]
                operation.done.set()

        threading.Thread(target=run, daemon=True).start()
        return operation

    def check_free(self, key: str) -> None:
        if key in self.busy:
            raise AzureError(
                409,
                "Conflict",
                f"Endpoint '{key}' is being updated: another operation is in progress. "
                "Please wait until it is completed, then try again.",
            )

    def get(self, key: str) -> Operation:
        if key not in self.all:
            raise AzureError(404, "NotFound", f"The operation {key} was not found.")
        return self.all[key]

    def state(self, key: str) -> Response:
        operation = self.get(key)
        document: dict[str, Any] = {
            "id": operation.id,
            "name": operation.id,
            "status": operation.status,
            "startTime": operation.started,
        }
        if operation.error:
            document["error"] = operation.error
        return Response(200, document, POLL)

    def result(self, key: str) -> Response:
        operation = self.get(key)
        return Response(
            200 if operation.done.is_set() else 202, None, {} if operation.done.is_set() else POLL
        )
