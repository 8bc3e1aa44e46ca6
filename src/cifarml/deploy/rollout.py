"""Rollout of a model to an endpoint: smoke test, canary, full traffic, and rollback if a step fails."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from cifarml.data.dataset import Dataset
from cifarml.deploy.base import DEFAULT_ENDPOINT, Deployment, Endpoint, EndpointHost
from cifarml.deploy.class_changes import compare_classes
from cifarml.deploy.rollout_changes import OnStep, RolloutChanges
from cifarml.deploy.smoke_test import (
    ReferenceImage,
    check_accuracy,
    reference_images,
    run_smoke_test,
    verify_prediction,
)
from cifarml.errors import DeployError, ImageError, SmokeTestError
from cifarml.registry.base import RegisteredModel

_MIN_CANARY_ROUNDS: Final = 20
_SLOWER: Final = 3.0
_SLOWER_BY_MS: Final = 50.0


def deploy_model(
    host: EndpointHost,
    model: RegisteredModel,
    *,
    name: str = DEFAULT_ENDPOINT,
    canary: int = 10,
    canary_s: float = 3.0,
    mirror: int = 0,
    images: Dataset | None = None,
    on_step: OnStep = lambda _: None,
) -> Endpoint:
    """Deploy a model to an endpoint with a smoke test, a canary and automatic rollback.

    The endpoint is created if it does not exist. The new deployment starts without traffic and must pass a
    smoke test. It then receives a small share of the traffic while its errors and latency are compared with
    those of the old deployment, and finally all of it. The old deployment is kept for a rollback. If a step
    fails or the process is interrupted, the traffic is restored and the new deployment is deleted, unless
    another process has changed them. A deployment left by a killed rollout of the same model is reused or
    deleted. While another process changes the endpoint, the rollout waits.

    Args:
        host: Host of the endpoint, such as `LocalHost` or `AzureHost`.
        model: A registered model.
        name: Name of the endpoint.
        canary: Traffic share of the canary, in percent, 1 to 99.
        canary_s: Duration of the canary (and of mirroring), in seconds.
        mirror: Share of the traffic that is mirrored to the new deployment first, in percent, 0 to 50;
            requires a host that supports mirroring.
        images: Labelled images for the smoke test, similar to the model's test images; drawings by default.
        on_step: Called with one line of text per step.

    Returns:
        The endpoint, which now serves the model.

    Raises:
        SmokeTestError: If the new deployment returns wrong predictions, is too slow or leaks memory.
        DeployError: If the model is not registered, the deployment does not start, or another step fails.
        ModelFileError: If the model's files are damaged.
        RegistryError: If the model is no longer registered, or its files can't be fetched.

    Example:
        ```python
        model = LocalRegistry().register("runs/first")
        endpoint = deploy_model(LocalHost(), model, on_step=print)
        endpoint.traffic  # {"v1": 100}
        ```
    """
    if not isinstance(model, RegisteredModel):
        raise DeployError(
            f"only a registered model can be deployed; got {type(model).__name__}",
            hint="register the run first: model = LocalRegistry().register(run)",
        )
    if not 0 < canary < 100:
        raise DeployError(f"canary must be 1 to 99 percent. Received: {canary}")
    if not 0 <= mirror <= 50:
        raise DeployError(f"mirror must be 0 to 50 percent. Received: {mirror}")
    run = model.open_run()
    references = reference_images(run, images)
    if images is not None or str(run.info.get("dataset", "")).startswith("drawn:"):
        check_accuracy(references, float(run.info.get("test_accuracy", 0.0)))
    there = {each.name: each for each in host.list_endpoints()}.get(name)
    if there is not None and _verify_live(host, there, model, references, on_step):
        return there
    lasts_s = canary_s * (2 if mirror else 1)
    with host.changing(name, f"deploy {model}", lasts_s=lasts_s, on_wait=on_step):
        is_new = name not in {each.name for each in host.list_endpoints()}
        before = host.create_endpoint(name)
        is_new = is_new and not before.deployments
        on_step(f"{'created' if is_new else 'using'} endpoint {name}: {before.scoring_uri}")
        if _verify_live(host, before, model, references, on_step):
            return before
        before = _end_canary(host, before, model, on_step)
        for line in compare_classes(host, before, run).lines:
            on_step(line)
        existing = _find_leftover(host, before, model, on_step)
        new = existing or deployment_name(host, host.get_endpoint(name), model)
        changes = RolloutChanges(host, before, new, is_new=is_new, on_step=on_step)
        with changes.undone_on_failure():
            if existing is None:
                changes.create_deployment(model)
            on_step(f"deployment {new} is ready (no traffic yet)")
            run_smoke_test(host, name, new, references)
            on_step(f"smoke test passed: {len(references)} sample images")
            if mirror and before.traffic:
                host.set_mirror(name, {new: mirror})
                on_step(f"mirror: {new} receives copies of {mirror} % of the requests")
                report = _compare_latency(host, before, new, references, canary_s)
                host.set_mirror(name, {})
                on_step(f"mirror: {report}")
            if before.traffic:
                changes.shift_traffic(_scaled(before.traffic, 100 - canary) | {new: canary})
                on_step(f"canary: {new} receives {canary} % of the traffic")
                on_step(f"canary: {_compare_latency(host, before, new, references, canary_s)}")
            changes.shift_traffic({new: 100})
            for each in references[:5]:
                verify_prediction(host, name, None, each)
            on_step(f"{new} receives 100 % of the traffic")
        _delete_older(host, before, new, on_step)
        return host.get_endpoint(name)


def roll_back(host: EndpointHost, name: str = DEFAULT_ENDPOINT) -> Endpoint:
    """Route all traffic back to the previous deployment; a second call undoes the rollback.

    Args:
        host: Host of the endpoint.
        name: Name of the endpoint.

    Returns:
        The endpoint, with its new traffic.

    Raises:
        DeployError: If there is no previous deployment, or it does not respond.

    Example:
        ```python
        roll_back(LocalHost(), "cifar10").traffic  # {"v1": 100}
        ```
    """
    host.get_endpoint(name)
    with host.changing(name, "rollback"):
        endpoint = host.create_endpoint(name)
        idle = [each for each in endpoint.deployments if not endpoint.traffic.get(each.name)]
        if not idle:
            raise DeployError(f"endpoint {name} has no other deployment to roll back to")
        last = idle[-1].name
        with suppress(ImageError):  # any response shows that it is alive
            host.invoke(name, b"not an image", deployment=last)
        RolloutChanges(host, endpoint, last).shift_traffic({last: 100})
        return host.get_endpoint(name)


def live_deployment(endpoint: Endpoint, model: RegisteredModel) -> Deployment | None:
    """Return the deployment of this model that receives all traffic, if there is one."""
    for each in endpoint.deployments:
        same = each.model == str(model) and each.run_sha256 in {model.run_sha256, ""}
        if same and each.state == "ready" and endpoint.traffic.get(each.name) == 100:
            return each
    return None


def _verify_live(
    host: EndpointHost,
    endpoint: Endpoint,
    model: RegisteredModel,
    references: Sequence[ReferenceImage],
    on_step: OnStep,
) -> bool:
    """Return whether the model receives all traffic, after querying it with the sample images."""
    live = live_deployment(endpoint, model)
    if live is None:
        return False
    for each in references:
        verify_prediction(host, endpoint.name, live.name, each)
    on_step(f"smoke test passed: {model} is already live as deployment {live.name}")
    return True


def deployment_name(host: EndpointHost, endpoint: Endpoint, model: RegisteredModel) -> str:
    """Return an unused deployment name from the model's version: ``v3``, or ``v3-2`` if ``v3`` is taken."""
    taken = {each.name for each in endpoint.deployments}
    name, number = f"{host.name_prefix}{model.version}", 2
    while name in taken:
        name, number = f"{host.name_prefix}{model.version}-{number}", number + 1
    return name


