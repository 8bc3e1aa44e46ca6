"""Permissions that each command requires, and a check of those granted in the workspace."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from cifarml.azure.workspace import AzureWorkspace
from cifarml.errors import CloudError

_P: Final = "Microsoft.MachineLearningServices/workspaces/"
_READ: Final = {"": "read", "datastores/": "read listSecrets/action"}
_VERBS: Final[Mapping[str, Mapping[str, str]]] = {
    "models list, show, download": _READ | {"models/": "read", "models/versions/": "read"},
    "models register, promote": _READ
    | {
        "models/": "write",
        "models/versions/": "write",
        "experiments/": "read write",
        "experiments/runs/": "read write",
    },
    "deploy, endpoint": _READ
    | {
        "models/versions/": "read",
        "environments/": "read",
        "environments/versions/": "read write",
        "codes/versions/": "read write",
        "onlineEndpoints/": "read write delete listKeys/action regenerateKeys/action token/action "
        "score/action",
        "onlineEndpoints/deployments/": "read write delete getLogs/action",
    },
    "train --compute, jobs": _READ
    | {
        "computes/": "read",
        "jobs/": "read write cancel/action",
        "codes/versions/": "write",
        "environments/versions/": "write",
        "experiments/runs/": "read write",
    },
    "compute create, delete": {"": "read", "computes/": "read write delete"},
    "down": _READ
    | {
        "jobs/": "read cancel/action",
        "onlineEndpoints/": "read delete",
        "onlineEndpoints/deployments/": "read",
        "computes/": "read delete",
        "environments/": "read",
        "environments/versions/": "read write",
    },
}

REQUIRED_ACTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    command: tuple(f"{_P}{kind}{verb}" for kind, verbs in kinds.items() for verb in verbs.split())
    for command, kinds in _VERBS.items()
}
"""Azure Resource Manager actions that each command requires; see
https://learn.microsoft.com/azure/role-based-access-control/permissions/ai-machine-learning"""


def check_workspace(workspace: AzureWorkspace) -> Iterator[tuple[str, CloudError | None]]:
    """Check the sign-in, the workspace, and the permissions that each command requires.

    Yields:
        The name of a check, and None if it passed, otherwise the error.
    """
    try:
        with workspace.calling("sign in"):
            workspace.credential.get_token("https://management.azure.com/.default")
        yield "sign in", None
        _ = workspace.info
        yield "workspace", None
        with workspace.calling("read the granted permissions"):
            path = "/providers/Microsoft.Authorization/permissions"
            response = workspace.request("GET", path, version="2022-04-01")
            granted = list(map(dict, response["value"]))
    except CloudError as error:
        yield "rights", error
        return
    for command, actions in REQUIRED_ACTIONS.items():
        missing = [action for action in actions if not any(_allows(each, action) for each in granted)]
        yield command, _permission_error(workspace, command, missing) if missing else None


def _permission_error(workspace: AzureWorkspace, command: str, missing: list[str]) -> CloudError:
    role = "AzureML Compute Operator" if command.startswith("compute") else "AzureML Data Scientist"
    shown = ", ".join(action.removeprefix(_P) for action in missing[:4])
    more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
    return CloudError(
        f"missing permissions: {shown}{more}",
        f'az role assignment create --role "{role}" --assignee YOUR_NAME --scope {workspace.resource_id}',
        code="AuthorizationFailed",
    )


def _allows(permission: Mapping[str, Any], action: str) -> bool:
    """Return whether a granted permission includes an action."""
    actions, excluded = permission.get("actions", ()), permission.get("notActions", ())
    return _matches(actions, action) and not _matches(excluded, action)


def _matches(patterns: Iterable[object], action: str) -> bool:
    plain = (re.sub(r"[\[\]?]", "", str(pattern)).lower() for pattern in patterns)
    return any(fnmatchcase(action.lower(), pattern) for pattern in plain)
