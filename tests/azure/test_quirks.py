"""Bugs that `cifarml.azure._quirks` works around; if a test fails, its workaround is obsolete."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.emulators.azureml.cloud import Cloud

SCRIPT = """
import contextlib, io, json, os, sys, types
import azure.ai.ml
found = {"grammar": "rfc3987_syntax" in sys.modules}

from azure.identity import DefaultAzureCredential
workspace = [os.environ[f"AZURE_{name}"] for name in ("SUBSCRIPTION_ID", "RESOURCE_GROUP", "WORKSPACE_NAME")]
client = azure.ai.ml.MLClient(DefaultAzureCredential(), *workspace, enable_telemetry=False)
found["variable"] = os.environ.get("AZUREML_CURRENT_CLOUD")

endpoint = azure.ai.ml.entities.ManagedOnlineEndpoint(name="quirks")
client.online_endpoints.begin_create_or_update(endpoint).result()
with contextlib.redirect_stdout(io.StringIO()) as printed:
    client.online_endpoints.begin_delete("quirks").result()
found["printed"] = printed.getvalue()

from azure.ai.ml._utils._asset_utils import IgnoreFile, upload_directory
try:
    storage = types.SimpleNamespace()  # every upload to it fails
    upload_directory(storage, "upload", "", "", show_progress=False, ignore_file=IgnoreFile())
    found["upload"] = "no error"
except AttributeError as error:
    found["upload"] = str(error)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(ml_cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Observe azure-ai-ml in an interpreter without cifarml (its import takes seconds)."""
    ml_cloud.reset()
    folder = tmp_path_factory.mktemp("quirks")
    for name in ("upload/file.txt", "packages/rfc3987_syntax.py"):
        (folder / name).parent.mkdir()
        (folder / name).write_text("")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        env=ml_cloud.env() | {"HOME": str(folder), "PYTHONPATH": str(folder / "packages")},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_jsonschema_imports_an_unused_grammar(found: dict[str, object]) -> None:
    assert found["grammar"] is True


def test_client_sets_an_environment_variable(found: dict[str, object]) -> None:
    assert found["variable"] == "AzureCloud"


def test_client_prints_while_polling(found: dict[str, object]) -> None:
    assert "." in str(found["printed"])


def test_upload_errors_are_lost_without_a_progress_bar(found: dict[str, object]) -> None:
    assert found["upload"] == "no error"
