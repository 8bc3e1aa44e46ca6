"""A training job, as Azure ML's client takes it and as YAML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from cifarml.azure.datastore import DEFAULT_STORE
from cifarml.azure.jobs.code_snapshot import conda_file, stage_package, stage_settings
from cifarml.azure.workspace import TAG
from cifarml.azure.yaml_files import SCHEMA, new_folder, write_documents
from cifarml.data.blob.address import BlobAddress, is_blob_address
from cifarml.errors import DataError, SettingsError
from cifarml.registry.run_record import EXPERIMENT
from cifarml.settings import load_settings

__all__ = ["IMAGE", "RUNS", "RUN_NAME", "RUN_TAG", "build_job", "write_job_yaml"]

IMAGE: Final = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest"
"""https://github.com/Azure/AzureML-Containers; CUDA's libraries come with TensorFlow's own packages."""

RUNS: Final = "cifarml/runs"
"""Where jobs put their run folders, in the default datastore."""

RUN_TAG: Final = "cifarml_run"
RUN_NAME: Final = re.compile(r"[\w-][\w .+-]{0,200}")
"""Names that a job's run may have: they stand in its tags, its command and in storage."""

_TIMEOUT_S: Final = 24 * 3600
_ARCHIVES: Final = (".zip", ".tar", ".tar.gz", ".tgz")
_VARIABLES: Final = {
    "PYTHONPATH": ".",
    "PYTHONUNBUFFERED": "1",
    "CIFARML_TARGET": "local",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def build_job(
    name: str,
    run: str,
    compute: str,
    data: str,
    flags: Sequence[str],
    folder: Path,
    *,
    config: Path | None = None,
) -> Any:
    """Return a job as Azure ML's client takes it, its code staged.

    Args:
        name: Its name.
        run: Name of its run folder.
        compute: The cluster.
        data: Where images are: an address of blobs, a file or folder here (which is uploaded), or what
            ``cifarml train --data`` takes besides.
        flags: Further flags of ``cifarml train``.
        folder: Where its code folder is made.
        config: A file of training settings, which goes along with the code.

    Raises:
        SettingsError: If a run can't have that name there, or the file can't be read.
        DataError: If there are no such images.
    """
    if not RUN_NAME.fullmatch(run):
        raise SettingsError(
            f"the name of a job's run has letters, digits, spaces and . + - _ only. Received: {run[:80]!r}",
            hint="take another one: --name NAME",
        )
    from azure.ai.ml import Input, Output, command
    from azure.ai.ml.entities import Environment

    stage_package(folder)
    inputs: dict[str, Any] = {}
    source = data
    if path := _input_path(data):
        kind = "uri_file" if path.lower().endswith(_ARCHIVES) else "uri_folder"
        inputs["images"] = Input(type=kind, path=path, mode="download")
        source = "${{inputs.images}}"
    arguments = ["--data", source, "--name", run, "--runs-dir", "${{outputs.runs}}", *flags]
    if config is not None:
        arguments += ["--config", stage_settings(config, folder)]
    job: Any = command(
        name=name,
        display_name=run,
        experiment_name=EXPERIMENT,
        description="cifarml train",
        command=f"python -m cifarml train {' '.join(map(_quoted, arguments))}",
        code=str(folder),
        environment=Environment(
            image=IMAGE,
            conda_file=conda_file(),
            description="cifarml train",
            tags={TAG: version("cifarml")},
        ),
        environment_variables=_VARIABLES,
        compute=compute,
        inputs=inputs,
        outputs={
            "runs": Output(
                type="uri_folder",
                path=f"azureml://datastores/{DEFAULT_STORE}/paths/{RUNS}/{name}",
                mode="upload",
            )
        },
        tags={TAG: version("cifarml"), RUN_TAG: run},
    )
    job.set_limits(timeout=_TIMEOUT_S)
    return job


def write_job_yaml(
    folder: Path, compute: str, run: str, data: str, flags: Sequence[str], *, config: Path | None = None
) -> list[Path]:
    """Write a training job as a file that ``az ml job create`` takes, with its code beside it.

    Args:
        folder: Where; a new folder.
        compute: Name of the cluster.
        run: Name of the run folder to make.
        data: See :func:`build_job`.
        flags: See :func:`build_job`.
        config: See :func:`build_job`.

    Raises:
        CloudError: If the folder is not empty, or can't be written.
        DataError: If there are no such images.
    """
    code = new_folder(folder) / "code"
    job = build_job(f"cifarml-{run}", run, compute, data, flags, code, config=config)
    document: dict[str, Any] = {
        "$schema": SCHEMA.format("commandJob"),
        "type": "command",
        "display_name": run,
        "experiment_name": EXPERIMENT,
        "description": job.description,
        "command": job.command,
        "code": "./code",
        "environment": {"image": IMAGE, "conda_file": conda_file()},
        "environment_variables": dict(_VARIABLES),
        "compute": f"azureml:{compute}",
        "inputs": {
            name: {"type": given.type, "path": given.path, "mode": given.mode}
            for name, given in job.inputs.items()
        },
        "outputs": {
            "runs": {
                "type": "uri_folder",
                "path": f"azureml://datastores/{DEFAULT_STORE}/paths/{RUNS}/{job.name}",
                "mode": "upload",
            }
        },
        "limits": {"timeout": _TIMEOUT_S},
        "tags": {TAG: version("cifarml"), RUN_TAG: run},
    }
    if not document["inputs"]:
        del document["inputs"]
    return write_documents(folder, {"job.yml": document})


def _input_path(data: str) -> str:
    """Return what Azure ML shall bring to the machine; empty where cifarml gets it there by itself."""
    if is_blob_address(data):
        address = BlobAddress.parse(data)
        if address.sas is not None:
            raise DataError("a job's input takes no SAS token: it would stand in the job's description")
        account = address.account_url or load_settings().storage_account
        if account is None:
            raise DataError(f"no storage account is set for {address}", "set AZURE_STORAGE_ACCOUNT")
        url = account if account.startswith("https://") else f"https://{account}.blob.core.windows.net"
        return f"{url}/{address.container}/{quote(address.name)}"
    if data == "cifar10" or data.startswith("drawn"):
        return ""
    if not Path(data).exists():
        raise DataError(f"there is no file or folder {data}", "or give its address: az://CONTAINER/NAME")
    return str(Path(data).resolve())


def _quoted(argument: str) -> str:
    """Quote an argument for bash; what Azure ML fills in has no quotes of its own."""
    return f"'{argument}'" if re.fullmatch(r"[^'\n\0]*", argument) else _refuse(argument)


def _refuse(argument: str) -> str:
    raise SettingsError(f"a job's arguments take no quotes and no line breaks. Received: {argument[:80]!r}")
