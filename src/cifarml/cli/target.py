"""Where models and endpoints are: on this machine, or in Azure. The first line printed says which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cifarml.cli.console import note

if TYPE_CHECKING:
    from cifarml.azure.workspace import AzureWorkspace
    from cifarml.deploy.azure.host import AzureHost
    from cifarml.deploy.local.host import LocalHost
    from cifarml.registry.azure.registry import AzureRegistry
    from cifarml.registry.local.registry import LocalRegistry

__all__ = ["Target", "local_registry", "open_host", "open_registry", "open_workspace", "resolve_target"]

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


def open_registry(target: str | None) -> LocalRegistry | AzureRegistry:
    """Return the registry of the target, and say which it is."""
    if resolve_target(target) == "local":
        return local_registry()
    from cifarml.registry.azure.registry import AzureRegistry

    return AzureRegistry(open_workspace())


def open_host(target: str | None, **options: Any) -> LocalHost | AzureHost:
    """Return the host of the target, and say which it is.

    Args:
        target: As the flag says.
        **options: How new deployments run in Azure; None stands for the default.
    """
    if resolve_target(target) == "local":
        from cifarml.deploy.local.host import LocalHost

        return LocalHost()
    from cifarml.deploy.azure.host import AzureHost

    return AzureHost(open_workspace(), build_options(**options))


def build_options(**options: Any) -> Any:
    """Return how deployments run in Azure."""
    from cifarml.deploy.azure.specs import DeploymentOptions

    return DeploymentOptions(**{name: value for name, value in options.items() if value is not None})
