"""Local or Azure target of a command: the ``--target`` flag and the registry and host it selects."""

from __future__ import annotations

import atexit
import shlex
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cifarml.cli.console import note, shown_path
from cifarml.cli.options import AZURE
from cifarml.errors import RegistryError
from cifarml.settings import load_settings

if TYPE_CHECKING:
    from cifarml.azure.workspace import AzureWorkspace
    from cifarml.deploy.base import EndpointHost
    from cifarml.registry.base import ModelRegistry, RegisteredModel
    from cifarml.registry.local.registry import LocalRegistry
    from cifarml.run import Run

Target = Annotated[
    Literal["local", "azure"] | None,
    typer.Option(
        "--target",
        help="local (this machine) or azure (the configured workspace).",
        show_default="azure if a workspace is configured, else local",
        rich_help_panel=AZURE,
    ),
]


@cache
def find_workspace(target: str | None) -> AzureWorkspace | None:
    """Return the workspace of the target, or None for this machine; the first call prints the target."""
    if load_settings(target=target).effective_target == "azure":
        return open_workspace()
    note("Target: this machine")
    return None


def open_workspace() -> AzureWorkspace:
    """Open the configured workspace and print its name."""
    from cifarml.azure.workspace import AzureWorkspace

    workspace = AzureWorkspace(on_wait=note)
    note(f"Target: {workspace}")
    return workspace


def local_registry() -> LocalRegistry:
    """Return the registry of this machine; at exit, a background process updates its MLflow copy."""
    from cifarml.registry.local.registry import LocalRegistry

    registry = LocalRegistry()
    if load_settings().mlflow_mirror:
        atexit.register(registry.start_mirror)
    return registry


def open_registry(target: str | None) -> ModelRegistry:
    """Return the registry of the target."""
    workspace = find_workspace(target)
    if workspace is None:
        return local_registry()
    from cifarml.registry.azure.registry import AzureRegistry

    return AzureRegistry(workspace)


def remote_registry(target: str | None) -> ModelRegistry | None:
    """Return the registry in which a run is logged in addition to the local one."""
    to_azure = load_settings(target=target).effective_target == "azure"
    return open_registry("azure") if to_azure else None


def log_run(run: Run, registry: ModelRegistry | None = None) -> None:
    """Log a finished run in the local and in another registry; a failure prints a note only."""
    try:
        for each in (local_registry(), registry):
            if each is not None:
                each.log_run(run)
    except RegistryError as error:
        note(f"The run could not be logged: {error.message}")
        note(f"Retry with: cifarml models register {shlex.quote(shown_path(run.path))}")


def target_flag(target: str | None) -> str:
    """Return the flag for a suggested command that selects the same target, with a space before it."""
    return f" --target {target}" if target else ""


def open_model(target: str | None, model: str) -> tuple[ModelRegistry, RegisteredModel]:
    """Return the registry of the target and a model from it."""
    from cifarml.registry.base import parse_model

    registry = open_registry(target)
    return registry, registry.get(*parse_model(model))


def open_host(target: str | None, **options: Any) -> EndpointHost:
    """Return the endpoint host of the target.

    Args:
        target: ``local``, ``azure``, or None for the configured one.
        **options: `DeploymentOptions` of new deployments in Azure; None selects the default.
    """
    workspace = find_workspace(target)
    if workspace is None:
        from cifarml.deploy.local.host import LocalHost

        return LocalHost(on_wait=note)
    from cifarml.deploy.azure.host import AzureHost
    from cifarml.deploy.azure.specs import DeploymentOptions

    given = {name: value for name, value in options.items() if value is not None}
    return AzureHost(workspace, DeploymentOptions(**given))
