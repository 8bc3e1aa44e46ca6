"""Changes of a rollout, which are undone if it fails, unless another process has changed them since."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

from cifarml.deploy.base import DeploymentExistsError, Endpoint, EndpointHost
from cifarml.errors import CifarMLError, DeployError
from cifarml.registry.base import RegisteredModel

OnStep = Callable[[str], None]
"""Callback that receives one line of text per step."""

_LOG_LINES: Final = 20
_READ_LINES: Final = 500
_TRACEBACK: Final = re.compile(r".*Traceback \(most recent.*(?:\n(?:[^\S\n].*|$))*(?:\n.*)?", re.MULTILINE)
"""A traceback: header, indented or empty lines, and the line with the error."""


class RolloutChanges:
    """Changes of a rollout to an endpoint.

    Args:
        host: Host of the endpoint.
        before: The endpoint before the changes.
        new: Name of the new deployment.
        is_new: Whether the rollout created the endpoint.
        on_step: Called with one line of text per step.
    """

    def __init__(
        self,
        host: EndpointHost,
        before: Endpoint,
        new: str,
        *,
        is_new: bool = False,
        on_step: OnStep = lambda _: None,
    ) -> None:
        self._host = host
        self._before = before
        self._new = new
        self._is_new = is_new
        self._on_step = on_step
        self._is_ours = True
        self._shares = [_positive(before.traffic)]
        """Traffic shares in the order in which they were set; the last ones may not have taken effect."""

    def create_deployment(self, model: RegisteredModel) -> None:
        """Create the new deployment; see `EndpointHost.create_deployment`."""
        try:
            self._host.create_deployment(self._before.name, self._new, model)
        except DeploymentExistsError:
            self._is_ours = False
            raise

    def shift_traffic(self, traffic: Mapping[str, int]) -> None:
        """Set the traffic shares, if they are still those that were read or set before.

        Raises:
            DeployError: If another process has changed them, or they can't be set.
        """
        name = self._before.name
        now = _positive(self._host.get_endpoint(name).traffic)
        if now != self._shares[-1]:
            raise DeployError(
                f"the traffic of endpoint {name} was changed during the rollout: {now}",
                hint=f"check it with: cifarml endpoint show {name}; then deploy again",
            )
        self._shares.append(_positive(traffic))
        self._host.set_traffic(name, traffic)

    @contextmanager
    def undone_on_failure(self) -> Iterator[None]:
        """Undo the changes if the block fails, and append the new deployment's log to the error."""
        try:
            yield
        except BaseException as error:
            self._on_step(f"rollout failed, rolling back: {str(error) or type(error).__name__}")
            log = ""
            with suppress(DeployError):
                log = _extract_cause(self._host.logs(self._before.name, self._new, tail=_READ_LINES))
            try:
                self._undo()
            except CifarMLError as second:
                self._on_step(f"rollback failed: {second.message}")
            if isinstance(error, CifarMLError) and log and self._is_ours:
                error.message += f"\nLog of deployment {self._new}:\n{log}"
                error.args = (error.message,)
            raise

    def _undo(self) -> None:
        name, new = self._before.name, self._new
        now = self._host.get_endpoint(name)
        traffic, names = _positive(now.traffic), {each.name for each in now.deployments}
        if not self._is_ours:
            self._on_step(f"left deployment {new}, which another process created")
            return
        if traffic != self._shares[0]:
            if traffic not in self._shares:
                self._on_step(f"left the traffic of endpoint {name}, which another process set: {traffic}")
                if traffic.get(new):
                    return
            else:
                self._host.set_traffic(name, self._shares[0], restore=True)
        if self._is_new and names <= {new} and traffic in self._shares:
            self._host.delete(name)
        elif new in names:
            self._host.delete(name, new)


def _positive(traffic: Mapping[str, int]) -> dict[str, int]:
    return {name: share for name, share in traffic.items() if share}


def _extract_cause(log: str) -> str:
    """Return the first traceback that shows a cause, or the last lines of a log without tracebacks."""
    blocks = _TRACEBACK.findall(log)
    # Azure ML's server wraps exceptions of the scoring script in its own.
    causes = [block for block in blocks if "UserScript" not in block.splitlines()[-1]]
    return "\n".join((causes or blocks or [log])[0].splitlines()[-_LOG_LINES:])
