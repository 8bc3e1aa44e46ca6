"""Azure ML training jobs: submit, list, follow, cancel, fetch the run."""

from __future__ import annotations

import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cifarml.azure.compute import get_cluster
from cifarml.azure.datastore import DEFAULT_STORE, JobLog, open_datastore
from cifarml.azure.image_digest import DIGEST_TAG, find_image_digest
from cifarml.azure.jobs.specs import IMAGE, RUN_NAME, RUN_TAG, RUNS, write_job_yaml
from cifarml.azure.workspace import TAG, AzureWorkspace, state_name
from cifarml.errors import CloudError, TrainingError
from cifarml.locks import own_partial
from cifarml.progress import OnProgress, ignore_progress
from cifarml.run import Run
from cifarml.train.config import TrainConfig
from cifarml.train.data_source import Source

OnLine = Callable[[str], None]

_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 15.0
_CANCEL_TIMEOUT_S: Final = 300.0


@dataclass(frozen=True)
class Job:
    """Training job in Azure ML.

    Args:
        name: Name in the workspace.
        run: Name of the run folder that the job creates.
        state: ``queued``, ``running``, ``completed``, ``failed``, ``canceled`` and so on.
        compute: Name of the compute cluster.
        created_at: Time of the submission.
        page: URL of the job in Azure ML studio.
    """

    name: str
    run: str
    state: str
    compute: str
    created_at: datetime | None
    page: str

    @property
    def has_ended(self) -> bool:
        """True if the job has completed, failed or was canceled."""
        return self.state in {"completed", "failed", "canceled", "notresponding"}


def submit_job(workspace: AzureWorkspace, compute: str, run: str, source: Source, config: TrainConfig) -> Job:
    """Submit a training job to a cluster; see :func:`~cifarml.azure.jobs.specs.write_job_yaml`.

    Raises:
        SettingsError: If the name of the run is invalid.
        DataError: If the images do not exist.
        CloudError: If the cluster does not exist, or a request fails.
    """
    get_cluster(workspace, compute)
    name = f"cifarml-{secrets.token_hex(6)}"
    with tempfile.TemporaryDirectory(prefix="cifarml-") as folder:
        try:
            with workspace.calling(f"submit a job to {compute}"):
                from azure.ai.ml import load_job

                (path,) = write_job_yaml(Path(folder), compute, run, source, config, name)
                job: Any = load_job(path)
                job.name = name
                job.tags[DIGEST_TAG] = find_image_digest(IMAGE, workspace.report)
                workspace.client.jobs.create_or_update(job)
        except CloudError:
            if _find_job(workspace, name) is None:
                raise
    return get_job(workspace, name)


def get_job(workspace: AzureWorkspace, name: str) -> Job:
    """Get a job that cifarml submitted.

    Raises:
        CloudError: If it does not exist, or a request fails.
    """
    found = _find_job(workspace, name)
    if found is None:
        raise CloudError(
            f"job {name[:80]!r} does not exist in workspace {workspace.name}, or is not a job of cifarml",
            "list the jobs: cifarml jobs list",
            code="JobNotFound",
        )
    return found


def list_jobs(workspace: AzureWorkspace) -> list[Job]:
    """List the jobs that cifarml submitted, the oldest first.

    Raises:
        CloudError: If a request fails.
    """
    with workspace.calling("list the jobs"):
        found: list[Any] = [each for each in workspace.client.jobs.list() if each is not None]
    ours = [_parse_job(each) for each in found if TAG in (each.tags or {})]
    return sorted(ours, key=lambda job: (job.created_at is not None, job.created_at))


def follow_job(workspace: AzureWorkspace, job: Job, on_line: OnLine) -> Job:
    """Stream the log of a job until it ends.

    Reads the log from the datastore, because the client's ``jobs.stream`` mistakes a SAS token for an account
    key (azure-ai-ml 1.35).

    Returns:
        The job in its final state.

    Raises:
        KeyboardInterrupt: On Ctrl-C; the job continues.
        CloudError: If a request fails.
    """
    log, rest, wait_s = JobLog(workspace, job.name), b"", _FIRST_WAIT_S
    while True:
        ended = job.has_ended  # before the last lines are read
        *lines, rest = (rest + log.read_new()).split(b"\n")
        for line in lines:
            on_line(line.decode(errors="replace").rstrip("\r"))
        if ended:
            if rest:
                on_line(rest.decode(errors="replace"))
            return job
        time.sleep(wait_s)
        wait_s = _FIRST_WAIT_S if lines else min(wait_s * 1.5, _LONGEST_WAIT_S)
        job = get_job(workspace, job.name)


def cancel_job(workspace: AzureWorkspace, name: str) -> Job:
    """Cancel a job; a job that has ended is not changed.

    Raises:
        CloudError: If it does not exist, or a request fails.
    """
    job = get_job(workspace, name)
    if not job.has_ended:
        try:
            with workspace.calling(f"cancel job {name}"):
                workspace.wait(workspace.client.jobs.begin_cancel(name), f"canceling job {name}")
        except CloudError:
            if "cancel" not in get_job(workspace, name).state:
                raise
    ends = time.monotonic() + _CANCEL_TIMEOUT_S
    while not (job := get_job(workspace, name)).has_ended and time.monotonic() < ends:
        time.sleep(_FIRST_WAIT_S)
    return job


def fetch_run(
    workspace: AzureWorkspace, job: Job, runs_dir: Path, *, on_progress: OnProgress = ignore_progress
) -> Run:
    """Download a job's run folder; it is verified, and created atomically.

    Raises:
        TrainingError: If the job has no run, or a different run with that name exists.
        CloudError: If a request fails.
        ModelFileError: If the downloaded run is corrupt.
    """
    from cifarml.data.blob.transfer import download_path

    if not job.has_ended:
        raise TrainingError(
            f"job {job.name} has not ended: it is {job.state}", f"follow it: cifarml jobs logs {job.name}"
        )
    target = runs_dir / job.run
    partial = own_partial(target)
    try:
        store = open_datastore(workspace, DEFAULT_STORE)
        source = store.address(f"{RUNS}/{job.name}/{job.run}")
        download_path(source, partial, settings=store.settings, on_progress=on_progress)
        run = Run.open(partial)
        run.verify()
        try:
            partial.rename(target)
        except OSError:
            if not target.exists():
                raise
            if Run.open(target).sha256 != run.sha256:
                raise TrainingError(
                    f"{target} exists and is not the run of job {job.name}",
                    hint=f"download to another folder: cifarml jobs fetch {job.name} --runs-dir DIR",
                ) from None
    except CloudError as error:
        if error.code != "BlobNotFound":
            raise
        raise TrainingError(
            f"job {job.name} is {job.state} and has no run",
            hint=f"see its log: cifarml jobs logs {job.name}",
        ) from error
    except OSError as error:
        raise TrainingError(f"can't write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Run.open(target)


def _find_job(workspace: AzureWorkspace, name: str) -> Job | None:
    if not re.fullmatch(r"[\w-]{1,255}", name):
        return None
    found: Any = workspace.find(f"get job {name}", lambda: workspace.client.jobs.get(name))
    return _parse_job(found) if found is not None and TAG in (found.tags or {}) else None


def _parse_job(found: Any) -> Job:
    services = found.services or {}
    run = str((found.tags or {}).get(RUN_TAG, ""))
    return Job(
        str(found.name),
        run if RUN_NAME.fullmatch(run) else str(found.name),
        state_name(found.status),
        str(found.compute or "").rpartition("/")[2],
        getattr(found.creation_context, "created_at", None),
        str(getattr(services.get("Studio"), "endpoint", "") or ""),
    )
