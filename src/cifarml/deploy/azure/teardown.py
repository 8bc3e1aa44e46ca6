"""Find and delete all billable resources that cifarml created, then verify."""

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
    """Something in the workspace that cifarml created.

    Attributes:
        kind: ``job``, ``endpoint``, ``deployment``, ``cluster`` or ``environment``.
        name: Its name; of a deployment ``endpoint/deployment``.
        state: Its state, as the service reports it.
        costs: A description of its costs.
    """

    kind: str
    name: str
    state: str
    costs: str


OnStep = Callable[[str], None]


def find_resources(workspace: AzureWorkspace) -> list[Resource]:
    """Return all billable resources that cifarml created, and what belongs to them.

    Models and runs are not among them: they cost only the storage of some megabytes.

    Raises:
        CloudError: If Azure refuses.
    """
    return list(_iterate_resources(workspace))


def _iterate_resources(workspace: AzureWorkspace) -> Iterator[Resource]:
    region = workspace.location
    for job in list_jobs(workspace):
        if not job.has_ended:
            yield Resource("job", job.name, job.state, f"a machine of {job.compute} while it runs")
    for endpoint in AzureHost(workspace).list_endpoints():
        yield Resource("endpoint", endpoint.name, endpoint.state, "its deployments")
        for each in endpoint.deployments:
            price = find_price(each.instance_type, region).format(each.instance_count)
            name = f"{endpoint.name}/{each.name}"
            yield Resource("deployment", name, each.state, f"{each.machines}: {price}")
    for cluster in list_clusters(workspace):
        if cluster.is_ours:
            price = find_price(cluster.size, region, low_priority=cluster.low_priority).format()
            costs = f"nothing while idle; a {cluster.size} at work: {price}"
            yield Resource("cluster", cluster.name, cluster.state, costs)
    with workspace.calling("list the environments"):
        environments = workspace.client.environments
        names = [each.name for each in environments.list() if each.name == ENVIRONMENT]
        versions = [each for name in names for each in environments.list(name) if TAG in (each.tags or {})]
    for each in versions:
        yield Resource("environment", f"{each.name}:{each.version}", "registered", "its image's storage")


def tear_down(
    workspace: AzureWorkspace, *, on_step: OnStep = lambda _: None
) -> tuple[list[Resource], list[str]]:
    """Delete jobs, then endpoints with their deployments, clusters and environments that cifarml created.

    Returns:
        The remaining resources, which the service lists anew, and why they could not be deleted.

    Raises:
        CloudError: If Azure can't be reached.
    """
    reasons: list[str] = []

    def attempt(what: str, action: Callable[[], object]) -> None:
        try:
            action()
            on_step(what)
        except CifarMLError as error:
            reasons.append(error.message)
            on_step(f"not done: {error.message}")

    host = AzureHost(workspace)
    for kind, name, *_ in find_resources(workspace):
        if kind == "job":
            attempt(f"job {name} is cancelled", partial(cancel_job, workspace, name))
        elif kind == "endpoint":
            attempt(f"endpoint {name} is deleted, with its deployments", partial(host.delete, name))
        elif kind == "cluster":
            attempt(f"cluster {name} is deleted", partial(delete_cluster, workspace, name))
        elif kind == "environment":
            attempt(f"environment {name} is archived", partial(_archive_environment, workspace, name))
    return find_resources(workspace), reasons


def _archive_environment(workspace: AzureWorkspace, environment: str) -> None:
    name, _, version = environment.partition(":")
    with workspace.calling(f"archive environment {environment}"):
        workspace.client.environments.archive(name, version=version)
