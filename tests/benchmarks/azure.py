"""Overhead of a rollout over its client calls, in an emulated workspace whose operations take 5 s."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import requests
from azure.ai.ml.entities import ManagedOnlineEndpoint

from cifarml import Run, TrainConfig, load_dataset, train_model
from cifarml.azure.workspace import AzureWorkspace
from cifarml.deploy.azure.host import AzureHost
from cifarml.deploy.azure.specs import DeploymentOptions, build_deployment
from cifarml.deploy.rollout import deploy_model
from cifarml.registry.azure.registry import AzureRegistry
from cifarml.registry.base import RegisteredModel
from cifarml.run import write_json, write_manifest
from tests.benchmarks.pairs import row
from tests.emulators.azureml.cloud import Cloud
from tests.image_files import image_bytes
from tests.inference_server import InferenceServer

OPERATION_S = 5.0
SMOKE, CANARY, LIVE = 21, 40, 5
"""Requests of a rollout: smoke test, canary (both deployments), and after it receives all traffic."""


def azure(work: Path, pairs: int = 3) -> None:
    """Rollout of a second version, against the same azure-ai-ml calls alone."""
    runs = _runs(work)
    cloud = Cloud(work / "cloud")
    os.environ.update(cloud.env() | {"AZUREML_CURRENT_CLOUD": "AzureCloud"})
    try:
        workspace = AzureWorkspace()
        models = [AzureRegistry(workspace).register(run) for run in runs]
        ours: list[float] = []
        theirs: list[float] = []
        for number in range(pairs):
            for name, seconds in ((f"ours{number}", ours), (f"theirs{number}", theirs)):
                cloud.operations.delay_s = 0
                host = AzureHost(workspace, poll_s=0.2)
                deploy_model(host, models[0], name=name)
                cloud.operations.delay_s = OPERATION_S
                started = time.perf_counter()
                if seconds is ours:
                    deploy_model(AzureHost(workspace), models[1], name=name, canary_s=0)
                else:
                    _by_hand(workspace, models[1], name, work / f"code{number}")
                seconds.append(time.perf_counter() - started)
                cloud.operations.delay_s = 0
                host.delete(name)
        row(
            "a second version goes live in Azure, against the calls alone",
            ours,
            theirs,
            "at most 1.1",
        )
    finally:
        cloud.close()
    _container(work, runs[0])


def _by_hand(workspace: AzureWorkspace, model: RegisteredModel, name: str, folder: Path) -> None:
    """Make only the calls that a rollout requires."""
    client: Any = workspace.client
    with workspace.calling("deploy by hand"):
        made = build_deployment(name, "by-hand", model, DeploymentOptions(), folder=folder, tags={})
        client.online_deployments.begin_create_or_update(made, skip_script_validation=True).result()
        endpoint: ManagedOnlineEndpoint = client.online_endpoints.get(name)
        key = client.online_endpoints.get_keys(name).primary_key
        session = requests.Session()
        session.headers.update({"Authorization": f"Bearer {key}", "Content-Type": "image/png"})

        def send(times: int, deployment: str | None) -> None:
            named = {"azureml-model-deployment": deployment} if deployment else {}
            for seed in range(times):
                session.post(
                    str(endpoint.scoring_uri), data=image_bytes(seed), headers=named
                ).raise_for_status()

        send(SMOKE, "by-hand")
        for share in (10, 100):
            endpoint.traffic = {"by-hand": share, "version-1": 100 - share}
            client.online_endpoints.begin_create_or_update(endpoint).result()
            send(CANARY if share < 100 else LIVE, None)


def _runs(work: Path) -> list[Run]:
    first = train_model(TrainConfig(num_epochs=1), load_dataset("drawn:100"), work / "first")
    path = Path(shutil.copytree(first.path, work / "second"))
    (path / "manifest.json").unlink()
    write_json(path / "extra.json", 2)
    return [first, write_manifest(path, first.class_names, dict(first.info) | {"run": "second"})]


def _container(work: Path, run: Run, times: int = 5) -> None:
    """Print the size of the scoring environment and its start time."""
    import statistics

    from cifarml.deploy.azure.staging import stage_scoring
    from tests.environments import environment

    folder = environment("inference-server").parent
    size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    script = stage_scoring(work / "code")
    model = work / "models" / "cifar10" / "1"
    shutil.copytree(run.path, model / "run")
    seconds = []
    for number in range(times):
        home = work / f"home{number}"
        home.mkdir()
        started = time.perf_counter()
        server = InferenceServer(work / "code", script, model, home)
        seconds.append(time.perf_counter() - started)
        server.close()
    print(f"\nScoring environment: {size / 1e6:.0f} MB installed (bar: under 250).")
    spread = f"{min(seconds):.2f}-{max(seconds):.2f}"
    ready = f"{statistics.median(seconds):.2f} s ({spread})"
    print(f"In azureml-inference-server-http it is ready after {ready} (bar: 1.5).")
