"""Datastores of the workspace, and the logs of jobs in them."""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from urllib.parse import quote

from pydantic import SecretStr

from cifarml.azure.workspace import AzureWorkspace
from cifarml.settings import Settings

DEFAULT_STORE: Final = "workspaceblobstore"
"""Default datastore of every workspace."""

_LOGS: Final = "workspaceartifactstore"
_LOG: Final = "ExperimentRun/dcid.{}/user_logs/std_log.txt"
"""Path of a command job's log, which the studio shows under Outputs + logs."""


class Datastore(NamedTuple):
    """Container of the workspace's storage account, with its credentials.

    Attributes:
        url: ``https://ACCOUNT.blob.core.windows.net/CONTAINER``.
        sas: Shared access signature, if the workspace issues one.
        settings: Storage settings to authenticate with otherwise.
    """

    url: str
    sas: SecretStr | None
    settings: Settings

    def address(self, name: str) -> str:
        """Return the address of a blob or folder; it may contain a secret, so never show it."""
        address = f"{self.url}/{quote(name)}"
        return f"{address}?{self.sas.get_secret_value()}" if self.sas else address


def open_datastore(workspace: AzureWorkspace, name: str) -> Datastore:
    """Get a datastore, with the workspace's credentials for it or else the user's.

    Raises:
        CloudError: If a request fails.
    """
    with workspace.calling(f"get datastore {name}"):
        store: Any = workspace.client.datastores.get(name, include_secrets=True)
        host = f"{store.account_name}.blob.{store.endpoint or 'core.windows.net'}"
        url = f"https://{host}/{store.container_name}"
        sas, key = (getattr(store.credentials, each, None) for each in ("sas_token", "account_key"))
        access = {
            "storage_account": str(store.account_name),
            "storage_connection_string": None,
            "storage_sas_token": None,
            "storage_key": SecretStr(str(key)) if key and not sas else None,
        }
    settings = workspace.settings.model_copy(update=access)
    return Datastore(url, SecretStr(str(sas).lstrip("?")) if sas else None, settings)


class JobLog:
    """Log of a job, read incrementally."""

    def __init__(self, workspace: AzureWorkspace, job: str) -> None:
        self._workspace = workspace
        self._job = job
        self._blob: Any = None
        self._offset = 0

    def read_new(self) -> bytes:
        """Return the bytes that were added since the last call.

        Raises:
            CloudError: If a request fails.
        """
        from azure.core.exceptions import ClientAuthenticationError

        with self._workspace.calling(f"read the log of {self._job}"):
            try:
                content = self._read_log()
            except ClientAuthenticationError:  # the SAS expires after an hour
                self._blob = None
                content = self._read_log()
        self._offset += len(content)
        return content

    def _read_log(self) -> bytes:
        from azure.core.exceptions import ResourceNotFoundError

        self._blob = self._blob or self._open()
        try:
            size = int(self._blob.get_blob_properties().size)
        except ResourceNotFoundError:  # no log yet
            return b""
        if size <= self._offset:
            return b""
        content: bytes = self._blob.download_blob(self._offset, size - self._offset).readall()
        return content

    def _open(self) -> Any:
        from azure.storage.blob import BlobClient

        store = open_datastore(self._workspace, _LOGS)
        address, key = store.address(_LOG.format(self._job)), store.settings.storage_key
        credential: Any = key.get_secret_value() if key else self._workspace.credential
        return BlobClient.from_blob_url(address, credential=None if store.sas else credential)
