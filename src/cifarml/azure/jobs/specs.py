"""YAML specification of a training job."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from cifarml.azure.datastore import DEFAULT_STORE
from cifarml.azure.jobs.code_snapshot import SETTINGS, conda_file, stage_package
from cifarml.azure.workspace import TAG
from cifarml.azure.yaml_files import SCHEMA, new_folder, write_documents
from cifarml.cifar10 import EXPERIMENT
from cifarml.data.blob.address import BlobAddress, is_blob_address
from cifarml.errors import DataError, SettingsError
from cifarml.paths import expand_home
from cifarml.settings import load_settings
from cifarml.train.config import TrainConfig
from cifarml.train.data_source import Source

IMAGE: Final = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest"
"""https://github.com/Azure/AzureML-Containers; CUDA's libraries come with TensorFlow's own packages."""

RUNS: Final = "cifarml/runs"
"""Folder in the default datastore that contains the run folders."""

RUN_TAG: Final = "cifarml_run"
RUN_NAME: Final = re.compile(r"[\w-][\w .+-]{0,200}")
"""Valid run names: they become part of the job's tags, its command and blob names."""

_TIMEOUT_S: Final = 24 * 3600
_ARCHIVES: Final = (".zip", ".tar", ".tar.gz", ".tgz")


def write_job_yaml(
    folder: Path, compute: str, run: str, source: Source, config: TrainConfig, name: str | None = None
) -> list[Path]:
    """Write the specification of a training job for ``az ml job create``, with its code snapshot.

    Args:
        folder: Folder to create.
        compute: Name of the compute cluster.
        run: Name of the run folder to create.
        source: Source of the images: blob storage, a local file or folder (which is uploaded), or another
            value of ``cifarml train --data``.
        config: Training settings; staged as a file for ``cifarml train --config``.
        name: Name of the folder in the datastore; default: ``cifarml-RUN``.

    Raises:
        CloudError: If the folder is not empty, or can't be written.
        SettingsError: If the name of the run is invalid.
        DataError: If the images do not exist.
    """
    new_folder(folder)
    if not RUN_NAME.fullmatch(run):
        raise SettingsError(
            f"the run name of a job may contain only letters, digits, spaces and . + - _. "
            f"Received: {run[:80]!r}",
            hint="use another name: --name NAME",
        )
    data, inputs = source.data, {}
    if path := _input_path(data):
        kind = "uri_file" if path.lower().endswith(_ARCHIVES) else "uri_folder"
        inputs = {"inputs": {"images": {"type": kind, "path": path, "mode": "download"}}}
        data = "${{inputs.images}}"
    arguments = ["--data", data, *source.flags, "--name", run]
    arguments += ["--runs-dir", "${{outputs.runs}}", "--config", SETTINGS]
    output = f"azureml://datastores/{DEFAULT_STORE}/paths/{RUNS}/{name or f'cifarml-{run}'}"
    document: dict[str, Any] = {
        "$schema": SCHEMA.format("commandJob"),
        "type": "command",
        "display_name": run,
        "experiment_name": EXPERIMENT,
        "description": "cifarml train",
        "command": f"python -m cifarml train {' '.join(map(_quoted, arguments))}",
        "code": "./code",
        "environment": {"image": IMAGE, "conda_file": conda_file()},
        "environment_variables": {
            "PYTHONPATH": ".",
            "PYTHONUNBUFFERED": "1",
            "CIFARML_TARGET": "local",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
        "compute": f"azureml:{compute}",
        **inputs,
        "outputs": {"runs": {"type": "uri_folder", "path": output, "mode": "upload"}},
        "limits": {"timeout": _TIMEOUT_S},
        "tags": {TAG: version("cifarml"), RUN_TAG: run},
    }
    stage_package(folder / "code", config)
    return write_documents(folder, {"job.yml": document})


def _input_path(data: str) -> str:
    """Return the path of the job's input; empty if cifarml loads the images itself."""
    if is_blob_address(data):
        address = BlobAddress.parse(data)
        if address.sas is not None:
            raise DataError(
                "the input of a job cannot contain a SAS token, because the job's specification would show it"
            )
        account = address.account_url or load_settings().storage_account
        if account is None:
            raise DataError(f"no storage account is set for {address}", "set AZURE_STORAGE_ACCOUNT")
        url = account if account.startswith("https://") else f"https://{account}.blob.core.windows.net"
        return f"{url}/{address.container}/{quote(address.name)}"
    if data == "cifar10" or data.startswith("drawn"):
        return ""
    if not expand_home(data).exists():
        raise DataError(f"file or folder {data} does not exist", "for a blob: az://CONTAINER/NAME")
    return str(expand_home(data).resolve())


def _quoted(argument: str) -> str:
    """Quote an argument for bash; Azure ML inserts placeholders without quoting."""
    if re.search(r"['\n\0]", argument):
        raise SettingsError(
            f"the arguments of a job cannot contain quotes or line breaks. Received: {argument[:80]!r}"
        )
    return f"'{argument}'"
