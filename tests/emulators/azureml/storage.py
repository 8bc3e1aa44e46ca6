"""The workspace's storage account: containers, URIs, SAS tokens, transfers of folders."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from azure.core.exceptions import ResourceNotFoundError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobServiceClient, generate_blob_sas, generate_container_sas

from tests.emulators.azureml.web import AzureError
from tests.emulators.storage_bench import StorageBench

ARTIFACTS = "azureml"


class Storage:
    """Direct access to Azurite; these requests are not recorded by the gateway."""

    def __init__(self, bench: StorageBench) -> None:
        self.bench = bench
        self.account, self.host = bench.account, bench.host
        transport = RequestsTransport(use_env_settings=False, connection_verify=str(bench.ca_path))
        self.client = BlobServiceClient(bench.local_url, credential=bench.key, transport=transport)
        self.signatures: list[str] = []
        self._made: list[str] = []
        self.blobstore = ""
        self.reset()

    def reset(self) -> None:
        """Recreate the workspace's containers empty; other containers are not changed."""
        for name in self._made:
            self.client.delete_container(name)
        self._made = []
        self.blobstore = self.new_container("azureml-blobstore-")
        try:
            self.client.create_container(ARTIFACTS)
        except Exception:  # noqa: BLE001 - it exists
            self._empty(ARTIFACTS)

    def _empty(self, container: str) -> None:
        client = self.client.get_container_client(container)
        for name in client.list_blob_names():
            client.delete_blob(name)

    def new_container(self, prefix: str) -> str:
        name = f"{prefix}{uuid.uuid4()}"
        self.client.create_container(name)
        self._made.append(name)
        return name

    def datastores(self) -> dict[str, str]:
        """Return the container of each datastore."""
        return {"workspaceblobstore": self.blobstore, "workspaceartifactstore": ARTIFACTS}

    def url(self, container: str, path: str = "") -> str:
        return f"https://{self.host}/{container}" + (f"/{path}" if path else "")

    def sas(self, container: str, path: str | None = None) -> str:
        """Return a SAS token for a container, or for reading one blob."""
        key, until = self.bench.key, datetime.now(UTC) + timedelta(hours=1)
        start = datetime.now(UTC) - timedelta(minutes=5)
        if path is None:
            sas = generate_container_sas(
                self.account, container, account_key=key, permission="racwdl", start=start, expiry=until
            )
        else:
            sas = generate_blob_sas(
                self.account, container, path, account_key=key, permission="r", start=start, expiry=until
            )
        if found := re.search(r"sig=([^&]+)", sas):
            self.signatures.append(found[1])
        return str(sas)

    def resolve(self, uri: str) -> tuple[str, str]:
        """Return the container and path of any URI that Azure ML accepts."""
        if found := re.fullmatch(r"azureml:/*(?:.*/)?datastores/([^/]+)(?:/paths/?|/|$)(.*)", uri):
            container = self.datastores().get(found[1])
            if container is None:
                raise AzureError(404, "UserError", f"Could not find datastore: {found[1]}.")
            return container, found[2]
        if found := re.fullmatch(r"wasbs?://([^@/]+)@([^/]+)/?(.*)", uri):
            container, host, path = found.groups()
        elif found := re.fullmatch(r"https://([^/]+)/([^/?]+)/?([^?]*)(?:\?.*)?", uri):
            host, container, path = found.groups()
        else:
            raise AzureError(400, "UserError", f"Invalid uri {uri}.")
        if host != self.host:
            raise AzureError(400, "UserError", f"Could not reach {host}.")
        return container, path

    def download(self, uri: str, folder: Path) -> Path:
        """Download a blob, or all blobs below a path, to ``folder``; return its path there."""
        container, path = self.resolve(uri)
        client = self.client.get_container_client(container)
        path = path.rstrip("/")
        prefix = f"{path}/" if path else ""
        target = folder / Path(path).name
        names = []
        try:
            names = [name for name in client.list_blob_names(name_starts_with=prefix) if name != prefix]
            for name in names:
                file = target / name.removeprefix(prefix)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(client.download_blob(name).readall())
            if not names:
                content = client.download_blob(path).readall()
                folder.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        except ResourceNotFoundError:
            raise AzureError(404, "UserError", f"The specified blob does not exist: {uri}") from None
        return target

    def upload(self, folder: Path, uri: str) -> None:
        """Upload all files of a folder below a path."""
        container, path = self.resolve(uri)
        client = self.client.get_container_client(container)
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                name = f"{path.rstrip('/')}/{file.relative_to(folder).as_posix()}"
                client.upload_blob(name, file.read_bytes(), overwrite=True)

    def write(self, container: str, path: str, content: bytes) -> None:
        self.client.get_container_client(container).upload_blob(path, content, overwrite=True)

    def close(self) -> None:
        self.client.close()
