"""Lookup of image digests; a failed lookup does not fail the command."""

from __future__ import annotations

import re

import pytest

from cifarml.azure.compute import ClusterOptions, create_cluster
from cifarml.azure.image_digest import find_image_digest
from cifarml.azure.jobs.jobs import submit_job
from cifarml.azure.workspace import AzureWorkspace
from cifarml.train.config import TrainConfig
from cifarml.train.data_source import Source
from tests.emulators.azureml.cloud import Cloud
from tests.emulators.azureml.faults import Drop, Fault, Refuse

IMAGE = "mcr.microsoft.com/azureml/minimal-py312-inference:latest"


def test_digest_from_the_registry(cloud: Cloud) -> None:
    lines: list[str] = []
    assert find_image_digest(IMAGE, lines.append) == cloud.image_digest
    assert lines == []


@pytest.mark.parametrize("fault", [Refuse(503, "Busy"), Drop()], ids=str)
def test_registry_unavailable(cloud: Cloud, fault: Fault) -> None:
    cloud.plan = lambda request: fault if request.host == "mcr.microsoft.com" else None
    lines: list[str] = []
    assert find_image_digest(IMAGE, lines.append) == "unknown"
    (line,) = lines
    assert re.fullmatch(
        rf"cannot look up the digest of {IMAGE} \(\w+Error\): tag image_digest is `unknown`", line
    )


@pytest.mark.parametrize("digest", ["", "sha256:1234"])
def test_response_without_a_digest(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, digest: str) -> None:
    monkeypatch.setattr(cloud, "image_digest", digest)
    lines: list[str] = []
    assert find_image_digest(IMAGE, lines.append) == "unknown"
    assert "the response has no digest" in lines[0]


def test_job_is_tagged_with_the_digest_or_unknown(cloud: Cloud) -> None:
    lines: list[str] = []
    workspace = AzureWorkspace(on_wait=lines.append)
    create_cluster(workspace, "gpu", ClusterOptions())
    source = Source(data="drawn:nonsense")
    known = submit_job(workspace, "gpu", "known", source, TrainConfig())
    cloud.plan = lambda request: Drop() if request.host == "mcr.microsoft.com" else None
    unknown = submit_job(workspace, "gpu", "unknown", source, TrainConfig())
    assert cloud.jobs[known.name].properties["tags"]["image_digest"] == cloud.image_digest
    assert cloud.jobs[unknown.name].properties["tags"]["image_digest"] == "unknown"
    assert len([line for line in lines if "cannot look up the digest" in line]) == 1
