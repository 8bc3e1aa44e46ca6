"""Leases on endpoints: a tag of the endpoint names the process that changes it.

Azure ML has no conditional requests for endpoints. The lease is therefore read before, and verified after it
was written and before each change. A process that finds the lease of another one changes nothing any more.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cifarml.azure.workspace import TAG, state_name
from cifarml.deploy.azure.state import EndpointReader
from cifarml.errors import CloudDeployError, DeployError
from cifarml.locks import REPORT_AFTER_S, REPORT_EVERY_S, TIMEOUT_S, Holder, OnWait
from cifarml.serve.endpoint_folder import check_endpoint_name

if TYPE_CHECKING:
    from azure.ai.ml.entities import OnlineEndpoint

LEASE_TAG: Final = "cifarml_lease"
"""Tag with the lease; empty if the last process has released it."""

LEASE_S: Final = 1200.0
"""Duration of a lease after a change; the creation of a deployment takes up to 20 minutes."""

_PARTS: Final = re.compile(
    r"([0-9a-f]{12}) until (\S{1,40}) since (\S{1,40}) (\d{1,9})/(\d+\.\d+)@(\S+) (.+)"
)


_HELD: Final[dict[tuple[str, str, int], Lease]] = {}
"""Leases of this process by workspace, endpoint and thread."""


class Lease:
    """Right of a block of this process to change an endpoint.

    Args:
        holder: The process and its operation.
        duration_s: Duration from now.
        key: Identifier of the lease.
    """

    def __init__(self, holder: Holder, duration_s: float, key: str = "") -> None:
        self.holder = holder
        self.duration_s = duration_s
        self.key = key or uuid.uuid4().hex[:12]
        self.until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=duration_s)
        self.was_sent = False
        self.is_written = False  # and was read back

    def renew(self) -> str:
        """Extend the lease, and return the value of the tag."""
        self.until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=self.duration_s)
        self.was_sent = True
        about = self.holder
        return (
            f"{self.key} until {self.until.isoformat()} since {about.since.isoformat()} "
            f"{about.pid}/{about.started:.2f}@{about.host} {about.operation}"
        )

    def __str__(self) -> str:
        return f"{self.holder}, at the latest until {self.until.astimezone():%H:%M:%S}"

    @property
    def is_stale(self) -> bool:
        """True if its process no longer runs or no longer needs it, or it has expired."""
        if self.holder.is_gone or datetime.now(UTC) > self.until:
            return True
        mine = Holder.current("")
        is_ours = (self.holder.host, self.holder.pid) == (mine.host, mine.pid)
        return is_ours and self.key not in {each.key for each in _HELD.values()}  # it was not released


def read_lease(tags: Mapping[str, str] | None) -> Lease | None:
    """Return the lease in the tags of an endpoint; None if there is no valid one."""
    found = _PARTS.fullmatch((tags or {}).get(LEASE_TAG, ""))
    if not found:
        return None
    key, until, since, pid, started, host, operation = found.groups()
    try:
        times = datetime.fromisoformat(until), datetime.fromisoformat(since)
    except ValueError:
        return None
    if any(each.tzinfo is None for each in times):
        return None
    lease = Lease(Holder(operation, host, int(pid), float(started), times[1]), 0.0, key)
    lease.until = times[0]
    return lease


class EndpointLeases(EndpointReader):
    """Endpoints of a workspace that one process at a time changes."""

    @contextmanager
    def changing(
        self,
        endpoint: str,
        operation: str,
        *,
        lasts_s: float | None = None,
        on_wait: OnWait | None = None,
    ) -> Iterator[None]:
        """Prevent other processes from changing an endpoint in the block; wait while one does.

        Args:
            endpoint: Name of the endpoint, which need not exist.
            operation: The operation, which other processes report while they wait.
            lasts_s: Time in which the block makes no change, in seconds; None if the block consists of a
                single change, which requires no lease.
            on_wait: Called instead of the workspace's ``on_wait``.

        Raises:
            DeployError: If another process changes the endpoint for too long.
        """
        place = self._place(check_endpoint_name(endpoint))
        if place in _HELD or lasts_s is None:
            self._take_turn(endpoint, on_wait)
            yield
            return
        _HELD[place] = lease = Lease(Holder.current(operation), LEASE_S + lasts_s)
        try:
            self._take_turn(endpoint, on_wait)
            yield
        finally:
            try:
                if lease.was_sent:
                    self._release(endpoint, lease)
            finally:
                del _HELD[place]

    def _take_turn(self, name: str, on_wait: OnWait | None = None) -> OnlineEndpoint | None:
        """Wait until no operation runs and no other process holds the lease; write the lease of this block.

        Returns:
            The endpoint, or None if it does not exist.

        Raises:
            DeployError: If another process took over the endpoint, or holds it for too long.
        """
        mine = self._lease(name)
        ends, report_s = time.monotonic() + TIMEOUT_S, time.monotonic() + REPORT_AFTER_S

        def report(found: OnlineEndpoint, why: str = "") -> None:
            nonlocal report_s
            if time.monotonic() > report_s:
                other = read_lease(found.tags)
                holder = why if other is None or (mine and mine.key == other.key) else other
                (on_wait or self.workspace.report)(f"waiting for endpoint {name}, in use: {holder}")
                report_s = time.monotonic() + REPORT_EVERY_S

        while (found := self._wait_until_idle(name, report)) is not None:
            other = read_lease(found.tags)
            if mine is not None and other is not None and other.key == mine.key:
                mine.is_written = True
                return found
            if mine is not None and mine.is_written and LEASE_TAG in (found.tags or {}):
                raise DeployError(
                    f"endpoint {name} was taken over by another process: {other or 'it has ended'}",
                    hint=f"check it with: cifarml endpoint show {name}; then run the command again",
                )
            if time.monotonic() > ends:
                raise DeployError(
                    f"endpoint {name} is in use: {other}", hint="wait until it ends, or stop it"
                )
            if other is None or other.is_stale:
                if mine is None or TAG not in (found.tags or {}):
                    return found
                self._write_tag(name, found, mine.renew())
                continue
            report(found)
            time.sleep(min(self._poll_s, 1.0))
        return None

    def _place(self, name: str) -> tuple[str, str, int]:
        return str(self.workspace), name, threading.get_ident()

    def _lease(self, name: str) -> Lease | None:
        return _HELD.get(self._place(name))

    def _renewed_tags(self, endpoint: OnlineEndpoint) -> dict[str, str]:
        """Return an endpoint's tags with the lease of this block, which each change renews."""
        lease = self._lease(str(endpoint.name))
        return {**(endpoint.tags or {}), **({LEASE_TAG: lease.renew()} if lease else {})}

    def _renew(self, name: str) -> None:
        """Renew the lease of this block after a long operation, if half of it has passed."""
        lease = self._lease(name)
        if lease is not None and lease.until - datetime.now(UTC) < timedelta(seconds=lease.duration_s / 2):
            found = self._take_turn(name)
            if found is not None:
                self._write_tag(name, found, lease.renew())

    def _write_tag(self, name: str, found: OnlineEndpoint, value: str) -> None:
        """Write the lease with a request that changes only tags, if possible; the caller verifies it."""
        found.tags = {**(found.tags or {}), LEASE_TAG: value}
        try:
            with self._calling(f"lock endpoint {name}"):
                if state_name(found.provisioning_state) == "failed":  # a complete update repairs it
                    poller = self.workspace.client.online_endpoints.begin_create_or_update(found)
                    self.workspace.wait(poller, f"repairing endpoint {name}")
                else:
                    self.workspace.request("PATCH", f"/onlineEndpoints/{name}", {"tags": found.tags})
        except CloudDeployError as error:
            now = self._wait_until_idle(name)
            is_done = now is None or (now.tags or {}).get(LEASE_TAG) == value
            if not is_done and error.code != "Conflict":
                raise
            time.sleep(min(self._poll_s, 1.0))
        self._wait_until_idle(name)

    def _release(self, name: str, lease: Lease) -> None:
        try:
            found = self._wait_until_idle(name)
            held = None if found is None else read_lease(found.tags)
            if found is not None and held is not None and held.key == lease.key:
                self._write_tag(name, found, "")
        except DeployError as error:
            with suppress(Exception):
                self.workspace.report(f"the lock of endpoint {name} ends at {lease.until}: {error.message}")
