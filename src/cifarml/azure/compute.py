"""Clusters of an Azure ML workspace: machines that are there while a job runs, and not paid otherwise."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cifarml.azure.errors import is_missing
from cifarml.azure.workspace import TAG, AzureWorkspace, state_name
from cifarml.errors import CloudError, SettingsError

if TYPE_CHECKING:
    from azure.ai.ml.entities import AmlCompute

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


def build_cluster(name: str, options: ClusterOptions) -> AmlCompute:
    """Return a cluster as Azure ML's client takes it."""
    from importlib.metadata import version

    from azure.ai.ml.entities import AmlCompute, IdentityConfiguration

    return AmlCompute(
        name=check_cluster_name(name),
        size=options.size,
        min_instances=0,
        max_instances=options.max_nodes,
        idle_time_before_scale_down=60 * options.idle_minutes,
        tier="low_priority" if options.low_priority else "dedicated",
        identity=IdentityConfiguration(type="system_assigned"),
        tags={TAG: version("cifarml")},
    )


def create_cluster(workspace: AzureWorkspace, name: str, options: ClusterOptions) -> Cluster:
    """Make a cluster without machines, or change the one of that name that we made.

    Raises:
        SettingsError: If the name can't be one, or belongs to a cluster that we did not make.
        CloudError: If Azure refuses.
    """
    wanted = build_cluster(name, options)
    there = _find_cluster(workspace, name)
    if there is not None and not there.is_ours:
        raise SettingsError(
            f"the workspace has a compute {name} that cifarml did not make", "take another name"
        )
    try:
        with workspace.calling(f"make cluster {name}"):
            poller = workspace.client.compute.begin_create_or_update(wanted)
            workspace.wait(poller, f"cluster {name} is being made")
    except CloudError as error:
        made = _try_find_cluster(workspace, name)
        if made is None or made.state != "succeeded":
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


def sizes_that_fit(workspace: AzureWorkspace) -> list[str]:
    """Return sizes with no more cores than the quota has left, the largest first; empty where unknown."""
    try:
        with workspace.calling("look at the quota"):
            compute = workspace.client.compute
            left: dict[str, int] = {}
            for usage in compute.list_usage(location=workspace.location):
                said = vars(usage)  # some of what the service says has no attribute of the client's
                name: Any = said["name"]
                name = name["value"] if isinstance(name, dict) else getattr(name, "value", name)
                left[str(name).lower()] = int(said["limit"]) - int(said["currentValue"])
            sizes = [vars(size) for size in compute.list_sizes(location=workspace.location)]
            total = left.get("totaldedicatedcores", 0)
            fitting = [
                (int(size["vCPUs"]), str(size["name"]))
                for size in sizes
                if 0 < int(size["vCPUs"]) <= min(total, left.get(str(size["family"]).lower(), total))
            ]
    except CloudError:
        return []
    return [name for _, name in sorted(fitting, key=lambda each: -each[0])]


def add_sizes(workspace: AzureWorkspace, error: CloudError) -> None:
    """Add to an error about quota which sizes would fit."""
    if error.code in {"OutOfQuota", "QuotaExceeded"} and (fitting := sizes_that_fit(workspace)):
        error.hint = f"these sizes fit into what is left: {', '.join(fitting[:5])}. Or: {error.hint}"


def _find_cluster(workspace: AzureWorkspace, name: str) -> Cluster | None:
    with workspace.calling(f"look at cluster {name}"):
        try:
            return _parse_cluster(workspace.client.compute.get(name))
        except Exception as error:
            if is_missing(error):
                return None
            raise


def _try_find_cluster(workspace: AzureWorkspace, name: str) -> Cluster | None:
    try:
        return _find_cluster(workspace, name)
    except CloudError:
        return None


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
