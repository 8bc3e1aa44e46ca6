"""The server process of one endpoint: ``python -m cifarml.serve.server FOLDER`` lets go of its terminal.

It says ``ready`` on standard output once it listens, or why it doesn't.
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
from filelock import Timeout

from cifarml.errors import CifarMLError, DeployError
from cifarml.serve.admin_api import add_control
from cifarml.serve.app import make_app
from cifarml.serve.endpoint_folder import HOST, READY, EndpointFolder, ServerRecord, new_key, turn_over
from cifarml.serve.http_limits import GuardedConnection
from cifarml.serve.middleware import Guard
from cifarml.serve.router import Gateway
from cifarml.serve.telemetry import AccessLog

__all__ = ["run_server"]

_BACKLOG: Final = 1024
_KEEP_ALIVE_S: Final = 30
_DRAIN_S: Final = 30
_LOCK_TIMEOUT_S: Final = 5.0


def run_server(folder: EndpointFolder, on_ready: Callable[[int], None], *, any_port: bool = True) -> None:
    """Serve an endpoint until SIGTERM or SIGINT; what is in flight then is finished.

    Args:
        folder: The endpoint.
        on_ready: Called with the port once it listens.
        any_port: Take another port where another program has the endpoint's.

    Raises:
        DeployError: If it is served already, or can't be.
    """
    try:
        folder.lock.acquire(timeout=_LOCK_TIMEOUT_S)
    except Timeout:
        raise DeployError(f"endpoint {folder.name} is served by another process already") from None
    try:
        listener = _listen(folder.read().port, any_port=any_port)
        port = listener.getsockname()[1]
        server = ServerRecord(os.getpid(), port, new_key())
        log = AccessLog(folder.access_log)
        gateway = Gateway(folder)

        @contextlib.asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            if gateway.record.port != port:
                gateway.set_port(port)
            gateway.open()
            flushing = asyncio.create_task(_flush(log))
            folder.write_server(server)
            on_ready(port)
            try:
                yield
            finally:
                flushing.cancel()
                await gateway.close()
                log.close()
                folder.forget_server()

        app = make_app(gateway, lifespan)
        add_control(app, gateway)
        config = uvicorn.Config(
            Guard(app, gateway, server.control_key, log),
            http=type("Connection", (GuardedConnection,), {"patience_s": gateway.record.patience_s}),
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
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again once all is done
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        folder.lock.release()


async def _flush(log: AccessLog) -> None:
    while True:
        await asyncio.sleep(0.5)
        log.flush()


def _listen(port: int, *, any_port: bool) -> socket.socket:
    """Listen on the port that it had, or where another program has it now, on a new one."""
    for wanted in (port, 0) if any_port else (port,):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, wanted))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            if not wanted or not any_port:
                raise DeployError(f"can't listen on {HOST}:{wanted}: {error.strerror}") from error
        else:
            return listener
    raise AssertionError  # port 0 was listened on, or refused


def main() -> None:
    """Serve the endpoint in the folder that is named, in a process of its own."""
    if os.fork():
        os._exit(0)  # who started us need not wait for us, nor leave a zombie
    os.setsid()
    os.umask(0o077)
    folder = EndpointFolder(Path(sys.argv[1]))
    starter = os.dup(1)
    turn_over(folder.server_log)
    log = os.open(folder.server_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)

    def tell(text: str) -> None:
        with contextlib.suppress(OSError):  # who started us has gone
            os.write(starter, text.encode())
            os.close(starter)

    try:
        run_server(folder, lambda _: tell(READY))
    except CifarMLError as error:
        tell(error.message)
        sys.exit(1)


if __name__ == "__main__":
    main()
