"""Clusters of an Azure ML workspace: machines that are there while a job runs, and not paid otherwise."""

from __future__ import annotations

import io
import re
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from cifarml.azure.workspace import TAG, AzureWorkspace, state_name
from cifarml.azure.yaml_files import SCHEMA, new_folder, write_documents
from cifarml.errors import CloudError, SettingsError

DEFAULT_SIZE: Final = "Standard_NC4as_T4_v3"
"""The smallest machine with an NVIDIA GPU: one T4, four cores."""


@dataclass(frozen=True)
class ClusterOptions:
    """What a cluster is made of.

    Args:
        size: Size of its machines.
        max_nodes: How many there may be at once; the least is none.
        idle_minutes: How long a machine is kept after its last job.
        low_priority: Cheaper machines, which Azure may take away at any time.

    Raises:
        SettingsError: If one is out of range.
    """

    size: str = DEFAULT_SIZE
    max_nodes: int = 1
    idle_minutes: int = 2
    low_priority: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.max_nodes <= 100:
            raise SettingsError(f"--max must be 1 to 100 machines. Received: {self.max_nodes}")
        if not 1 <= self.idle_minutes <= 60:
            raise SettingsError(f"--idle-minutes must be 1 to 60. Received: {self.idle_minutes}")
        if not re.fullmatch(r"\w{3,64}", self.size):
            raise SettingsError(
                f"--size must be a size of virtual machines. Received: {self.size[:64]!r}",
                hint=f"such as {DEFAULT_SIZE}; az ml compute list-sizes --type AmlCompute lists them",
            )


@dataclass(frozen=True)
class Cluster:
    """A cluster of the workspace.

    Args:
        name: Its name.
        size: Size of its machines.
        min_nodes: How many are always there, and paid.
        max_nodes: How many there may be.
        idle_minutes: How long a machine is kept after its last job.
        low_priority: Whether Azure may take machines away.
        state: ``succeeded``, ``creating``, ``failed`` and so on.
        is_ours: Whether cifarml made it.
    """

    name: str
    size: str
    min_nodes: int
    max_nodes: int
    idle_minutes: float
    low_priority: bool
    state: str
    is_ours: bool


def check_cluster_name(name: str) -> str:
    """Return a cluster's name, if Azure takes it.

    Raises:
        SettingsError: If not.
    """
    if not re.fullmatch(r"[a-zA-Z](?:[a-zA-Z0-9-]{0,30}[a-zA-Z0-9])", name):
        raise SettingsError(
            "a cluster's name has 2 to 32 letters, digits and hyphens, a letter first, no hyphen last. "
            f"Received: {name[:64]!r}"
        )
    return name


def write_cluster_yaml(folder: Path, name: str, options: ClusterOptions) -> list[Path]:
    """Write a cluster as a file that ``az ml compute create`` takes.

    Raises:
        CloudError: If the folder is not empty, or can't be written.
    """
    return write_documents(new_folder(folder), {"compute.yml": _describe_cluster(name, options)})


def create_cluster(workspace: AzureWorkspace, name: str, options: ClusterOptions) -> Cluster:
    """Make a cluster without machines, or change the one of that name that we made.

    Raises:
        SettingsError: If the name can't be one, or belongs to a cluster that we did not make.
        CloudError: If Azure refuses.
    """
    import yaml

    there = _find_cluster(workspace, check_cluster_name(name))
    if there is not None and not there.is_ours:
        raise SettingsError(
            f"the workspace has a compute {name} that cifarml did not make", "take another name"
        )
    try:
        with workspace.calling(f"make cluster {name}"):
            from azure.ai.ml import load_compute

            wanted: Any = load_compute(io.StringIO(yaml.safe_dump(_describe_cluster(name, options))))
            poller = workspace.client.compute.begin_create_or_update(wanted)
            workspace.wait(poller, f"cluster {name} is being made")
    except CloudError as error:
        with suppress(CloudError):
            if (made := _find_cluster(workspace, name)) and made.state == "succeeded":
                return made
        add_sizes(workspace, error)
        raise
    return get_cluster(workspace, name)


