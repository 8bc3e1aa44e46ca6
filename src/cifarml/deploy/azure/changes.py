"""Single changes of endpoints, which start over if another operation comes between reading and writing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from cifarml.azure.workspace import state_name
from cifarml.deploy.azure.lease import EndpointLeases
from cifarml.errors import CloudDeployError, DeployError

if TYPE_CHECKING:
    from azure.ai.ml.entities import OnlineEndpoint

_MAX_CONFLICTS: Final = 100


class EndpointChanges(EndpointLeases):
    """Endpoints of a workspace whose changes keep everything else as it is."""

    def _when_free(self, action: Callable[[], None]) -> None:
        """Call ``action``; call it again if Azure refuses it because of a concurrent operation.

        It is called again from the start, since the other operation may have changed what it read.
        """
        for attempt in range(1, _MAX_CONFLICTS + 1):
            try:
                action()
            except CloudDeployError as error:
                if error.code != "Conflict" or attempt == _MAX_CONFLICTS:
                    raise
                time.sleep(min(self._poll_s, 1.0))
            else:
                return

    def _update(self, name: str, action: str, edit: Callable[[OnlineEndpoint], None]) -> None:
        """Read an endpoint, edit it, and write it back with everything else unchanged."""

        def update() -> None:
            found = self._take_turn(name) or self._get(name)
            edit(found)
            found.tags = self._renewed_tags(found)
            wanted = dict(found.traffic or {}), dict(found.mirror_traffic or {})

            def is_done() -> bool:
                now = self._wait_until_idle(name)
                if now is None or (now.traffic or {}, now.mirror_traffic or {}) != wanted:
                    return False
                return bool(now.traffic) or state_name(now.provisioning_state) == "succeeded"

            with self._tolerate_if_done(is_done), self._calling(action):
                poller = self.workspace.client.online_endpoints.begin_create_or_update(found)
                self.workspace.wait(poller, f"updating endpoint {name}")

        self._when_free(update)

    def _delete_endpoint(self, endpoint: str) -> None:
        if self._take_turn(endpoint) is None:
            self._get(endpoint)  # raises
        deleted = self._tolerate_if_done(lambda: self._wait_until_idle(endpoint) is None)
        with deleted, self._calling(f"delete endpoint {endpoint}"):
            poller = self.workspace.client.online_endpoints.begin_delete(endpoint)
            self.workspace.wait(poller, f"deleting endpoint {endpoint}")

    def _delete_deployment(self, endpoint: str, deployment: str) -> None:
        found = self._take_turn(endpoint) or self._get(endpoint)
        self.get_endpoint(endpoint).find(deployment)
        if (found.traffic or {}).get(deployment):
            raise DeployError(
                f"can't delete deployment {deployment} of {endpoint} because it receives traffic",
                hint=f"move its traffic first: cifarml endpoint traffic OTHER=100 --name {endpoint}",
            )
        if (found.mirror_traffic or {}).get(deployment):
            self._update(endpoint, f"stop mirroring requests of {endpoint}", _stop_mirroring)
        deleted = self._tolerate_if_done(lambda: deployment not in self._names(endpoint))
        with deleted, self._calling(f"delete deployment {deployment}"):
            poller = self.workspace.client.online_deployments.begin_delete(deployment, endpoint)
            self.workspace.wait(poller, f"deleting deployment {deployment}")


def _stop_mirroring(endpoint: OnlineEndpoint) -> None:
    endpoint.mirror_traffic = {}
