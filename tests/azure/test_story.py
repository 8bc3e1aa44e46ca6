"""The article's workflow in Azure: run the commands of docs/guides/azure.md, then verify the teardown."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from cifarml import load_dataset
from cifarml.data.save import save_images
from tests.conftest import CommandLine
from tests.emulators.azureml.cloud import Cloud

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "azure.md"


def commands() -> list[str]:
    text = PAGE.read_text().partition("## What each step does")[0]
    return [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]


@pytest.mark.timeout(600)
def test_commands_of_the_azure_page(
    cloud: Cloud, cifarml: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Use the real images if CIFARML_TEST_DATA is set, otherwise drawings in the same archive."""
    archive = tmp_path / "2000pics_cifar10.zip"
    if data := os.environ.get("CIFARML_TEST_DATA"):
        shutil.copyfile(Path(data) / archive.name, archive)
    else:
        save_images(load_dataset("drawn:1000"), archive)
    drawn = load_dataset("drawn:20")
    ship = drawn.images[drawn.labels == drawn.class_names.index("ship")][0]
    Image.fromarray(ship).save(tmp_path / "ship.png")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CURL_CA_BUNDLE", os.environ["REQUESTS_CA_BUNDLE"])
    monkeypatch.delenv("CIFARML_RUNS_DIR", raising=False)
    shown = ""
    done = {}
    for command in commands():
        if command.startswith("curl") and not shutil.which("curl"):
            continue
        if command.startswith("cifarml "):
            ran = cifarml(*shlex.split(command)[1:])
        else:
            ran = subprocess.run(
                ["bash", "-c", command.replace("REGION", cloud.location)],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=400,
                check=False,
            )
        assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"
        assert "Traceback" not in ran.stderr
        if command.startswith("cifarml") and "doctor" not in command and "data upload" not in command:
            target = (
                f"Target: Azure, workspace {cloud.workspace_name}, resource group {cloud.resource_group}, "
            )
            assert ran.stderr.startswith(f"{target}subscription {cloud.subscription_id}"), command
        done[command] = ran.stdout
        shown += ran.stdout + ran.stderr
    assert set(cloud.models["cifar10"]) == {"1", "2"}
    assert "is now the champion" in "".join(done.values())
    assert re.search(r"cifar10:2 starts|cifar10:2", shown)
    responses = [text for command, text in done.items() if command.startswith("curl")]
    for response in responses:
        assert set(json.loads(response)) >= {"result", "probability", "probabilities"}
    assert not cloud.endpoints
    assert not cloud.computes
    assert all(job.status == "Completed" for job in cloud.jobs.values())
    assert "No billable resources of cifarml remain" in shown
    assert cloud.bench.proxy.refused == []
    for secret in cloud.secrets():
        assert secret not in shown, f"a secret of {len(secret)} characters was shown"