def list_clusters(workspace: AzureWorkspace) -> list[Cluster]:
    """Return the clusters of the workspace, sorted by name.

    Raises:
        CloudError: If Azure refuses.
    """
    with workspace.calling("list the clusters"):
        found: list[Any] = list(workspace.client.compute.list())
    clusters = [_parse_cluster(each) for each in found if state_name(each.type) == "amlcompute"]
    return sorted(clusters, key=lambda cluster: cluster.name)


def get_cluster(workspace: AzureWorkspace, name: str) -> Cluster:
    """Return a cluster.

    Raises:
        CloudError: If there is none, or Azure refuses.
    """
    found = _find_cluster(workspace, check_cluster_name(name))
    if found is None:
        raise CloudError(
            f"there is no cluster {name} in workspace {workspace.name}",
            "list them with: cifarml compute list; make one with: cifarml compute create NAME",
            code="ComputeNotFound",
        )
    return found


def delete_cluster(workspace: AzureWorkspace, name: str) -> None:
    """Delete a cluster that we made.

    Raises:
        SettingsError: If we did not make it.
        CloudError: If there is none, or Azure refuses.
    """
    if not get_cluster(workspace, name).is_ours:
        raise SettingsError(f"cifarml did not make {name}, and does not delete it", "az ml compute delete")
    try:
        with workspace.calling(f"delete cluster {name}"):
            poller = workspace.client.compute.begin_delete(name)
            workspace.wait(poller, f"cluster {name} is being deleted")
    except CloudError:
        if _find_cluster(workspace, name) is not None:
            raise


def add_sizes(workspace: AzureWorkspace, error: CloudError) -> None:
    """Add to an error about quota which sizes would fit."""
    if error.code in {"OutOfQuota", "QuotaExceeded"}:
        with suppress(CloudError):
            if fitting := _fitting_sizes(workspace):
                error.hint = f"these sizes fit into what is left: {', '.join(fitting[:5])}. Or: {error.hint}"


def _fitting_sizes(workspace: AzureWorkspace) -> list[str]:
    """Return sizes with no more cores than the quota has left, the largest first."""
    with workspace.calling("look at the quota"):
        compute = workspace.client.compute
        left: dict[str, int] = {}
        for usage in compute.list_usage(location=workspace.location):
            said = vars(usage)  # some of what the service says has no attribute of the client's
            name: Any = said["name"]
            name = name["value"] if isinstance(name, dict) else getattr(name, "value", name)
            left[str(name).lower()] = int(said["limit"]) - int(said["currentValue"])
        total = left.get("totaldedicatedcores", 0)
        fitting = [
            (int(size["vCPUs"]), str(size["name"]))
            for size in map(vars, compute.list_sizes(location=workspace.location))
            if 0 < int(size["vCPUs"]) <= min(total, left.get(str(size["family"]).lower(), total))
        ]
    return [name for _, name in sorted(fitting, key=lambda each: -each[0])]


def _describe_cluster(name: str, options: ClusterOptions) -> dict[str, Any]:
    return {
        "$schema": SCHEMA.format("amlCompute"),
        "name": name,
        "type": "amlcompute",
        "size": options.size,
        "min_instances": 0,
        "max_instances": options.max_nodes,
        "idle_time_before_scale_down": 60 * options.idle_minutes,
        "tier": "low_priority" if options.low_priority else "dedicated",
        "identity": {"type": "system_assigned"},
        "tags": {TAG: version("cifarml")},
    }


def _find_cluster(workspace: AzureWorkspace, name: str) -> Cluster | None:
    found = workspace.find(f"look at cluster {name}", lambda: workspace.client.compute.get(name))
    return None if found is None else _parse_cluster(found)


def _parse_cluster(found: Any) -> Cluster:
    return Cluster(
        str(found.name),
        str(getattr(found, "size", "") or ""),
        int(getattr(found, "min_instances", 0) or 0),
        int(getattr(found, "max_instances", 0) or 0),
        float(getattr(found, "idle_time_before_scale_down", 0) or 0) / 60,
        state_name(getattr(found, "tier", "")).replace("_", "") == "lowpriority",
        state_name(found.provisioning_state),
        TAG in (found.tags or {}),
    )
