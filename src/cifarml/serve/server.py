"""Server process of one endpoint: ``python -m cifarml.serve.server FOLDER [EXPOSURE]`` daemonises.

It writes ``ready`` to standard output once it listens, or the error if it cannot.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, cast

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from cifarml.errors import CifarMLError, DeployError
from cifarml.serve.admin_api import add_admin_routes
from cifarml.serve.app import make_app
from cifarml.serve.endpoint_folder import HOST, READY, EndpointFolder, ServerRecord, new_key, rotate_log
from cifarml.serve.exposure import EXPOSURE, Exposure
from cifarml.serve.http_limits import HttpLimits
from cifarml.serve.middleware import AccessMiddleware
from cifarml.serve.router import TrafficRouter
from cifarml.serve.telemetry import AccessLog

_ALL_ADDRESSES: Final = ("0.0.0.0", "::")  # noqa: S104  # compared, not used
_BACKLOG: Final = 1024
_KEEP_ALIVE_S: Final = 30
_DRAIN_S: Final = 30


def run_server(
    folder: EndpointFolder,
    on_ready: Callable[[int], None],
    *,
    any_port: bool = True,
    exposure: Exposure | None = None,
    key_hint: str = "",
) -> None:
    """Serve an endpoint until SIGTERM or SIGINT, then finish requests in progress.

    Args:
        folder: The endpoint to serve.
        on_ready: Called with the port once the server listens.
        any_port: Listen on another port if the endpoint's is taken.
        exposure: How the endpoint is reached; by default from this machine only.
        key_hint: Sentence for unauthorized clients that says where the key is.

    Raises:
        DeployError: If another process serves the endpoint, or the port cannot be used.
    """
    exposure = exposure or Exposure()
    with folder.serving():
        listeners = _listen(exposure.host, folder.read().port, any_port=any_port)
        port = listeners[0].getsockname()[1]
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

        app = make_app(router, lifespan, exposure.root_path)
        add_admin_routes(app, router)
        key_hint = key_hint or f"Print the key: cifarml endpoint keys {folder.name}"
        access: ASGIApp = AccessMiddleware(app, router, server.control_key, log, exposure, key_hint)
        if exposure.trusted_proxies:
            trusted = ProxyHeadersMiddleware(access, [*exposure.trusted_proxies])  # type: ignore[arg-type]
            access = cast("ASGIApp", trusted)
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
        uvicorn.Server(config).run(sockets=listeners)


async def _flush(log: AccessLog) -> None:
    while True:
        await asyncio.sleep(0.5)
        log.flush()


def _listen(host: str, port: int, *, any_port: bool) -> list[socket.socket]:
    """Listen on 127.0.0.1 and ``host``, on the endpoint's port or, if ``any_port`` is set, on a free one.

    The commands of this machine use 127.0.0.1, which the addresses 0.0.0.0 and :: include.
    """
    hosts = [host] if host in _ALL_ADDRESSES else list(dict.fromkeys([HOST, host]))
    for wanted in (port, 0) if any_port and port else (port,):
        listeners: list[socket.socket] = []
        try:
            for each in hosts:
                used = listeners[0].getsockname()[1] if listeners else wanted
                listeners.append(_open_listener(each, used))
        except OSError as error:
            for listener in listeners:
                listener.close()
            if not wanted or not any_port:
                where = f"port {wanted} of {' and '.join(hosts)}"
                hint = "use an address of this machine, or 0.0.0.0 for all"
                raise DeployError(
                    f"cannot listen on {where}: {error.strerror or error}",
                    hint if error.errno == errno.EADDRNOTAVAIL else None,
                ) from error
        else:
            return listeners
    raise AssertionError  # the loop returns or raises at port 0


def _open_listener(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":  # includes IPv4
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def main() -> None:
    """Serve the endpoint in the folder given on the command line, as a daemon, with an exposure as JSON."""
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
        exposure = EXPOSURE.validate_json(sys.argv[2]) if len(sys.argv) > 2 else None
        run_server(folder, lambda _: report(READY), exposure=exposure)
    except CifarMLError as error:
        report(error.message)
        sys.exit(1)


if __name__ == "__main__":
    main()
