"""The --target flag: models and endpoints on this machine, or in Azure. The first printed line says which."""

from __future__ import annotations

import atexit
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cifarml.cli.console import note
from cifarml.settings import load_settings

if TYPE_CHECKING:
    from cifarml.azure.workspace import AzureWorkspace
    from cifarml.deploy.base import EndpointHost
    from cifarml.registry.base import ModelRegistry, RegisteredModel
    from cifarml.registry.local.registry import LocalRegistry

Target = Annotated[
    Literal["local", "azure"] | None,
    typer.Option(
        "--target",
        help="local (this machine) or azure (the workspace of settings or config.json); "
        "azure once a workspace is set.",
        show_default=False,
    ),
]


@cache
def find_workspace(target: str | None) -> AzureWorkspace | None:
    """Return the workspace of the target, None for this machine; the first call says which it is."""
    if load_settings(target=target).effective_target == "azure":
        return open_workspace()
    note("Target: this machine")
    return None


def open_workspace() -> AzureWorkspace:
    """Return the workspace of the settings, and say which it is."""
    from cifarml.azure.workspace import AzureWorkspace

    workspace = AzureWorkspace(on_wait=note)
    note(f"Target: {workspace}")
    return workspace


def local_registry() -> LocalRegistry:
    """Return the registry of this machine; a process updates MLflow's copy when the command has ended."""
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


def open_model(target: str | None, model: str) -> tuple[ModelRegistry, RegisteredModel]:
    """Return the registry of the target, and the model with this name in it."""
    from cifarml.registry.base import parse_model

    registry = open_registry(target)
    return registry, registry.get(*parse_model(model))


def open_host(target: str | None, **options: Any) -> EndpointHost:
    """Return the host of the target, with options of new deployments in Azure; None is the default."""
    workspace = find_workspace(target)
    if workspace is None:
        from cifarml.deploy.local.host import LocalHost

        return LocalHost()
    from cifarml.deploy.azure.host import AzureHost
    from cifarml.deploy.azure.specs import DeploymentOptions

    given = {name: value for name, value in options.items() if value is not None}
    return AzureHost(workspace, DeploymentOptions(**given))
