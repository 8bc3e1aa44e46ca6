"""The one way to go live, on whatever host: beside the old model, watched, and back again where it fails."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from cifarml.data.dataset import Dataset
from cifarml.deploy.base import DEFAULT_ENDPOINT, Deployment, Endpoint, EndpointHost
from cifarml.deploy.smoke_test import KnownImage, ask_known, check_labels, known_images
from cifarml.errors import CifarMLError, DeployError, ImageError, SmokeTestError
from cifarml.registry.base import RegisteredModel
from cifarml.run import Run

__all__ = ["OnStep", "deploy_model", "deployment_name", "live_deployment", "roll_back"]

OnStep = Callable[[str], None]
"""Told what is done, a line for each step."""

_LEAK_REQUESTS: Final = 150
_LEAK_BYTES: Final = 24 << 20
_MIN_CANARY_ROUNDS: Final = 20
_SLOWER: Final = 3.0
_SLOWER_BY_S: Final = 0.05
_LOG_LINES: Final = 20
_READ_LINES: Final = 500
_START_TIMEOUT_S: Final = 1800.0


def deploy_model(
    host: EndpointHost,
    model: RegisteredModel,
    run: Run,
    *,
    name: str = DEFAULT_ENDPOINT,
    canary: int = 10,
    canary_s: float = 3.0,
    mirror: int = 0,
    images: Dataset | None = None,
    on_step: OnStep = lambda _: None,
) -> Endpoint:
    """Bring a model to an endpoint, which is made where there is none.

    The new deployment starts without traffic and is asked about images whose answers are known. Then it
    gets a small share, and its errors and times are compared with the old one's; then it gets all. The
    old one stays, for :func:`roll_back`. Where anything fails, also by Ctrl-C, traffic is as it was and
    the new deployment is gone. What a killed rollout has left of the same kind is used, or removed.

    Args:
        host: Where endpoints are.
        model: What is deployed.
        run: Its files.
        name: The endpoint.
        canary: First share of the requests, in percent.
        canary_s: How long it is watched with that share, in seconds.
        mirror: Share of the requests that is first copied to it, in percent, where the host can: 0 to 50.
        images: Labelled images like those that the model was tested on; drawings when left out.
        on_step: Told what is done.

    Returns:
        The endpoint, which answers with the model.

    Raises:
        SmokeTestError: If the new deployment answers wrongly, slowly, or leaks.
        DeployError: If it doesn't start, or anything else fails.
        ModelFileError: If the run is damaged.

    Example:
        >>> deploy_model(LocalHost(), model, run, on_step=print)  # doctest: +SKIP
    """
    if not 0 < canary < 100:
        raise DeployError(f"the first share must be 1 to 99 percent. Received: {canary}")
    if not 0 <= mirror <= 50:
        raise DeployError(f"the mirrored share must be 0 to 50 percent. Received: {mirror}")
    known = known_images(run, images)
    if images is not None or str(run.info.get("dataset", "")).startswith("drawn:"):
        check_labels(known, float(run.info.get("test_accuracy", 0.0)))
    is_new = name not in {each.name for each in host.list_endpoints()}
    before = host.create_endpoint(name)
    on_step(f"endpoint {name} is {'made' if is_new else 'there'}: {before.scoring_uri}")
    if (live := live_deployment(before, model)) is not None:
        for each in known:
            ask_known(host, name, live.name, each)
        on_step(f"{model} is live already, as deployment {live.name}; it answers as it should")
        return before
    before = _end_canary(host, before, model, on_step)
    left = _left_over(host, before, model, on_step)
    new = left or deployment_name(host, host.get_endpoint(name), model)
    with _undone_on_failure(host, before, new, is_new=is_new, on_step=on_step):
        if left is None:
            host.create_deployment(name, new, model, run)
        on_step(f"deployment {new} is ready, without traffic")
        _smoke_test(host, name, new, known)
        on_step(f"smoke test: {len(known)} known images answered as the model does")
        if mirror and before.traffic:
            host.set_mirror(name, {new: mirror})
            on_step(f"mirror: {new} gets copies of {mirror} % of the requests, and nobody its answers")
            said = _watch(host, before, new, known, canary_s)
            host.set_mirror(name, {})
            on_step(f"mirror: {said}")
        if before.traffic:
            _give_traffic(host, name, before.traffic, shares := _shared(before.traffic, new, canary))
            on_step(f"canary: {new} gets {canary} % of the requests")
            said = _watch(host, before, new, known, canary_s)
            on_step(f"canary: {said}")
            _give_traffic(host, name, shares, {new: 100})
        else:
            _give_traffic(host, name, before.traffic, {new: 100})
        for each in known[:5]:
            ask_known(host, name, None, each)
        on_step(f"live: {new} gets all requests")
    _tidy(host, before, new, on_step)
    return host.get_endpoint(name)


def roll_back(host: EndpointHost, name: str = DEFAULT_ENDPOINT) -> Endpoint:
    """Give all requests to the deployment that had them before; again, and the new one has them back.

    Raises:
        DeployError: If there is none, or it doesn't answer.
    """
    host.get_endpoint(name)
    endpoint = host.create_endpoint(name)
    idle = [each for each in endpoint.deployments if not endpoint.traffic.get(each.name)]
    if not idle:
        raise DeployError(f"endpoint {name} has no other deployment to go back to")
    last = idle[-1].name
    with suppress(ImageError):  # it answers, and that is what is asked
        host.invoke(name, b"is anybody there?", deployment=last)
    host.set_traffic(name, {last: 100})
    return host.get_endpoint(name)


def live_deployment(endpoint: Endpoint, model: RegisteredModel) -> Deployment | None:
    """Return the deployment that answers all requests with this model, if there is one."""
    for each in endpoint.deployments:
        same = each.model == str(model) and each.run_sha256 in {model.run_sha256, ""}
        if same and each.state == "ready" and endpoint.traffic.get(each.name) == 100:
            return each
    return None


def deployment_name(host: EndpointHost, endpoint: Endpoint, model: RegisteredModel) -> str:
    """Return a free name that tells the model's version: ``v3``, or ``v3-2`` where that is taken."""
    taken = {each.name for each in endpoint.deployments}
    name, number = f"{host.stem}{model.version}", 2
    while name in taken:
        name, number = f"{host.stem}{model.version}-{number}", number + 1
    return name


