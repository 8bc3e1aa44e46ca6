"""Upload and download of model files in the storage of an Azure ML workspace."""

from __future__ import annotations

import tempfile
from pathlib import Path

from cifarml.azure.datastore import DEFAULT_STORE, open_datastore
from cifarml.azure.workspace import AzureWorkspace
from cifarml.errors import CloudError, CloudRegistryError, RegistryError
from cifarml.registry.base import RegisteredModel
from cifarml.registry.files import copy_whole
from cifarml.run import MANIFEST, Run


def upload_files(workspace: AzureWorkspace, run: Run) -> str:
    """Upload the files to the workspace's storage, and return their datastore path.

    The client's own upload can't resume after a killed process (azure-ai-ml 1.35: 409 for each file that
    already exists if the first one does not).

    Raises:
        CloudRegistryError: If the upload fails.
    """
    from cifarml.data.blob.store import BlobStore

    store = open_datastore(workspace, DEFAULT_STORE)
    place = f"cifarml/models/{run.sha256}/run"
    with tempfile.TemporaryDirectory(prefix="cifarml-") as folder:
        copy = Path(folder, "run")
        copy_whole(run, copy)
        try:
            with BlobStore(store.address(""), settings=store.settings) as blobs:
                blobs.upload(
                    {f"{place}/{path.name}": path for path in sorted(copy.iterdir())}, overwrite=True
                )
        except CloudError as error:
            raise CloudRegistryError(error.message, error.hint, code=error.code) from None
    return f"azureml://datastores/{DEFAULT_STORE}/paths/{place}"


def download_files(workspace: AzureWorkspace, model: RegisteredModel, folder: Path) -> None:
    """Download a version's files into a new folder, and verify them.

    Raises:
        RegistryError: If the files can't be downloaded, are missing or damaged.
    """
    with tempfile.TemporaryDirectory(prefix="cifarml-") as temporary:
        with workspace.calling(f"download {model}", CloudRegistryError):
            workspace.client.models.download(model.name, model.version, download_path=temporary)
        found = sorted(Path(temporary).rglob(MANIFEST))
        if not found or (run := Run.open(found[0].parent)).sha256 != model.run_sha256:
            raise RegistryError(
                f"the files of {model} are missing or damaged in the workspace's storage",
                hint=f"register its run again, under another name: cifarml models register {model.run}",
            )
        copy_whole(run, folder)