def _end_canary(host: EndpointHost, before: Endpoint, model: RegisteredModel, on_step: OnStep) -> Endpoint:
    """End the canary of a killed rollout of this model: return its traffic to the other deployments."""
    same = {
        each.name
        for each in before.deployments
        if (each.model, each.run_sha256) == (str(model), model.run_sha256)
    }
    others = {name: share for name, share in before.traffic.items() if share and name not in same}
    if not others or sum(others.values()) == 100:
        return before
    host.set_traffic(before.name, _scaled(others, 100), restore=True)
    on_step(f"restarting the interrupted rollout of {model}")
    return host.get_endpoint(before.name)


def _find_leftover(
    host: EndpointHost, before: Endpoint, model: RegisteredModel, on_step: OnStep
) -> str | None:
    """Return the ready deployment of a killed rollout of this model, if any; otherwise delete failed ones."""
    idle = [each for each in before.deployments if not before.traffic.get(each.name)]
    wanted = (str(model), model.run_sha256, host.config_fingerprint, "ready")
    for each in reversed(idle):
        if (each.model, each.run_sha256, each.config_fingerprint, each.state) == wanted:
            on_step(f"reusing deployment {each.name} of an earlier rollout")
            return each.name
    for each in host.get_endpoint(before.name).deployments:
        if each.state == "failed" and not before.traffic.get(each.name):
            host.delete(before.name, each.name)
            on_step(f"deleted failed deployment {each.name}")
    return None


