"""Serve a model in the foreground, without a persistent endpoint."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cifarml.deploy.local.host import SCORE, build_page_address, copy_run
from cifarml.registry.base import RegisteredModel
from cifarml.serve.endpoint_folder import HOST, DeploymentRecord, EndpointFolder, EndpointRecord
from cifarml.serve.exposure import Exposure
from cifarml.serve.server import run_server

_KEY_HINT: Final = "The key is in the page's address that cifarml serve printed, after #key="


def serve_model(
    model: RegisteredModel,
    folder: Path,
    *,
    port: int = 0,
    exposure: Exposure | None = None,
    key: str | None = None,
    on_ready: Callable[[str, str], None],
) -> None:
    """Serve a model until SIGINT or SIGTERM; requests in flight are completed.

    Args:
        model: The model.
        folder: Working folder of the endpoint.
        port: Port to listen on; 0 selects a free port.
        exposure: How the endpoint is reached; by default from this machine only.
        key: Key that clients send; by default a new one.
        on_ready: Called with the scoring URI and the URL of the web page.

    Raises:
        DeployError: If the port is not available, or another process serves the folder.
        ModelFileError: If the model's files are damaged.
    """
    kept = EndpointFolder(folder / "serve")
    record = DeploymentRecord(
        name=f"v{model.version}",
        model=model.name,
        version=model.version,
        run_sha256=model.run_sha256,
        created_at=datetime.now(UTC).isoformat(),
        script=str(SCORE),
    )
    described = EndpointRecord(port, {record.name: 100}, (record,))
    kept.make(described)
    with kept.serving():
        kept.write(described)  # instead of the model that was served before
        if key:
            kept.write_key(key)
        shutil.rmtree(kept.deployment(record.name), ignore_errors=True)
        copy_run(model.open_run(), kept.model_dir(record))
        _serve(kept, port, exposure, on_ready)


def _serve(
    kept: EndpointFolder, port: int, exposure: Exposure | None, on_ready: Callable[[str, str], None]
) -> None:
    def announce(at: int) -> None:
        uri = f"http://{HOST}:{at}/score"
        on_ready(uri, build_page_address(uri, kept.read_key()))

    with suppress(KeyboardInterrupt):
        run_server(kept, announce, any_port=not port, exposure=exposure, key_hint=_KEY_HINT)
