"""Rollout of a model to an endpoint: smoke test, canary, full traffic, and rollback if a step fails."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from cifarml.data.dataset import Dataset
from cifarml.deploy.base import DEFAULT_ENDPOINT, Deployment, Endpoint, EndpointHost
from cifarml.deploy.smoke_test import ReferenceImage, check_accuracy, reference_images, verify_prediction
from cifarml.errors import CifarMLError, DeployError, ImageError, SmokeTestError
from cifarml.registry.base import RegisteredModel

OnStep = Callable[[str], None]
"""Called with a line of text for each step."""

_LEAK_REQUESTS: Final = 150
_LEAK_BYTES: Final = 24 << 20
_MIN_CANARY_ROUNDS: Final = 20
_SLOWER: Final = 3.0
_SLOWER_BY_MS: Final = 50.0
_LOG_LINES: Final = 20
_READ_LINES: Final = 500
_TRACEBACK: Final = re.compile(r".*Traceback \(most recent.*(?:\n(?:[^\S\n].*|$))*(?:\n.*)?", re.MULTILINE)
"""A traceback: its header, lines that are indented or empty, and the line with the error."""


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
    """Deploy a model to an endpoint, which is created if it does not exist.

    The new deployment starts without traffic and passes a smoke test. Then it gets a small share of the
    requests, while its errors and latency are compared with the old one's; then it gets all of them. The
    old one stays, for :func:`roll_back`. If any step fails, or you press Ctrl-C, traffic is restored and
    the new deployment is removed. What a killed rollout of the same model left is used, or removed.

    Args:
        host: Host of the endpoint.
        model: A registered model, which brings its files with it. Register a run first.
        name: The endpoint.
        canary: First share of the requests, in percent.
        canary_s: How long it is watched with that share, in seconds.
        mirror: Share of the requests that is first copied to it, in percent, if the host can: 0 to 50.
        images: Labelled images like those that the model was tested on; drawings by default.
        on_step: Called with a line of text for each step.

    Returns:
        The endpoint, which serves the model.

    Raises:
        SmokeTestError: If the new deployment is wrong, slow, or leaks memory.
        DeployError: If it doesn't start, or anything else fails; also if the model is not registered.
        ModelFileError: If the model's files are damaged.
        RegistryError: If the model is no longer registered, or its files can't be fetched.

    Example:
        >>> model = LocalRegistry().register("runs/first")  # doctest: +SKIP
        >>> deploy_model(LocalHost(), model, on_step=print).traffic  # doctest: +SKIP
        {'v1': 100}
    """
    if not isinstance(model, RegisteredModel):
        raise DeployError(
            f"only a registered model can be deployed; got {type(model).__name__}",
            hint="register the run first: model = LocalRegistry().register(run)",
        )
    if not 0 < canary < 100:
        raise DeployError(f"the first share must be 1 to 99 percent. Received: {canary}")
    if not 0 <= mirror <= 50:
        raise DeployError(f"the mirrored share must be 0 to 50 percent. Received: {mirror}")
    run = model.open_run()
    references = reference_images(run, images)
    if images is not None or str(run.info.get("dataset", "")).startswith("drawn:"):
        check_accuracy(references, float(run.info.get("test_accuracy", 0.0)))
    is_new = name not in {each.name for each in host.list_endpoints()}
    before = host.create_endpoint(name)
    on_step(f"endpoint {name} is {'made' if is_new else 'there'}: {before.scoring_uri}")
    if (live := live_deployment(before, model)) is not None:
        for each in references:
            verify_prediction(host, name, live.name, each)
        on_step(f"{model} is live already, as deployment {live.name}; it passed the smoke test")
        return before
    before = _end_canary(host, before, model, on_step)
    existing = _find_leftover(host, before, model, on_step)
    new = existing or deployment_name(host, host.get_endpoint(name), model)
    with _undone_on_failure(host, before, new, is_new=is_new, on_step=on_step):
        if existing is None:
            host.create_deployment(name, new, model)
        on_step(f"deployment {new} is ready, without traffic")
        _smoke_test(host, name, new, references)
        on_step(f"smoke test: {len(references)} images predicted as the model does")
        if mirror and before.traffic:
            host.set_mirror(name, {new: mirror})
            on_step(f"mirror: {new} gets copies of {mirror} % of the requests; its answers are discarded")
            report = _compare_latency(host, before, new, references, canary_s)
            host.set_mirror(name, {})
            on_step(f"mirror: {report}")
        if before.traffic:
            shares = _scaled(before.traffic, 100 - canary) | {new: canary}
            _give_traffic(host, name, before.traffic, shares)
            on_step(f"canary: {new} gets {canary} % of the requests")
            on_step(f"canary: {_compare_latency(host, before, new, references, canary_s)}")
            _give_traffic(host, name, shares, {new: 100})
        else:
            _give_traffic(host, name, before.traffic, {new: 100})
        for each in references[:5]:
            verify_prediction(host, name, None, each)
        on_step(f"live: {new} gets all requests")
    _delete_older(host, before, new, on_step)
    return host.get_endpoint(name)


def roll_back(host: EndpointHost, name: str = DEFAULT_ENDPOINT) -> Endpoint:
    """Give all requests to the deployment that had them before; calling it again reverts that.

    Raises:
        DeployError: If there is none, or it doesn't answer.

    Example:
        >>> roll_back(LocalHost(), "cifar10").traffic  # doctest: +SKIP
        {'v1': 100}
    """
    host.get_endpoint(name)
    endpoint = host.create_endpoint(name)
    idle = [each for each in endpoint.deployments if not endpoint.traffic.get(each.name)]
    if not idle:
        raise DeployError(f"endpoint {name} has no other deployment to go back to")
    last = idle[-1].name
    with suppress(ImageError):  # any answer shows that it is alive
        host.invoke(name, b"not an image", deployment=last)
    host.set_traffic(name, {last: 100})
    return host.get_endpoint(name)


def live_deployment(endpoint: Endpoint, model: RegisteredModel) -> Deployment | None:
    """Return the deployment of this model that gets all requests, if there is one."""
    for each in endpoint.deployments:
        same = each.model == str(model) and each.run_sha256 in {model.run_sha256, ""}
        if same and each.state == "ready" and endpoint.traffic.get(each.name) == 100:
            return each
    return None


def deployment_name(host: EndpointHost, endpoint: Endpoint, model: RegisteredModel) -> str:
    """Return an unused name with the model's version: ``v3``, or ``v3-2`` if that is taken."""
    taken = {each.name for each in endpoint.deployments}
    name, number = f"{host.name_prefix}{model.version}", 2
    while name in taken:
        name, number = f"{host.name_prefix}{model.version}-{number}", number + 1
    return name