def _compare_latency(
    host: EndpointHost, before: Endpoint, new: str, references: Sequence[ReferenceImage], seconds: float
) -> str:
    """Query the new and the old deployment alternately, and report the median latency of both.

    Raises:
        SmokeTestError: If the new deployment fails a request or is much slower.
    """
    old = max(before.traffic, key=before.traffic.__getitem__)
    errors_before = host.get_endpoint(before.name).find(new).num_errors or 0
    new_s: list[float] = []
    old_s: list[float] = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends or len(new_s) < _MIN_CANARY_ROUNDS:
        each = references[len(new_s) % len(references)]
        new_s.append(verify_prediction(host, before.name, new, each))
        started = time.perf_counter()
        with suppress(DeployError):  # errors of the old deployment do not count against the new one
            host.invoke(before.name, each.file, deployment=old)
        old_s.append(time.perf_counter() - started)
    now = host.get_endpoint(before.name).find(new)
    if (failed := (now.num_errors or 0) - errors_before) or now.state != "ready":
        raise SmokeTestError(f"deployment {new} failed {failed} requests (state: {now.state})")
    new_ms, old_ms = statistics.median(new_s) * 1000, statistics.median(old_s) * 1000
    if new_ms > _SLOWER * old_ms + _SLOWER_BY_MS:
        raise SmokeTestError(
            f"deployment {new} is too slow: median latency {new_ms:.0f} ms, {old}: {old_ms:.0f} ms"
        )
    return f"no errors, median latency {new_ms:.1f} ms ({old}: {old_ms:.1f} ms)"


def _scaled(traffic: Mapping[str, int], total: int) -> dict[str, int]:
    """Scale traffic shares so that they add up to ``total``."""
    shares = {name: share * total // sum(traffic.values()) for name, share in traffic.items()}
    shares[max(traffic, key=traffic.__getitem__)] += total - sum(shares.values())
    return shares


def _delete_older(host: EndpointHost, before: Endpoint, new: str, on_step: OnStep) -> None:
    """Delete all deployments except the new one and the one that had most of the traffic."""
    kept = max(before.traffic, key=before.traffic.__getitem__, default="")
    there = {each.name for each in host.get_endpoint(before.name).deployments} - {new}
    for each in before.deployments:
        if each.name not in there:
            continue
        if each.name == kept and before.traffic[kept]:
            on_step(f"kept deployment {each.name}; to roll back: cifarml endpoint rollback {before.name}")
        else:
            host.delete(before.name, each.name)
            on_step(f"deleted deployment {each.name}")
