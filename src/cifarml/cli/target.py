"""The --target flag: models and endpoints on this machine, or in Azure. The first printed line says which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cifarml.cli.console import note

if TYPE_CHECKING:
    from cifarml.azure.workspace import AzureWorkspace
    from cifarml.deploy.base import EndpointHost
    from cifarml.registry.base import ModelRegistry
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


def resolve_target(target: str | None) -> str:
    """Return the target in force, and say which it is."""
    from cifarml.settings import load_settings

    found = load_settings(target=target).effective_target
    if found == "local":
        note("Target: this machine")
    return found


def open_workspace() -> AzureWorkspace:
    """Return the workspace of the settings, and say which it is."""
    from cifarml.azure.workspace import AzureWorkspace

    workspace = AzureWorkspace(on_wait=note)
    note(f"Target: {workspace}")
    return workspace


def local_registry() -> LocalRegistry:
    """Return the registry of this machine; a process updates MLflow's copy when the command has ended."""
    import atexit

    from cifarml.registry.local.registry import LocalRegistry
    from cifarml.settings import load_settings

    registry = LocalRegistry()
    if load_settings().mlflow_mirror:
        atexit.register(registry.start_mirror)
    return registry


def open_registry(target: str | None) -> ModelRegistry:
    """Return the registry of the target, and say which it is."""
    if resolve_target(target) == "local":
        return local_registry()
    from cifarml.registry.azure.registry import AzureRegistry

    return AzureRegistry(open_workspace())


def open_host(target: str | None) -> EndpointHost:
    """Return the host of the target, and say which it is."""
    if resolve_target(target) == "local":
        from cifarml.deploy.local.host import LocalHost

        return LocalHost()
    from cifarml.deploy.azure.host import AzureHost

    return AzureHost(open_workspace())


def open_target(target: str | None, **options: Any) -> tuple[ModelRegistry, EndpointHost]:
    """Return the registry and the host of the target, and say which it is.

    Args:
        target: The flag.
        **options: Options of new deployments in Azure; None stands for the default.
    """
    if resolve_target(target) == "local":
        from cifarml.deploy.local.host import LocalHost

        return local_registry(), LocalHost()
    from cifarml.deploy.azure.host import AzureHost
    from cifarml.deploy.azure.specs import DeploymentOptions
    from cifarml.registry.azure.registry import AzureRegistry

    workspace = open_workspace()
    given = DeploymentOptions(**{name: value for name, value in options.items() if value is not None})
    return AzureRegistry(workspace), AzureHost(workspace, given)
