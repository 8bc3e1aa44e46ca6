"""Serve a model in the foreground, without a persistent endpoint."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from cifarml.deploy.local.host import SCORE, build_page_address, copy_run
from cifarml.registry.base import RegisteredModel
from cifarml.serve.endpoint_folder import HOST, DeploymentRecord, EndpointFolder, EndpointRecord
from cifarml.serve.server import run_server


def serve_model(
    model: RegisteredModel,
    folder: Path,
    *,
    port: int = 0,
    on_ready: Callable[[str, str], None],
) -> None:
    """Serve a model until SIGINT or SIGTERM; requests in flight are completed.

    Args:
        model: The model.
        folder: Working folder of the endpoint.
        port: Port on 127.0.0.1; 0 selects a free port.
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
        shutil.rmtree(kept.deployment(record.name), ignore_errors=True)
        copy_run(model.open_run(), kept.model_dir(record))
        _serve(kept, port, on_ready)


def _serve(kept: EndpointFolder, port: int, on_ready: Callable[[str, str], None]) -> None:
    def announce(at: int) -> None:
        uri = f"http://{HOST}:{at}/score"
        on_ready(uri, build_page_address(uri, kept.read_key()))

    with suppress(KeyboardInterrupt):
        run_server(kept, announce, any_port=not port)
