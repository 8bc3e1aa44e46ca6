"""Azure ML entities of an endpoint, built from the YAML documents that ``az ml`` takes."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from cifarml.azure.errors import is_missing
from cifarml.azure.workspace import TAG, AzureWorkspace
from cifarml.azure.yaml_files import SCHEMA, new_folder, write_documents
from cifarml.deploy.azure.staging import SCORING_SCRIPT, locked_requirements, scoring_files, stage_scoring
from cifarml.errors import DeployError, SettingsError
from cifarml.registry.base import RegisteredModel

ENVIRONMENT: Final = "cifarml-scoring"
"""Name of the environment; its version is a hash of its content."""

IMAGE: Final = "mcr.microsoft.com/azureml/minimal-py312-inference:latest"
"""Azure ML's smallest image for inference:
https://learn.microsoft.com/azure/machine-learning/concept-prebuilt-docker-images-inference"""

_PYTHON: Final = "3.12"
_CODE: Final = "code"


@dataclass(frozen=True)
class DeploymentOptions:
    """Configuration of a deployment.

    Args:
        instance_type: VM size.
        instance_count: Number of machines, 1 to 500.
        workers: Worker processes and concurrent requests per machine, 1 to 64.
        request_timeout_s: Request timeout, 1 to 180 seconds.
        auth: Authentication of clients: ``key`` (the endpoint's key) or ``entra`` (an Entra ID token).

    Raises:
        SettingsError: If a value is out of range.
    """

    instance_type: str = "Standard_F2s_v2"
    instance_count: int = 1
    workers: int = 2
    request_timeout_s: int = 10
    auth: Literal["key", "entra"] = "key"

    def __post_init__(self) -> None:
        for name, low, high in (
            ("instance_count", 1, 500),
            ("workers", 1, 64),
            ("request_timeout_s", 1, 180),
        ):
            if not low <= getattr(self, name) <= high:
                raise SettingsError(f"{name} must be {low} to {high}. Received: {getattr(self, name)}")
        if not self.instance_type.replace("_", "").isalnum() or len(self.instance_type) > 64:
            raise SettingsError(
                f"instance_type must be a VM size. Received: {self.instance_type[:64]!r}",
                hint="such as Standard_F2s_v2; https://learn.microsoft.com/azure/machine-learning/"
                "reference-managed-online-endpoints-vm-sku-list lists them",
            )


