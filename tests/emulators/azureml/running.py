"""Job execution: a local process whose log is written to the storage while it runs."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.emulators.azureml.operations import now
from tests.emulators.azureml.scoring import seconds
from tests.emulators.azureml.servers import plain_environment
from tests.emulators.azureml.storage import ARTIFACTS
from tests.emulators.azureml.web import AzureError

if TYPE_CHECKING:
    from tests.emulators.azureml.cloud import Cloud

DONE = ("Completed", "Failed", "Canceled")
LOG = "user_logs/std_log.txt"
_LOG_EVERY_S = 0.3
_GRACE_S = 2.0

# The job is killed when its standard input is closed, so that a killed test session leaves no job behind.
_WATCHED = (
    'exec 3<&0; trap : TERM; "$@" 3<&- & child=$!; (read -r _ <&3; kill -KILL 0) & reader=$!; '
    "while kill -0 $child 2>/dev/null; do wait $child; code=$?; done; kill $reader 2>/dev/null; exit $code"
)


@dataclass
class Job:
    """Job; ``body`` is the PUT body, the final ``status`` is one of ``DONE``."""

    name: str
    body: dict[str, Any]
    status: str = "Queued"
    error: str | None = None
    log: str = ""
    process: subprocess.Popen[bytes] | None = None
    is_cancelled: bool = False
    created: str = field(default_factory=now)
    started: str | None = None
    ended: str | None = None
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def properties(self) -> dict[str, Any]:
        return dict(self.body["properties"])

    @property
    def compute(self) -> str:
        return str(self.properties.get("computeId") or "serverless").rpartition("/")[2]

    @property
    def experiment(self) -> str:
        return str(self.properties.get("experimentName") or "Default")

    def cancel(self) -> None:
        self.is_cancelled = True
        if self.status not in DONE:
            self.status = "CancelRequested"
        if self.process and self.process.poll() is None:
            _signal(self.process, signal.SIGTERM)


class Runner:
    """Job runner; jobs wait ``queue_s`` for a node."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.queue_s = 0.0
        self.crashes: list[str] = []

    def start(self, job: Job) -> None:
        threading.Thread(target=self._run, args=(job,), daemon=True).start()

    def output_uri(self, job: Job, name: str) -> str:
        """Return the URI of an output: the requested one, or a folder of the job."""
        output = (job.properties.get("outputs") or {}).get(name) or {}
        default = f"azureml://datastores/workspaceblobstore/paths/azureml/{job.name}/{name}/"
        return str(output.get("uri") or default)

    def _run(self, job: Job) -> None:
        folder = self.cloud.folder / "jobs" / job.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            status, job.error = self._work(job, folder)
        except AzureError as error:
            status, job.error = "Failed", error.message
        except Exception:  # noqa: BLE001 - recorded in crashes
            self.crashes.append(traceback.format_exc())
            status, job.error = "Failed", "An internal error occurred."
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if job.is_cancelled:
            status, job.error = "Canceled", None
        job.ended = now()
        job.status = status
        if run := self.cloud.runs.get(job.name):
            run.status = {"Completed": "FINISHED", "Canceled": "KILLED"}.get(status, "FAILED")
            run.end_time = int(time.time() * 1000)
        job.done.set()

    def _work(self, job: Job, folder: Path) -> tuple[str, str | None]:
        self._write_log(job)
        end = time.monotonic() + self.queue_s
        while time.monotonic() < end and not job.is_cancelled:
            time.sleep(0.02)
        job.status = "Preparing"
        command, outputs, code = self._prepare(job, folder)
        if job.is_cancelled:
            return "Canceled", None
        log = folder / "log.txt"
        job.status, job.started = "Running", now()
        with log.open("wb") as stream:
            job.process = subprocess.Popen(
                ["sh", "-c", _WATCHED, "sh", "bash", "-c", command],
                cwd=code,
                env=self._environment(job) | {"XDG_DATA_HOME": str(folder / "data")},  # its own registry
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        returned = self._watch(job, job.process, log)
        if not job.is_cancelled:
            job.status = "Finalizing"
        for name, path in outputs.items():
            self.cloud.storage.upload(path, self.output_uri(job, name))
        if returned == 0:
            return "Completed", None
        text = f"Execution failed. User process 'bash' exited with status code {returned}. "
        text += f"Please check log file '{LOG}' for error details. Error: {_last_line(job.log)}"
        return "Failed", text

    def _watch(self, job: Job, process: subprocess.Popen[bytes], log: Path) -> int:
        limits = job.properties.get("limits") or {}
        deadline = time.monotonic() + seconds(limits.get("timeout"), 1e9)
        written, killing = 0.0, None
        while process.poll() is None:
            time.sleep(0.02)
            if time.monotonic() > deadline and not job.is_cancelled:
                job.cancel()
            if job.is_cancelled:
                if killing is None:
                    _signal(process, signal.SIGTERM)
                    killing = time.monotonic() + _GRACE_S
                elif time.monotonic() > killing:
                    _signal(process, signal.SIGKILL)
            if time.monotonic() - written > _LOG_EVERY_S:
                written = time.monotonic()
                self._write_log(job, log)
        _signal(process, signal.SIGKILL)  # its remaining child processes
        if process.stdin:
            process.stdin.close()
        self._write_log(job, log)
        return process.returncode

    def _write_log(self, job: Job, log: Path | None = None) -> None:
        content = log.read_bytes() if log else b""
        if not log or content.decode(errors="replace") != job.log:
            self.cloud.storage.write(ARTIFACTS, f"ExperimentRun/dcid.{job.name}/{LOG}", content)
            job.log = content.decode(errors="replace")

    def _prepare(self, job: Job, folder: Path) -> tuple[str, dict[str, Path], Path]:
        """Download code and inputs; return the command, the output folders and the code folder."""
        storage, properties = self.cloud.storage, job.properties
        code, places, outputs = folder / "wd", {}, {}
        code.mkdir()
        if properties.get("codeId"):
            asset = self.cloud.assets.find("codes", properties["codeId"])
            code = storage.download(asset["properties"]["codeUri"], folder / "code")
        for name, value in (properties.get("inputs") or {}).items():
            if value["jobInputType"] == "literal":
                places[f"inputs.{name}"] = str(value["value"])
            else:
                path = storage.download(value["uri"], folder / "inputs" / name)
                places[f"inputs.{name}"] = str(path)
        for name in properties.get("outputs") or {}:
            outputs[name] = folder / "outputs" / name
            outputs[name].mkdir(parents=True)
            places[f"outputs.{name}"] = str(outputs[name])

        def place(found: re.Match[str]) -> str:
            if found[1] not in places:
                raise AzureError(400, "UserError", f"The command refers to {found[0]}, which does not exist.")
            return places[found[1]]

        return re.sub(r"\$\{\{\s*([\w.]+)\s*\}\}", place, properties["command"]), outputs, code

    def _environment(self, job: Job) -> dict[str, str]:
        cloud = self.cloud
        local = {
            name: value
            for name, value in plain_environment(os.environ).items()
            if not name.startswith(("PYTHON", "CIFARML", "COVERAGE", "PYTEST"))
        }
        network = {name: value for name, value in cloud.env().items() if not name.startswith("AZURE")}
        experiment = cloud.mlflow.experiment(job.experiment)
        return local | network | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "AZUREML_RUN_ID": job.name,
            "AZUREML_ARM_SUBSCRIPTION": cloud.subscription_id,
            "AZUREML_ARM_RESOURCEGROUP": cloud.resource_group,
            "AZUREML_ARM_WORKSPACE_NAME": cloud.workspace_name,
            "MLFLOW_RUN_ID": job.name,
            "MLFLOW_EXPERIMENT_ID": experiment.id,
            "MLFLOW_EXPERIMENT_NAME": experiment.name,
            "MLFLOW_TRACKING_URI": f"azureml://{cloud.location}.api.azureml.ms/mlflow/v1.0{cloud.scope}",
            "MLFLOW_TRACKING_TOKEN": cloud.new_token(),
            **(job.properties.get("environmentVariables") or {}),
        }  # fmt: skip


def _last_line(log: str) -> str:
    return (log.strip().splitlines() or [""])[-1]


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
