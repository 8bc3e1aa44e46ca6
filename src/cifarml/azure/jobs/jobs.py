"""Training on a cluster: the very same ``cifarml train``, as a job of Azure ML."""

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
    """A training job.

    Args:
        name: Its name in the workspace.
        run: Name of the run folder that it makes.
        state: ``queued``, ``running``, ``completed``, ``failed``, ``canceled`` and so on.
        compute: The cluster.
        created_at: When it was submitted.
        page: Its page in Azure ML's studio.
    """

    name: str
    run: str
    state: str
    compute: str
    created_at: datetime | None
    page: str

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in {"completed", "failed", "canceled", "notresponding"}


def submit_job(workspace: AzureWorkspace, compute: str, run: str, source: Source, config: TrainConfig) -> Job:
    """Send a training job to a cluster; see :func:`~cifarml.azure.jobs.specs.write_job_yaml`.

    Raises:
        SettingsError: If a run can't have that name there.
        DataError: If there are no such images.
        CloudError: If there is no such cluster, or Azure refuses.
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
    """Return a job that we submitted.

    Raises:
        CloudError: If there is none, or Azure refuses.
    """
    found = _find_job(workspace, name)
    if found is None:
        raise CloudError(
            f"there is no job {name[:80]!r} of cifarml in workspace {workspace.name}",
            "list them with: cifarml jobs list",
            code="JobNotFound",
        )
    return found


def list_jobs(workspace: AzureWorkspace) -> list[Job]:
    """Return the jobs that we submitted, the oldest first.

    Raises:
        CloudError: If Azure refuses.
    """
    with workspace.calling("list the jobs"):
        found: list[Any] = [each for each in workspace.client.jobs.list() if each is not None]
    ours = [_parse_job(each) for each in found if TAG in (each.tags or {})]
    return sorted(ours, key=lambda job: (job.created_at is not None, job.created_at))


def follow_job(workspace: AzureWorkspace, job: Job, on_line: OnLine) -> Job:
    """Pass on what a job writes until it ends.

    It reads the job's log in the workspace's storage, since the client's own way of following a job takes a
    SAS token for a key (azure-ai-ml 1.35).

    Returns:
        The job, which has ended.

    Raises:
        KeyboardInterrupt: On Ctrl-C; the job goes on.
        CloudError: If Azure refuses.
    """
    log, rest, wait_s = JobLog(workspace, job.name), b"", _FIRST_WAIT_S
    while True:
        ended = job.has_ended  # before its last lines are read
        *lines, rest = (rest + log.read_on()).split(b"\n")
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
    """End a job; nothing happens to one that has ended.

    Raises:
        CloudError: If there is none, or Azure refuses.
    """
    job = get_job(workspace, name)
    if not job.has_ended:
        try:
            with workspace.calling(f"cancel job {name}"):
                workspace.wait(workspace.client.jobs.begin_cancel(name), f"job {name} is being cancelled")
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
    """Bring a job's run folder home: all of it, each file checked, or nothing.

    Raises:
        TrainingError: If the job made no run, or another one of that name is here.
        CloudError: If Azure refuses.
        ModelFileError: If what came is damaged.
    """
    from cifarml.data.blob.transfer import download_path

    if not job.has_ended:
        raise TrainingError(f"job {job.name} is {job.state}", f"follow it: cifarml jobs logs {job.name}")
    target = runs_dir / job.run
    partial = runs_dir / f".{job.run}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        store = open_datastore(workspace, DEFAULT_STORE)
        source = store.address(f"{RUNS}/{job.name}/{job.run}")
        download_path(source, partial, settings=store.settings, on_progress=on_progress)
        run = Run.open(partial)
        run.verify()
        if target.exists():
            if Run.open(target).sha256 != run.sha256:
                raise TrainingError(
                    f"{target} holds another run than job {job.name}",
                    hint=f"fetch it elsewhere: cifarml jobs fetch {job.name} --runs-dir DIR",
                )
        else:
            partial.replace(target)
    except CloudError as error:
        if error.code != "BlobNotFound":
            raise
        raise TrainingError(
            f"job {job.name} is {job.state}, and has left no run",
            hint=f"its log: cifarml jobs logs {job.name}",
        ) from error
    except OSError as error:
        raise TrainingError(f"can't write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Run.open(target)


def _find_job(workspace: AzureWorkspace, name: str) -> Job | None:
    if not re.fullmatch(r"[\w-]{1,255}", name):
        return None
    found: Any = workspace.find(f"look at job {name}", lambda: workspace.client.jobs.get(name))
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
