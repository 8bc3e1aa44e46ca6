"""Compute clusters of an Azure ML workspace, which scale down to zero nodes when idle."""

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
"""Smallest VM size with an NVIDIA GPU: one T4, four cores."""


@dataclass(frozen=True)
class ClusterOptions:
    """Options of a compute cluster; the minimum number of nodes is always 0.

    Args:
        size: VM size of the nodes.
        max_nodes: Maximum number of nodes.
        idle_minutes: Minutes before an idle node is released.
        low_priority: Use cheaper low-priority VMs, which Azure may preempt at any time.

    Raises:
        SettingsError: If an option is out of range.
    """

    size: str = DEFAULT_SIZE
    max_nodes: int = 1
    idle_minutes: int = 2
    low_priority: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.max_nodes <= 100:
            raise SettingsError(f"--max must be 1 to 100 nodes. Received: {self.max_nodes}")
        if not 1 <= self.idle_minutes <= 60:
            raise SettingsError(f"--idle-minutes must be 1 to 60. Received: {self.idle_minutes}")
        if not re.fullmatch(r"\w{3,64}", self.size):
            raise SettingsError(
                f"--size must be a VM size. Received: {self.size[:64]!r}",
                hint=f"such as {DEFAULT_SIZE}; az ml compute list-sizes --type AmlCompute lists them",
            )


@dataclass(frozen=True)
class Cluster:
    """Compute cluster of the workspace.

    Args:
        name: Name in the workspace.
        size: VM size of the nodes.
        min_nodes: Number of nodes that always run and are billable.
        max_nodes: Maximum number of nodes.
        idle_minutes: Minutes before an idle node is released.
        low_priority: Whether Azure may preempt the nodes.
        state: Provisioning state: ``succeeded``, ``creating``, ``failed`` and so on.
        is_ours: Whether cifarml created the cluster.
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
    """Return a cluster's name if it is valid in Azure.

    Raises:
        SettingsError: If it is not.
    """
    if not re.fullmatch(r"[a-zA-Z](?:[a-zA-Z0-9-]{0,30}[a-zA-Z0-9])", name):
        raise SettingsError(
            "a cluster name must have 2 to 32 letters, digits and hyphens, start with a letter and not end "
            f"with a hyphen. Received: {name[:64]!r}"
        )
    return name


def write_cluster_yaml(folder: Path, name: str, options: ClusterOptions) -> list[Path]:
    """Write the specification of a cluster for ``az ml compute create``.

    Raises:
        CloudError: If the folder is not empty, or can't be written.
    """
    return write_documents(new_folder(folder), {"compute.yml": _describe_cluster(name, options)})


def create_cluster(workspace: AzureWorkspace, name: str, options: ClusterOptions) -> Cluster:
    """Create a compute cluster, or update an existing one that cifarml created.

    Raises:
        SettingsError: If the name is invalid, or belongs to a cluster that cifarml did not create.
        CloudError: If a request fails.
    """
    import yaml

    there = _find_cluster(workspace, check_cluster_name(name))
    if there is not None and not there.is_ours:
        raise SettingsError(f"compute {name} exists and was not created by cifarml", "use another name")
    try:
        with workspace.calling(f"create cluster {name}"):
            from azure.ai.ml import load_compute

            wanted: Any = load_compute(io.StringIO(yaml.safe_dump(_describe_cluster(name, options))))
            poller = workspace.client.compute.begin_create_or_update(wanted)
            workspace.wait(poller, f"creating cluster {name}")
    except CloudError as error:
        with suppress(CloudError):
            made = _find_cluster(workspace, name)
            if made is not None and made.state == "succeeded" and _has_options(made, options):
                return made  # the response was lost, or another process created the same one
        add_sizes(workspace, error)
        raise
    return get_cluster(workspace, name)


def list_clusters(workspace: AzureWorkspace) -> list[Cluster]:
    """List the compute clusters of the workspace, sorted by name.

    Raises:
        CloudError: If a request fails.
    """
    with workspace.calling("list the clusters"):
        found: list[Any] = list(workspace.client.compute.list())
    clusters = [_parse_cluster(each) for each in found if state_name(each.type) == "amlcompute"]
    return sorted(clusters, key=lambda cluster: cluster.name)


def get_cluster(workspace: AzureWorkspace, name: str) -> Cluster:
    """Get a compute cluster by name.

    Raises:
        CloudError: If it does not exist, or a request fails.
    """
    found = _find_cluster(workspace, check_cluster_name(name))
    if found is None:
        raise CloudError(
            f"cluster {name} does not exist in workspace {workspace.name}",
            "list the clusters: cifarml compute list; create one: cifarml compute create NAME",
            code="ComputeNotFound",
        )
    return found


def delete_cluster(workspace: AzureWorkspace, name: str) -> None:
    """Delete a compute cluster that cifarml created.

    Raises:
        SettingsError: If cifarml did not create it.
        CloudError: If it does not exist, or a request fails.
    """
    if not get_cluster(workspace, name).is_ours:
        raise SettingsError(
            f"can't delete cluster {name}: it was not created by cifarml",
            f"delete it with: az ml compute delete --name {name}",
        )
    try:
        with workspace.calling(f"delete cluster {name}"):
            poller = workspace.client.compute.begin_delete(name)
            workspace.wait(poller, f"deleting cluster {name}")
    except CloudError:
        if _find_cluster(workspace, name) is not None:
            raise


def add_sizes(workspace: AzureWorkspace, error: CloudError) -> None:
    """Add the VM sizes that fit the remaining quota to the hint of a quota error."""
    if error.code in {"OutOfQuota", "QuotaExceeded"}:
        with suppress(CloudError):
            if fitting := _fitting_sizes(workspace):
                error.hint = f"sizes that fit the remaining quota: {', '.join(fitting[:5])}. Or: {error.hint}"


def _fitting_sizes(workspace: AzureWorkspace) -> list[str]:
    """Return the VM sizes that fit the remaining quota, the largest first."""
    with workspace.calling("read the quota"):
        compute = workspace.client.compute
        left: dict[str, int] = {}
        for usage in compute.list_usage(location=workspace.location):
            fields = vars(usage)  # some fields of the response are not declared as attributes
            name: Any = fields["name"]
            name = name["value"] if isinstance(name, dict) else getattr(name, "value", name)
            left[str(name).lower()] = int(fields["limit"]) - int(fields["currentValue"])
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
    found = workspace.find(f"get cluster {name}", lambda: workspace.client.compute.get(name))
    return None if found is None else _parse_cluster(found)


def _has_options(cluster: Cluster, options: ClusterOptions) -> bool:
    return (cluster.size.lower(), cluster.max_nodes, cluster.idle_minutes, cluster.low_priority) == (
        options.size.lower(),
        options.max_nodes,
        options.idle_minutes,
        options.low_priority,
    )


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