def _end_canary(host: EndpointHost, before: Endpoint, model: RegisteredModel, on_step: OnStep) -> Endpoint:
    """Give the share that a killed rollout of this very model has left back to the others."""
    same = {
        each.name
        for each in before.deployments
        if (each.model, each.run_sha256) == (str(model), model.run_sha256)
    }
    others = {name: share for name, share in before.traffic.items() if share and name not in same}
    if not others or sum(others.values()) == 100:
        return before
    shares = {name: share * 100 // sum(others.values()) for name, share in others.items()}
    shares[max(others, key=others.__getitem__)] += 100 - sum(shares.values())
    host.set_traffic(before.name, shares)
    on_step("an earlier rollout of this model had a share of the requests; it begins anew")
    return host.get_endpoint(before.name)


def _left_over(host: EndpointHost, before: Endpoint, model: RegisteredModel, on_step: OnStep) -> str | None:
    """Return the deployment that a killed rollout of this very model has left; remove those that failed."""
    idle = [each for each in before.deployments if not before.traffic.get(each.name)]
    for each in reversed(idle):
        same = (each.model, each.run_sha256) == (str(model), model.run_sha256)
        if same and each.made_with == host.made_with and each.state in {"ready", "starting"}:
            on_step(f"deployment {each.name} is there already, without traffic, with the same model")
            if _await_start(host, before.name, each.name) == "ready":
                return each.name
    for each in host.get_endpoint(before.name).deployments:
        if each.state == "failed" and not before.traffic.get(each.name):
            host.delete(before.name, each.name)
            on_step(f"deployment {each.name}, which had failed, is deleted")
    return None


def _await_start(host: EndpointHost, name: str, deployment: str) -> str:
    """Return the state of a deployment once it is no longer starting."""
    ends = time.monotonic() + _START_TIMEOUT_S
    while (state := _find(host, name, deployment).state) == "starting" and time.monotonic() < ends:
        time.sleep(1.0)
    return state


def _smoke_test(host: EndpointHost, name: str, new: str, known: Sequence[KnownImage]) -> None:
    for each in known:
        ask_known(host, name, new, each)
    try:
        host.invoke(name, b"no image", deployment=new)
    except ImageError:
        pass
    else:
        raise SmokeTestError(f"deployment {new} takes ten bytes of text for an image")
    before = _find(host, name, new).memory_bytes
    if before is None:
        return
    for number in range(_LEAK_REQUESTS):
        ask_known(host, name, new, known[number % len(known)])
    grown = (_find(host, name, new).memory_bytes or before) - before
    if grown > _LEAK_BYTES:
        raise SmokeTestError(
            f"deployment {new} leaks: it took {grown >> 20} MB more after {_LEAK_REQUESTS} requests"
        )


def _watch(
    host: EndpointHost, before: Endpoint, new: str, known: Sequence[KnownImage], seconds: float
) -> str:
    """Ask the new and the old deployment in turn, while both have traffic; say how they compare."""
    old = max(before.traffic, key=before.traffic.__getitem__)
    errors_before = _find(host, before.name, new).num_errors or 0
    new_s: list[float] = []
    old_s: list[float] = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends or len(new_s) < _MIN_CANARY_ROUNDS:
        each = known[len(new_s) % len(known)]
        new_s.append(ask_known(host, before.name, new, each))
        started = time.perf_counter()
        with suppress(DeployError):  # that the old one fails is no fault of the new one
            host.invoke(before.name, each.file, deployment=old)
        old_s.append(time.perf_counter() - started)
    now = _find(host, before.name, new)
    if (failed := (now.num_errors or 0) - errors_before) or now.state != "ready":
        raise SmokeTestError(f"deployment {new} is {now.state}, and failed {failed} requests of the canary")
    slow, fast = statistics.median(new_s), statistics.median(old_s)
    if slow > _SLOWER * fast + _SLOWER_BY_S:
        raise SmokeTestError(
            f"deployment {new} takes {slow * 1000:.0f} ms for an answer, {old} only {fast * 1000:.0f} ms"
        )
    return f"no errors, {slow * 1000:.1f} ms an answer ({old}: {fast * 1000:.1f} ms)"


@contextmanager
def _undone_on_failure(
    host: EndpointHost, before: Endpoint, new: str, *, is_new: bool, on_step: OnStep
) -> Iterator[None]:
    """Leave everything as it was where the block fails, and say what the new deployment logged."""
    try:
        yield
    except BaseException as error:
        on_step(f"failed: putting everything back as it was ({error or type(error).__name__})")
        log = ""
        with suppress(DeployError):
            log = _last_words(host.logs(before.name, new, tail=_READ_LINES))
        try:
            if is_new:
                host.delete(before.name)
            else:
                _take_back(host, before, new)
        except CifarMLError as second:
            on_step(f"that failed, too: {second.message}")
        if isinstance(error, CifarMLError) and log:
            error.message += f"\nFrom {new}'s log:\n{log}"
            error.args = (error.message,)
        raise


def _last_words(log: str) -> str:
    """Return the first traceback of a log that tells a cause, or else its last lines.

    What a server logs besides (its settings, the same error in its own words) tells less.
    """
    lines = log.splitlines()
    blocks = []
    for start, line in enumerate(lines):
        if "Traceback (most recent" in line:
            end = start + 1
            while end < len(lines) and (not lines[end] or lines[end][0].isspace()):
                end += 1
            blocks.append(lines[start : end + 1])
    # Azure ML's server wraps what a script raises.
    telling = [block for block in blocks if "UserScript" not in block[-1]] or blocks or [lines]
    return "\n".join(telling[0][-_LOG_LINES:] if blocks else lines[-_LOG_LINES:])


def _take_back(host: EndpointHost, before: Endpoint, new: str) -> None:
    now = host.get_endpoint(before.name)
    if now.traffic.get(new):
        host.set_traffic(before.name, before.traffic)
    if new in {each.name for each in now.deployments}:
        host.delete(before.name, new)


def _give_traffic(
    host: EndpointHost, name: str, expected: Mapping[str, int], traffic: Mapping[str, int]
) -> None:
    now = {each: share for each, share in host.get_endpoint(name).traffic.items() if share}
    if now != {each: share for each, share in expected.items() if share}:
        raise DeployError(
            f"somebody else has changed the traffic of {name} meanwhile: {now}",
            hint=f"look at it with: cifarml endpoint show {name}; then deploy again",
        )
    host.set_traffic(name, traffic)


def _shared(traffic: Mapping[str, int], new: str, canary: int) -> dict[str, int]:
    """Take the first share from all that have traffic, in proportion."""
    shares = {name: share * (100 - canary) // 100 for name, share in traffic.items()}
    shares[max(traffic, key=traffic.__getitem__)] += 100 - canary - sum(shares.values())
    return shares | {new: canary}


def _tidy(host: EndpointHost, before: Endpoint, new: str, on_step: OnStep) -> None:
    """Keep the deployment that had the requests, or most of them, and no other."""
    kept = max(before.traffic, key=before.traffic.__getitem__, default="")
    there = {each.name for each in host.get_endpoint(before.name).deployments} - {new}
    for each in before.deployments:
        if each.name not in there:
            continue
        if each.name == kept and before.traffic[kept]:
            on_step(f"{each.name} stays, without traffic, for: cifarml endpoint rollback {before.name}")
        else:
            host.delete(before.name, each.name)
            on_step(f"{each.name}, an older one, is deleted")


def _find(host: EndpointHost, name: str, deployment: str) -> Deployment:
    for each in host.get_endpoint(name).deployments:
        if each.name == deployment:
            return each
    raise DeployError(f"deployment {deployment} of {name} is gone")
