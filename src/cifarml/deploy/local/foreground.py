"""An endpoint in this process, for as long as somebody watches it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from cifarml.deploy.local.host import SCORE, copy_run
from cifarml.registry.base import RegisteredModel
from cifarml.run import Run
from cifarml.serve.endpoint_folder import HOST, DeploymentRecord, EndpointFolder, EndpointRecord
from cifarml.serve.server import run_server

__all__ = ["serve_model"]


def serve_model(
    model: RegisteredModel,
    run: Run,
    folder: Path,
    *,
    port: int = 0,
    on_ready: Callable[[str, str], None],
) -> None:
    """Serve a model until SIGINT or SIGTERM, after what is in flight then.

    Args:
        model: What is served.
        run: Its files.
        folder: Where the endpoint is kept meanwhile.
        port: Where to listen on 127.0.0.1; a free one for 0.
        on_ready: Called with scoring URI and key.

    Raises:
        DeployError: If it can't listen on the port.
        ModelFileError: If the run is damaged.
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
    kept.make(EndpointRecord(port, {record.name: 100}, (record,)))
    copy_run(run, kept.model_dir(record))
    key = kept.read_key()
    with suppress(KeyboardInterrupt):
        run_server(kept, lambda at: on_ready(f"http://{HOST}:{at}/score", key), any_port=not port)
