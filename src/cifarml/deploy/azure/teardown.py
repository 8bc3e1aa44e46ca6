"""Delete all billable resources that cifarml created, then verify."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from cifarml.azure.compute import delete_cluster, list_clusters
from cifarml.azure.jobs.jobs import cancel_job, list_jobs
from cifarml.azure.prices import find_price
from cifarml.azure.workspace import TAG, AzureWorkspace
from cifarml.deploy.azure.host import AzureHost
from cifarml.deploy.azure.specs import ENVIRONMENT
from cifarml.errors import CifarMLError


class Resource(NamedTuple):
    """Resource in the workspace that was created by cifarml.

    Attributes:
        kind: ``job``, ``endpoint``, ``deployment``, ``cluster`` or ``environment``.
        name: Name of the resource; ``endpoint/deployment`` for a deployment.
        state: State reported by Azure.
        costs: Description of its costs.
    """

    kind: str
    name: str
    state: str
    costs: str


OnStep = Callable[[str], None]


def find_resources(workspace: AzureWorkspace) -> list[Resource]:
    """Return all billable resources that cifarml created.

    Models and runs are not included: they only use a few megabytes of storage.

    Raises:
        CloudError: If a request to Azure fails.
    """
    return list(_iterate_resources(workspace))


def _iterate_resources(workspace: AzureWorkspace) -> Iterator[Resource]:
    region = workspace.location
    for job in list_jobs(workspace):
        if not job.has_ended:
            yield Resource("job", job.name, job.state, f"one machine of {job.compute} while it runs")
    for endpoint in AzureHost(workspace).list_endpoints():
        yield Resource("endpoint", endpoint.name, endpoint.state, "its deployments")
        for each in endpoint.deployments:
            price = find_price(each.instance_type, region).format(each.instance_count)
            name = f"{endpoint.name}/{each.name}"
            yield Resource("deployment", name, each.state, f"{each.machines}: {price}")
    for cluster in list_clusters(workspace):
        if cluster.is_ours:
            price = find_price(cluster.size, region, low_priority=cluster.low_priority).format()
            costs = f"nothing while idle; per running {cluster.size}: {price}"
            yield Resource("cluster", cluster.name, cluster.state, costs)
    with workspace.calling("list the environments"):
        environments = workspace.client.environments
        names = [each.name for each in environments.list() if each.name == ENVIRONMENT]
        versions = [each for name in names for each in environments.list(name) if TAG in (each.tags or {})]
    for each in versions:
        yield Resource("environment", f"{each.name}:{each.version}", "registered", "storage of its image")


def tear_down(
    workspace: AzureWorkspace, *, on_step: OnStep = lambda _: None
) -> tuple[list[Resource], list[str]]:
    """Delete jobs, then endpoints with their deployments, clusters and environments that cifarml created.

    Returns:
        The remaining resources, read again from Azure, and the error messages of failed deletions.

    Raises:
        CloudError: If Azure can't be reached.
    """
    reasons: list[str] = []

    def attempt(done: str, action: Callable[[], object]) -> None:
        try:
            action()
            on_step(done)
        except CifarMLError as error:
            reasons.append(error.message)
            on_step(f"failed: {error.message}")

    host = AzureHost(workspace)
    for kind, name, *_ in find_resources(workspace):
        if kind == "job":
            attempt(f"canceled job {name}", partial(cancel_job, workspace, name))
        elif kind == "endpoint":
            attempt(f"deleted endpoint {name} and its deployments", partial(host.delete, name))
        elif kind == "cluster":
            attempt(f"deleted cluster {name}", partial(delete_cluster, workspace, name))
        elif kind == "environment":
            attempt(f"archived environment {name}", partial(_archive_environment, workspace, name))
    return find_resources(workspace), reasons


def _archive_environment(workspace: AzureWorkspace, environment: str) -> None:
    name, _, version = environment.partition(":")
    with workspace.calling(f"archive environment {environment}"):
        workspace.client.environments.archive(name, version=version)