def fingerprint(options: DeploymentOptions, script: Path | None = None) -> str:
    """Return a hash of a deployment's code, environment and options, without the model."""
    files = scoring_files() | ({} if script is None else {script.name: script})
    code = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    content = json.dumps([asdict(options), code, environment_version()], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def environment_version() -> str:
    """Return the version of the environment, a hash of its content."""
    return hashlib.sha256(json.dumps([IMAGE, conda_file()]).encode()).hexdigest()[:16]


def conda_file() -> dict[str, Any]:
    """Return the conda environment, with a hash for each file that pip installs."""
    return {
        "name": ENVIRONMENT,
        "channels": ["conda-forge"],
        "dependencies": [f"python={_PYTHON}", "pip", {"pip": locked_requirements()}],
    }


def build_environment() -> Any:
    """Build the environment: base image, inference server and dependencies of the scoring script."""
    from azure.ai.ml import load_environment

    return _load(load_environment, _describe_environment())


def ensure_environment(
    workspace: AzureWorkspace, calling: Callable[[str], AbstractContextManager[None]]
) -> None:
    """Register the environment, unless it is registered."""
    wanted = build_environment()
    with calling(f"register environment {wanted.name}"):
        environments = workspace.client.environments
        try:
            environments.get(wanted.name, version=wanted.version)
        except Exception as error:
            if not is_missing(error):
                raise
            environments.create_or_update(wanted)


def build_endpoint(name: str, options: DeploymentOptions) -> Any:
    """Build an endpoint without deployments."""
    from azure.ai.ml import load_online_endpoint

    return _load(load_online_endpoint, _describe_endpoint(name, options))


def build_deployment(
    endpoint: str,
    name: str,
    model: RegisteredModel,
    options: DeploymentOptions,
    *,
    folder: Path,
    tags: Mapping[str, str],
    script: Path | None = None,
) -> Any:
    """Build a deployment of a registered model, and stage its code in a folder.

    Args:
        endpoint: Name of the endpoint.
        name: Name of the deployment.
        model: The model.
        options: Configuration of the deployment.
        folder: Parent of the code folder.
        tags: Additional tags.
        script: Custom scoring script, which may import the default one as ``cifarml.scoring.score``.
    """
    from azure.ai.ml import load_online_deployment

    _stage_code(folder, script)
    document = _describe_deployment(endpoint, name, model, options, tags, script)
    return _load(load_online_deployment, document, folder)


def write_yaml(
    folder: Path,
    endpoint: str,
    deployment: str,
    model: RegisteredModel,
    options: DeploymentOptions,
) -> list[Path]:
    """Write a deployment as YAML files for ``az ml``, and return them in the order of creation.

    Raises:
        CloudError: If the folder is not empty, or can't be written.
        DeployError: If the model or the code can't be copied.
    """
    new_folder(folder)
    run = model.open_run()
    try:
        shutil.copytree(run.path, folder / "model")
    except OSError as error:
        raise DeployError(f"can't write to {folder}: {error.strerror}") from error
    _stage_code(folder)
    described_model = {
        "$schema": SCHEMA.format("model"),
        "name": model.name,
        "version": model.version,
        "type": "custom_model",
        "path": "./model",
        "tags": {TAG: version("cifarml"), "run_sha256": model.run_sha256},
    }
    documents = {
        "environment.yml": _describe_environment(),
        "model.yml": described_model,
        "endpoint.yml": _describe_endpoint(endpoint, options),
        "deployment.yml": _describe_deployment(endpoint, deployment, model, options),
    }
    return write_documents(folder, documents)


def _load(load: Callable[..., Any], document: dict[str, Any], folder: Path = Path()) -> Any:
    """Load an entity from its YAML document, with paths relative to ``folder``."""
    import yaml

    return load(io.StringIO(yaml.safe_dump(document)), relative_origin=str(folder.absolute() / "plan.yml"))


def _stage_code(folder: Path, script: Path | None = None) -> None:
    try:
        stage_scoring(folder / _CODE)
        if script is not None:
            shutil.copyfile(script, folder / _CODE / script.name)
    except OSError as error:
        raise DeployError(f"can't stage the code in {folder}: {error.strerror}") from error


def _describe_environment() -> dict[str, Any]:
    return {
        "$schema": SCHEMA.format("environment"),
        "name": ENVIRONMENT,
        "version": environment_version(),
        "description": "Dependencies of cifarml's scoring script, pinned by hash.",
        "image": IMAGE,
        "conda_file": conda_file(),
        "tags": {TAG: version("cifarml")},
    }


def _describe_endpoint(name: str, options: DeploymentOptions) -> dict[str, Any]:
    return {
        "$schema": SCHEMA.format("managedOnlineEndpoint"),
        "name": name,
        "description": "Classifies images; created by cifarml",
        "auth_mode": "key" if options.auth == "key" else "aad_token",
        "tags": {TAG: version("cifarml")},
    }


def _describe_deployment(
    endpoint: str,
    name: str,
    model: RegisteredModel,
    options: DeploymentOptions,
    tags: Mapping[str, str] = MappingProxyType({}),
    script: Path | None = None,
) -> dict[str, Any]:
    timeout_ms = options.request_timeout_s * 1000
    probe = {"period": 10, "timeout": 2, "success_threshold": 1, "failure_threshold": 30}
    return {
        "$schema": SCHEMA.format("managedOnlineDeployment"),
        "name": name,
        "endpoint_name": endpoint,
        "model": f"azureml:{model.name}:{model.version}",
        "environment": f"azureml:{ENVIRONMENT}:{environment_version()}",
        "code_configuration": {
            "code": f"./{_CODE}",
            "scoring_script": script.name if script else SCORING_SCRIPT,
        },
        "instance_type": options.instance_type,
        "instance_count": options.instance_count,
        "request_settings": {
            "request_timeout_ms": timeout_ms,
            "max_concurrent_requests_per_instance": options.workers,
            "max_queue_wait_ms": min(timeout_ms, 500),
        },
        "environment_variables": {
            "WORKER_COUNT": str(options.workers),
            "SCORING_TIMEOUT_MS": str(timeout_ms),
        },
        "liveness_probe": probe | {"initial_delay": 10},
        "readiness_probe": probe | {"initial_delay": 5, "period": 5},
        "app_insights_enabled": False,
        "tags": {TAG: version("cifarml"), "cifarml_model": str(model), **tags},
    }
