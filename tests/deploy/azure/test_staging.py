"""Scoring script in its deployment environment: minimal dependencies, Azure ML's inference server."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import requests as http
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cifarml.deploy.azure.staging import SCORING_SCRIPT, scoring_files, stage_scoring
from cifarml.errors import DeployError
from cifarml.scoring.api_schema import ErrorAnswer, ImageAnswer
from cifarml.scoring.request import CODES
from tests.endpoint_docs import ENDPOINT_DOCS
from tests.environments import environment
from tests.goldens import JSON, colour_run, encoded_bodies, goldens, plain
from tests.inference_server import InferenceServer, command, free_port, variables

GOLDENS = goldens()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model of the golden files, in a folder laid out as in Azure ML."""
    return colour_run(tmp_path_factory.mktemp("azureml-models") / "cifar10" / "3").path


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Code folder of a deployment."""
    folder = tmp_path_factory.mktemp("code")
    assert stage_scoring(folder) == folder / SCORING_SCRIPT
    return folder


def test_code_folder_contains_only_imported_modules(code: Path) -> None:
    staged = {file.relative_to(code).as_posix() for file in code.rglob("*") if file.is_file()}
    assert staged == set(scoring_files())
    assert {SCORING_SCRIPT, "cifarml/__init__.py", "cifarml/images.py", "cifarml/predict.py"} < staged
    assert not {name for name in staged if "train" in name or "azure" in name or "cli" in name}


def test_scoring_script_imports_three_libraries() -> None:
    code = "import sys, cifarml.scoring.score; print(*{name.split('.')[0] for name in sys.modules})"
    modules = subprocess.check_output([sys.executable, "-P", "-c", code], text=True).split()
    owners = metadata.packages_distributions()
    imported = {canonicalize_name(owner) for module in modules for owner in owners.get(module, ())}
    required = {canonicalize_name(Requirement(line).name) for line in metadata.requires("cifarml") or ()}
    assert imported & required == {"numpy", "onnxruntime", "pillow"}


def test_import_error_in_the_scoring_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libonnx.so is missing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(DeployError, match=r"ImportError: libonnx\.so is missing"):
        stage_scoring(tmp_path / "code")
    assert not (tmp_path / "code").exists()


SCORE_GOLDENS = """
import importlib.metadata, importlib.util, json, pathlib, sys
spec = importlib.util.spec_from_file_location("entry_module", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.init()
status = pathlib.Path("/proc/self/status")
peak_kb = int(status.read_text().partition("VmHWM:")[2].split()[0]) if status.exists() else 0
requests = [(kind, body.encode("latin-1")) for kind, body in json.load(sys.stdin)]
answers = [(status, body.decode()) for status, body in module.answer(requests)]
installed = sorted(each.name.lower() for each in importlib.metadata.distributions())
files = sorted(each.__file__ for name, each in sys.modules.items() if name.split(".")[0] == "cifarml")
found = {"answers": answers, "installed": installed, "files": files, "peak_kb": peak_kb}
json.dump(found, sys.stdout)
"""


def test_goldens_with_minimal_dependencies(code: Path, model: Path, tmp_path: Path) -> None:
    """Load the script as Azure ML does, with only NumPy, Pillow and ONNX Runtime installed."""
    requests = [
        (golden.content_type, golden.body.decode("latin-1")) for golden in GOLDENS if len(golden.body) < 9999
    ]
    done = subprocess.run(
        [environment("scoring") / "python", "-I", "-W", "error", "-c", SCORE_GOLDENS, code / SCORING_SCRIPT],
        cwd=tmp_path,
        env=variables(code, model, tmp_path),
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    goldens = (golden for golden in GOLDENS if len(golden.body) < 9999)
    for golden, (status, content) in zip(goldens, found["answers"], strict=True):
        golden.check(status, content.encode())
    assert found["peak_kb"] < 150_000  # model and libraries, before any request
    assert {"numpy", "pillow", "onnxruntime"} <= set(found["installed"])
    assert set(found["installed"]) <= {
        *("numpy", "pillow", "onnxruntime"),
        *("flatbuffers", "packaging", "protobuf"),  # dependencies of ONNX Runtime
        *("pip", "setuptools"),  # of the virtual environment
    }
    staged = [str(code / name) for name in sorted(scoring_files()) if name != SCORING_SCRIPT]
    assert found["files"] == staged


# In Azure ML's inference server


@pytest.fixture(scope="module")
def server(code: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceServer]:
    server = InferenceServer(code, code / SCORING_SCRIPT, model, tmp_path_factory.mktemp("home"))
    yield server
    server.close()


def test_goldens_in_the_inference_server(server: InferenceServer) -> None:
    with http.Session() as session:
        for golden in GOLDENS:
            headers = {"Content-Type": golden.content_type.encode("latin-1")} if golden.content_type else {}
            answer = session.post(server.url, golden.body, headers=headers, timeout=30)
            golden.check(answer.status_code, answer.content)
            assert answer.headers["Content-Type"] == JSON
    assert "Traceback" not in server.log()


def test_gzip_bodies_in_the_inference_server(server: InferenceServer) -> None:
    with http.Session() as session:
        for golden in GOLDENS:
            if golden.body and golden.status not in {413, 415}:
                headers = {"Content-Type": golden.content_type, "Content-Encoding": "gzip"}
                answer = session.post(server.url, gzip.compress(golden.body), headers=headers, timeout=30)
                golden.check(answer.status_code, answer.content)
        for name, (encoding, body) in encoded_bodies().items():
            headers = {"Content-Type": "image/png", "Content-Encoding": encoding}
            answer = session.post(server.url, body, headers=headers, timeout=30)
            assert name.startswith(f"{answer.json()['error']['code']}:"), answer.content
            assert answer.status_code == CODES[answer.json()["error"]["code"]][0]


def test_documented_examples_run(server: InferenceServer, tmp_path: Path) -> None:
    """Run the commands of docs/reference/http-api.md against Azure ML's server."""
    (tmp_path / "ship.png").write_bytes(plain("ship"))
    (tmp_path / "frog.jpg").write_bytes(plain("frog", "JPEG", (400, 300)))
    page = ENDPOINT_DOCS.read_text(encoding="utf-8")
    shell = re.findall(r"^```bash\n(.*?)^```", page, re.M | re.S)
    programs = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    assert (len(shell), len(programs)) == (3, 1)
    commands = [
        *(["bash", "-c", block] for block in shell),
        *([sys.executable, "-c", text] for text in programs),
    ]
    answers = [
        subprocess.run(
            each,
            cwd=tmp_path,
            env=os.environ | {"ENDPOINT": server.url, "KEY": "any"},
            stdout=subprocess.PIPE,
            timeout=60,
            check=True,
        ).stdout
        for each in commands
    ]
    assert [ImageAnswer.model_validate_json(answer).result for answer in answers[:3]] == ["ship"] * 3
    assert answers[3].decode() == "ship.png ship\nfrog.jpg frog\n"


def test_http_methods_in_the_inference_server(server: InferenceServer) -> None:
    answer = http.get(server.url, timeout=30)
    assert answer.status_code == 405
    assert ErrorAnswer.model_validate_json(answer.content).error.code == "wrong_method"
    assert http.options(server.url, timeout=30).status_code == 200


def test_oversized_chunked_body_in_the_inference_server(server: InferenceServer) -> None:
    answer = http.post(
        server.url, (bytes(2**20) for _ in range(15)), headers={"Content-Type": "image/png"}, timeout=30
    )
    assert answer.status_code == 413


def test_malformed_chunked_body_in_the_inference_server(server: InferenceServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(
            b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            b"Transfer-Encoding: chunked\r\n\r\nnot a number\r\nabc\r\n"
        )
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"broken_body" in answer


def test_damaged_model_in_the_inference_server(code: Path, model: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(model, tmp_path / "cifar10" / "4"))
    with (path / "model.onnx").open("ab") as file:
        file.write(b"?")
    done = subprocess.run(
        command(code, code / SCORING_SCRIPT, free_port()),
        cwd=code,
        env=variables(code, path, tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    (line,) = (line for line in done.stdout.splitlines() if "the model can't be served" in line)
    assert "model.onnx was changed after training" in line
