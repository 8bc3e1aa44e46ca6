"""``cifarml jobs``: training jobs on Azure ML clusters."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from cifarml.cli import options
from cifarml.cli.console import (
    note,
    print_json,
    print_list,
    print_result,
    print_table,
    shown_path,
    shown_time,
)
from cifarml.cli.target import open_workspace
from cifarml.progress import show_progress

if TYPE_CHECKING:
    from cifarml.azure.jobs.jobs import Job
    from cifarml.azure.workspace import AzureWorkspace

app = typer.Typer(
    name="jobs",
    help=options.group_help("Follow training jobs on Azure ML clusters.", "cifarml jobs list"),
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="JOB", help="Name of the job, as listed by cifarml jobs list.")]


@app.command("list")
def list_command(json: options.Json = False) -> None:
    """List the training jobs, oldest first.

    [bold]Examples[/bold]

      cifarml jobs list
    """
    from cifarml.azure.jobs.jobs import list_jobs

    jobs = list_jobs(open_workspace())
    rows = [(job.name, job.run, job.state, job.compute, shown_time(job.created_at)) for job in jobs]
    columns = ("job", "run", "state", "cluster", "submitted")
    empty = "There are no jobs. Start one with: cifarml train --compute NAME"
    print_list(jobs, columns, rows, empty=empty, json=json)


@app.command()
def show(name: Name, json: options.Json = False) -> None:
    """Show the state of a job.

    [bold]Examples[/bold]

      cifarml jobs show cifarml-0123456789ab
    """
    from cifarml.azure.jobs.jobs import get_job

    job = get_job(open_workspace(), name)
    if json:
        print_json(job)
        return
    rows = [("run", job.run), ("state", job.state), ("cluster", job.compute), ("page", job.page)]
    print_table(f"Job {job.name}", ("field", "value"), rows)
    if job.state == "completed":
        print(f"Next: cifarml jobs fetch {job.name}")


@app.command()
def logs(name: Name) -> None:
    """Stream the log of a job until it ends.

    Ctrl-C stops the output, not the job.

    [bold]Examples[/bold]

      cifarml jobs logs cifarml-0123456789ab
    """
    from cifarml.azure.jobs.jobs import get_job

    workspace = open_workspace()
    job = follow(workspace, get_job(workspace, name), lambda line: print(line, flush=True))
    note(f"Job {job.name} is {job.state}")


@app.command()
def cancel(name: Name, json: options.Json = False) -> None:
    """Cancel a job.

    [bold]Examples[/bold]

      cifarml jobs cancel cifarml-0123456789ab
    """
    from cifarml.azure.jobs.jobs import cancel_job

    job = cancel_job(open_workspace(), name)
    print_result(job, f"{job.name} is {job.state}", json=json)


@app.command()
def fetch(
    name: Name, runs_dir: options.RunsDir = None, json: options.Json = False, quiet: options.Quiet = False
) -> None:
    """Download the run folder of a job.

    The hash of each file is verified.

    [bold]Examples[/bold]

      cifarml jobs fetch cifarml-0123456789ab
    """
    from cifarml.azure.jobs.jobs import fetch_run, get_job

    workspace = open_workspace()
    job = get_job(workspace, name)
    with show_progress(quiet=quiet) as on_progress:
        run = fetch_run(workspace, job, options.runs_folder(runs_dir), on_progress=on_progress)
    path = shown_path(run.path)
    lines = f"Run folder: {path}", f"Next: cifarml models register {path}"
    print_result({"path": run.path, **run.info}, *lines, json=json)


def follow(workspace: AzureWorkspace, job: Job, on_line: Callable[[str], None]) -> Job:
    """Stream the log of a job until it ends; Ctrl-C exits the command, not the job."""
    from cifarml.azure.jobs.jobs import follow_job

    try:
        return follow_job(workspace, job, on_line)
    except KeyboardInterrupt:
        note(f"The job continues. Log: cifarml jobs logs {job.name}; cancel: cifarml jobs cancel {job.name}")
        raise typer.Exit(130) from None