def _end_canary(host: EndpointHost, before: Endpoint, model: RegisteredModel, on_step: OnStep) -> Endpoint:
    """Return the traffic share left by a killed rollout of this model to the other deployments."""
    same = {
        each.name
        for each in before.deployments
        if (each.model, each.run_sha256) == (str(model), model.run_sha256)
    }
    others = {name: share for name, share in before.traffic.items() if share and name not in same}
    if not others or sum(others.values()) == 100:
        return before
    host.set_traffic(before.name, _scaled(others, 100))
    on_step("an interrupted rollout of this model had a share of the requests; it is started again")
    return host.get_endpoint(before.name)


def _find_leftover(
    host: EndpointHost, before: Endpoint, model: RegisteredModel, on_step: OnStep
) -> str | None:
    """Return the deployment left by a killed rollout of this model; delete those that failed."""
    idle = [each for each in before.deployments if not before.traffic.get(each.name)]
    wanted = (str(model), model.run_sha256, host.config_fingerprint, "ready")
    for each in reversed(idle):
        if (each.model, each.run_sha256, each.config_fingerprint, each.state) == wanted:
            on_step(f"deployment {each.name} exists already, without traffic, with the same model")
            return each.name
    for each in host.get_endpoint(before.name).deployments:
        if each.state == "failed" and not before.traffic.get(each.name):
            host.delete(before.name, each.name)
            on_step(f"failed deployment {each.name} is deleted")
    return None


def _smoke_test(host: EndpointHost, name: str, new: str, references: Sequence[ReferenceImage]) -> None:
    for each in references:
        verify_prediction(host, name, new, each)
    try:
        host.invoke(name, b"not images", deployment=new)
    except ImageError:
        pass
    else:
        raise SmokeTestError(f"deployment {new} accepted an invalid image (10 bytes of text)")
    before = host.get_endpoint(name).find(new).memory_bytes
    if before is None:
        return
    for number in range(_LEAK_REQUESTS):
        verify_prediction(host, name, new, references[number % len(references)])
    grown = (host.get_endpoint(name).find(new).memory_bytes or before) - before
    if grown > _LEAK_BYTES:
        raise SmokeTestError(
            f"deployment {new} leaks memory: {grown >> 20} MB more after {_LEAK_REQUESTS} requests"
        )


