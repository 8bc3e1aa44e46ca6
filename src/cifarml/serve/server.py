"""Server process of one endpoint: ``python -m cifarml.serve.server FOLDER`` daemonises.

It writes ``ready`` to standard output once it listens, or the error if it cannot.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import uvicorn
from fastapi import FastAPI

from cifarml.errors import CifarMLError, DeployError
from cifarml.serve.admin_api import add_admin_routes
from cifarml.serve.app import make_app
from cifarml.serve.endpoint_folder import HOST, READY, EndpointFolder, ServerRecord, new_key, rotate_log
from cifarml.serve.http_limits import HttpLimits
from cifarml.serve.middleware import AccessMiddleware
from cifarml.serve.router import TrafficRouter
from cifarml.serve.telemetry import AccessLog

_BACKLOG: Final = 1024
_KEEP_ALIVE_S: Final = 30
_DRAIN_S: Final = 30


def run_server(folder: EndpointFolder, on_ready: Callable[[int], None], *, any_port: bool = True) -> None:
    """Serve an endpoint until SIGTERM or SIGINT, then finish requests in progress.

    Args:
        folder: The endpoint to serve.
        on_ready: Called with the port once the server listens.
        any_port: Listen on another port if the endpoint's is taken.

    Raises:
        DeployError: If another process serves the endpoint, or the port cannot be used.
    """
    with folder.serving():
        listener = _listen(folder.read().port, any_port=any_port)
        port = listener.getsockname()[1]
        server = ServerRecord(os.getpid(), port, new_key())
        log = AccessLog(folder.access_log)
        router = TrafficRouter(folder)

        @contextlib.asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            if router.record.port != port:
                router.set_port(port)
            router.open()
            flushing = asyncio.create_task(_flush(log))
            folder.write_server(server)
            on_ready(port)
            try:
                yield
            finally:
                flushing.cancel()
                await router.close()
                log.close()
                folder.forget_server()

        app = make_app(router, lifespan)
        add_admin_routes(app, router)
        access = AccessMiddleware(app, router, server.control_key, log)
        limits = HttpLimits(access, router.record.patience_s)
        config = uvicorn.Config(
            limits,
            http="httptools",
            loop="uvloop",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_DRAIN_S,
            backlog=_BACKLOG,
        )
        config.load()
        config.http_protocol_class = limits.wrap(config.http_protocol_class)  # type: ignore[assignment]
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again after shutdown
        uvicorn.Server(config).run(sockets=[listener])


async def _flush(log: AccessLog) -> None:
    while True:
        await asyncio.sleep(0.5)
        log.flush()


def _listen(port: int, *, any_port: bool) -> socket.socket:
    """Listen on the endpoint's port or, if it is taken and ``any_port`` is set, on a free one."""
    for wanted in (port, 0) if any_port else (port,):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, wanted))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            if not wanted or not any_port:
                raise DeployError(f"cannot listen on {HOST}:{wanted}: {error.strerror}") from error
        else:
            return listener
    raise AssertionError  # the loop returns or raises at port 0


def main() -> None:
    """Serve the endpoint in the folder given on the command line, as a daemon."""
    if os.fork():
        os._exit(0)  # the parent returns at once and leaves no zombie
    os.setsid()
    os.umask(0o077)
    folder = EndpointFolder(Path(sys.argv[1]))
    parent_output = os.dup(1)
    rotate_log(folder.server_log)
    log = os.open(folder.server_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)

    def report(text: str) -> None:
        with contextlib.suppress(OSError):  # the parent process has exited
            os.write(parent_output, text.encode())
            os.close(parent_output)

    try:
        run_server(folder, lambda _: report(READY))
    except CifarMLError as error:
        report(error.message)
        sys.exit(1)


if __name__ == "__main__":
    main()
