"""May we do what each command does? The least rights of each, as a table that docs and doctor share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from cifarml.azure.workspace import AzureWorkspace
from cifarml.errors import CloudError

_P: Final = "Microsoft.MachineLearningServices/workspaces"
_READ: Final = (f"{_P}/read", f"{_P}/datastores/read", f"{_P}/datastores/listSecrets/action")

RIGHTS: Final[Mapping[str, tuple[str, ...]]] = {
    "models list, show, download": (*_READ, f"{_P}/models/read", f"{_P}/models/versions/read"),
    "models register, promote": (
        *_READ,
        f"{_P}/models/write",
        f"{_P}/models/versions/write",
        f"{_P}/experiments/read",
        f"{_P}/experiments/write",
        f"{_P}/experiments/runs/read",
        f"{_P}/experiments/runs/write",
    ),
    "deploy, endpoint": (
        *_READ,
        f"{_P}/models/versions/read",
        f"{_P}/environments/read",
        f"{_P}/environments/versions/read",
        f"{_P}/environments/versions/write",
        f"{_P}/codes/versions/read",
        f"{_P}/codes/versions/write",
        f"{_P}/onlineEndpoints/read",
        f"{_P}/onlineEndpoints/write",
        f"{_P}/onlineEndpoints/delete",
        f"{_P}/onlineEndpoints/listKeys/action",
        f"{_P}/onlineEndpoints/regenerateKeys/action",
        f"{_P}/onlineEndpoints/token/action",
        f"{_P}/onlineEndpoints/score/action",
        f"{_P}/onlineEndpoints/deployments/read",
        f"{_P}/onlineEndpoints/deployments/write",
        f"{_P}/onlineEndpoints/deployments/delete",
        f"{_P}/onlineEndpoints/deployments/getLogs/action",
    ),
    "train --compute, jobs": (
        *_READ,
        f"{_P}/computes/read",
        f"{_P}/jobs/read",
        f"{_P}/jobs/write",
        f"{_P}/jobs/cancel/action",
        f"{_P}/codes/versions/write",
        f"{_P}/environments/versions/write",
        f"{_P}/experiments/runs/read",
        f"{_P}/experiments/runs/write",
    ),
    "compute create, delete": (
        f"{_P}/read",
        f"{_P}/computes/read",
        f"{_P}/computes/write",
        f"{_P}/computes/delete",
    ),
    "down": (
        *_READ,
        f"{_P}/jobs/read",
        f"{_P}/jobs/cancel/action",
        f"{_P}/onlineEndpoints/read",
        f"{_P}/onlineEndpoints/delete",
        f"{_P}/onlineEndpoints/deployments/read",
        f"{_P}/computes/read",
        f"{_P}/computes/delete",
        f"{_P}/environments/read",
        f"{_P}/environments/versions/read",
        f"{_P}/environments/versions/write",
    ),
}
"""What each command does in Azure Resource Manager; the operations are listed at
https://learn.microsoft.com/azure/role-based-access-control/permissions/ai-machine-learning"""


def custom_role(scope: str) -> dict[str, Any]:
    """Return a role with these rights and no others, as ``az role definition create`` takes it.

    Args:
        scope: Where it can be given, such as the id of a resource group.
    """
    return {
        "Name": "cifarml operator",
        "IsCustom": True,
        "Description": "All that cifarml does in an Azure ML workspace, and nothing else.",
        "Actions": sorted({action for actions in RIGHTS.values() for action in actions}),
        "NotActions": [],
        "AssignableScopes": [scope],
    }


def check_workspace(workspace: AzureWorkspace) -> Iterator[tuple[str, CloudError | None]]:
    """Sign in, look at the workspace, and compare our rights with what each command needs.

    Yields:
        What was looked at, and None where all is well, or what is missing.
    """
    try:
        with workspace.calling("sign in"):
            workspace.credential.get_token("https://management.azure.com/.default")
        yield "sign in", None
        _ = workspace.info
        yield "workspace", None
        with workspace.calling("read the own rights"):
            path = "/providers/Microsoft.Authorization/permissions"
            answer = workspace.request("GET", path, version="2022-04-01")
            granted = [_Permission(each) for each in answer["value"]]
    except CloudError as error:
        yield "rights", error
        return
    for command, actions in RIGHTS.items():
        missing = [action for action in actions if not any(each.allows(action) for each in granted)]
        yield command, _lacking(workspace, command, missing) if missing else None


def _lacking(workspace: AzureWorkspace, command: str, missing: list[str]) -> CloudError:
    role = "AzureML Compute Operator" if command.startswith("compute") else "AzureML Data Scientist"
    shown = ", ".join(action.removeprefix(f"{_P}/") for action in missing[:4])
    more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
    return CloudError(
        f"you lack: {shown}{more}",
        f'az role assignment create --role "{role}" --assignee YOUR_NAME --scope {workspace.resource_id}',
        code="AuthorizationFailed",
    )


class _Permission:
    """One of the permissions that somebody has, by roles or by group."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._actions = [str(each) for each in values.get("actions", ())]
        self._not_actions = [str(each) for each in values.get("notActions", ())]

    def allows(self, action: str) -> bool:
        return _matches(self._actions, action) and not _matches(self._not_actions, action)


def _matches(patterns: list[str], action: str) -> bool:
    plain = (re.sub(r"[\[\]?]", "", pattern).lower() for pattern in patterns)
    return any(fnmatchcase(action.lower(), pattern) for pattern in plain)