def _compare_latency(
    host: EndpointHost, before: Endpoint, new: str, references: Sequence[ReferenceImage], seconds: float
) -> str:
    """Query the new and the old deployment in turn, while both have traffic, and describe the difference.

    Raises:
        SmokeTestError: If the new one fails a request, or is much slower.
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
        with suppress(DeployError):  # failures of the old one do not count against the new one
            host.invoke(before.name, each.file, deployment=old)
        old_s.append(time.perf_counter() - started)
    now = host.get_endpoint(before.name).find(new)
    if (failed := (now.num_errors or 0) - errors_before) or now.state != "ready":
        raise SmokeTestError(f"deployment {new} is {now.state}, and failed {failed} requests of the canary")
    new_ms, old_ms = statistics.median(new_s) * 1000, statistics.median(old_s) * 1000
    if new_ms > _SLOWER * old_ms + _SLOWER_BY_MS:
        raise SmokeTestError(
            f"deployment {new} takes {new_ms:.0f} ms per request, {old} takes {old_ms:.0f} ms"
        )
    return f"no errors, {new_ms:.1f} ms per request ({old}: {old_ms:.1f} ms)"


@contextmanager
def _undone_on_failure(
    host: EndpointHost, before: Endpoint, new: str, *, is_new: bool, on_step: OnStep
) -> Iterator[None]:
    """Restore everything if the block fails, and add the log of the new deployment to the error."""
    try:
        yield
    except BaseException as error:
        on_step(f"failed: putting everything back as it was ({error or type(error).__name__})")
        log = ""
        with suppress(DeployError):
            log = _extract_cause(host.logs(before.name, new, tail=_READ_LINES))
        try:
            if is_new:
                host.delete(before.name)
            else:
                _remove_deployment(host, before, new)
        except CifarMLError as second:
            on_step(f"that failed as well: {second.message}")
        if isinstance(error, CifarMLError) and log:
            error.message += f"\nFrom {new}'s log:\n{log}"
            error.args = (error.message,)
        raise


def _extract_cause(log: str) -> str:
    """Return the first traceback in a log that shows a cause, or its last lines if there is none."""
    blocks = _TRACEBACK.findall(log)
    # Azure ML's server wraps what a script raises.
    causes = [block for block in blocks if "UserScript" not in block.splitlines()[-1]]
    return "\n".join((causes or blocks or [log])[0].splitlines()[-_LOG_LINES:])


def _remove_deployment(host: EndpointHost, before: Endpoint, new: str) -> None:
    now = host.get_endpoint(before.name)
    if now.traffic.get(new):
        host.set_traffic(before.name, before.traffic)
    if new in {each.name for each in now.deployments}:
        host.delete(before.name, new)


def _give_traffic(
    host: EndpointHost, name: str, expected: Mapping[str, int], traffic: Mapping[str, int]
) -> None:
    now = host.get_endpoint(name).traffic
    if now != {each: share for each, share in expected.items() if share}:
        raise DeployError(
            f"somebody else changed the traffic of {name} meanwhile: {now}",
            hint=f"see it with: cifarml endpoint show {name}; then deploy again",
        )
    host.set_traffic(name, traffic)


def _scaled(traffic: Mapping[str, int], total: int) -> dict[str, int]:
    """Return shares in the same proportions that add up to ``total``."""
    shares = {name: share * total // sum(traffic.values()) for name, share in traffic.items()}
    shares[max(traffic, key=traffic.__getitem__)] += total - sum(shares.values())
    return shares


def _delete_older(host: EndpointHost, before: Endpoint, new: str, on_step: OnStep) -> None:
    """Delete all deployments but the new one and the one that had most of the requests."""
    kept = max(before.traffic, key=before.traffic.__getitem__, default="")
    there = {each.name for each in host.get_endpoint(before.name).deployments} - {new}
    for each in before.deployments:
        if each.name not in there:
            continue
        if each.name == kept and before.traffic[kept]:
            on_step(f"{each.name} stays, without traffic, for: cifarml endpoint rollback {before.name}")
        else:
            host.delete(before.name, each.name)
            on_step(f"older deployment {each.name} is deleted")
